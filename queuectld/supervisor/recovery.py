"""What a new daemon finds of the one before it: attempts that may still run, and outcomes that nobody recorded."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from queuectld.domain.attempt import Attempt, Outcome
from queuectld.protocol.output import attempt_name
from queuectld.protocol.worker_messages import Ended, decode_from_worker

# Bytes of an outcome file: far more than an outcome with its leftovers and its line for people has.
_LARGEST: Final = 4 * 1024 * 1024


class Fate(StrEnum):
    """How an attempt that the store calls live is found."""

    # Its worker lives and will come back, or be ended.
    AWAITED = "awaited"
    # Its worker is gone; something of its command may be left.
    WIDOWED = "widowed"
    # The host went down in between: nothing can be left.
    REBOOTED = "rebooted"


def fate(attempt: Attempt, *, boot_id: str, start_time: Callable[[int], int | None]) -> Fate:
    """Judge a live attempt; `start_time` tells when the process of a number started, None if there is none."""
    if attempt.boot_id != boot_id:
        return Fate.REBOOTED
    return Fate.AWAITED if start_time(attempt.worker_pid) == attempt.worker_start else Fate.WIDOWED


class Filed(NamedTuple):
    """An outcome that a worker left in a file, since there was no daemon to tell."""

    path: Path
    token: int
    outcome: Outcome


def filed_outcomes(directory: Path, store: str) -> Iterator[Filed]:
    """Yield the readable outcome files of this store; those of another store are left for it."""
    for path in sorted(directory.glob(f"{store}.*")):
        if path.suffix[1:].isdecimal() and (filed := read_outcome(directory, store, int(path.suffix[1:]))):
            yield filed


def read_outcome(directory: Path, store: str, token: int) -> Filed | None:
    """Return what lies in the outcome file of an attempt, if there is one.

    A file that cannot be read is none: it was renamed into place after an fsync, so only a damaged disk makes one, and
    then the attempt counts as lost. So does one whose place something else has taken: any command of the same user
    could put a pipe there.
    """
    path = directory / attempt_name(store, token)
    try:
        ended = decode_from_worker(_read_regular(path))
    except (OSError, msgspec.MsgspecError):
        return None
    return Filed(path, token, ended.outcome) if isinstance(ended, Ended) and ended.token == token else None


def remove_outcome(directory: Path, store: str, token: int) -> None:
    """Forget an outcome file, after its outcome was committed. One that cannot be removed does no harm there."""
    name = attempt_name(store, token)
    # The second is what a worker had not finished when it was killed.
    for file in (name, f".{name}"):
        with suppress(OSError):
            (directory / file).unlink(missing_ok=True)


def _read_regular(path: Path) -> bytes:
    """Return what a file has, without ever waiting for somebody at the other end. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123  (it is open already)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise OSError(f"{path} is no outcome")
        return file.read(_LARGEST)
