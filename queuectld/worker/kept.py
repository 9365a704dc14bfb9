"""What a command left running on purpose: written down, so that nobody ends it who clears up after something else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from queuectld.protocol import codec
from queuectld.protocol.output import attempt_name
from queuectld.worker import files, procfs

DIRECTORY: Final = "kept"


class Kept(msgspec.Struct, frozen=True):
    """The processes of an attempt that are to live on: number and start time of each, in this boot of the host."""

    boot: str
    processes: tuple[tuple[int, int], ...]


def save(state: str, store: str, token: int, processes: Sequence[procfs.Stat]) -> None:
    """Write them down in the state directory, whole or not at all. Raises `OSError`.

    Nothing is forced to the disk: what the host forgets when it goes down does not live then either.
    """
    found = Kept(procfs.boot_id(), tuple((process.pid, process.start) for process in processes))
    files.leave(os.path.join(state, DIRECTORY), attempt_name(store, token), codec.encode(found), on_disk=False)
