"""Whether a database is damaged for good: SQLite says so as well of a page that the disk did not give it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from queuectld.errors import QueueCTLError, StoreDamagedError
from queuectld.upkeep.rules import examine

_BLOCK: Final = 1 << 20


def is_damaged(path: Path) -> bool:
    """Read all of a database that SQLite has called damaged; return whether it is, and not only unreadable now.

    Only while no connection of this process is open that is to be used again.
    """
    try:
        _read(path)
        _read(path.with_name(f"{path.name}-wal"))
        return bool(examine(path))
    except StoreDamagedError:
        return True
    except (OSError, QueueCTLError):
        return False


def _read(path: Path) -> None:
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_BLOCK):
                pass
    except FileNotFoundError:
        return
