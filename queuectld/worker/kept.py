"""What a command left running on purpose: written down, so that nobody ends it who clears up after something else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

import msgspec

from queuectld.protocol import codec
from queuectld.protocol.output import outcome_name
from queuectld.worker import procfs

DIRECTORY: Final = "kept"


class Kept(msgspec.Struct, frozen=True):
    """The processes of an attempt that are to live on: number and start time of each, in this boot of the host."""

    boot: str
    processes: tuple[tuple[int, int], ...]


def save(state: str, store: str, token: int, processes: Sequence[procfs.Stat]) -> None:
    """Write them down in the state directory, whole or not at all. Raises `OSError`.

    Nothing is forced to the disk: what the host forgets when it goes down does not live then either.
    """
    directory = os.path.join(state, DIRECTORY)
    name = outcome_name(store, token)
    temporary = os.path.join(directory, f".{name}")
    found = Kept(procfs.boot_id(), tuple((process.pid, process.start) for process in processes))
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        with open(temporary, "wb", buffering=0, opener=_private) as file:
            file.write(codec.encode(found))
        os.rename(temporary, os.path.join(directory, name))
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
