"""Whether a database is damaged for good: SQLite says so as well of a page that the disk did not give it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from queuectld.errors import QueueCTLError, StoreDamagedError
from queuectld.upkeep.rules import examine

_BLOCK: Final = 1 << 20


def is_damaged(path: Path) -> bool:
    """Look into a database that SQLite has called damaged; return whether it is, and not only unreadable now.

    Only while no connection of this process is open that is to be used again.
    """
    try:
        # What the disk did not give during a look shows in the reading after it, or, if it was only once, not again.
        _read_all(path)
        if not _in_disorder(path):
            return False
        _read_all(path)
        return _in_disorder(path)
    except (OSError, QueueCTLError):
        return False


def _in_disorder(path: Path) -> bool:
    try:
        return bool(examine(path))
    except StoreDamagedError:
        return True


def _read_all(path: Path) -> None:
    for file in (path, path.with_name(f"{path.name}-wal")):
        _read(file)


def _read(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # By the call that SQLite makes, so that what failed for it fails here.
        position = 0
        while data := os.pread(descriptor, _BLOCK, position):
            position += len(data)
    finally:
        os.close(descriptor)
