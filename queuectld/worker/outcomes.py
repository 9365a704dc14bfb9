"""Where an outcome goes when nobody is there to hear it: one file, on disk."""

from __future__ import annotations

import os
from typing import Final

from queuectld.protocol import codec
from queuectld.protocol.output import attempt_name
from queuectld.protocol.worker_messages import Ended, Outcome
from queuectld.worker import files

DIRECTORY: Final = "outcomes"


def save(state: str, store: str, token: int, outcome: Outcome) -> None:
    """Store an outcome durably in the state directory, as one `Ended` in JSON. Raises `OSError`."""
    data = codec.encode(Ended(token, outcome))
    files.leave(os.path.join(state, DIRECTORY), attempt_name(store, token), data, on_disk=True)
