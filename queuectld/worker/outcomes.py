"""Where an outcome goes when nobody is there to hear it: one file, complete or not there at all, and on disk."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from queuectld.protocol import codec
from queuectld.protocol.output import outcome_name
from queuectld.protocol.worker_messages import Ended, Outcome

DIRECTORY: Final = "outcomes"


def save(state: str, store: str, token: int, outcome: Outcome) -> None:
    """Store an outcome durably in the state directory: temporary file, fsync, rename, fsync of the directory.

    The temporary file's name begins with a dot. Raises `OSError`, and has then removed it as far as possible.
    """
    directory = os.path.join(state, DIRECTORY)
    name = outcome_name(store, token)
    path = os.path.join(directory, name)
    temporary = os.path.join(directory, f".{name}")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        _write(temporary, codec.encode(Ended(token, outcome)))
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(directory)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        # A full disk may take a part and refuse the rest only in the next call.
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
