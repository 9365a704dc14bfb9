"""The exit codes of `queuectld`, by which a service manager knows whether starting it again could help."""

from __future__ import annotations

from typing import Final

from queuectld.errors import (
    BadConfigError,
    BadRequestError,
    DiskFullError,
    QueueCTLError,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreTooNewError,
)

OK: Final = 0
# What `queuectld db` is asked for cannot be done like that.
BAD_INPUT: Final = 2
# The database is damaged, or newer than we are.
DATA: Final = 65
# The disk failed: begin again from the log.
IO: Final = 74
# Another daemon holds the state directory.
LOCKED: Final = 75
CONFIG: Final = 78

# The most special first.
_CODES: Final[tuple[tuple[type[QueueCTLError], int], ...]] = (
    (BadConfigError, CONFIG),
    (BadRequestError, BAD_INPUT),
    (StoreLockedError, LOCKED),
    (StoreDamagedError, DATA),
    (StoreTooNewError, DATA),
    (StoreError, IO),
    (DiskFullError, IO),
)


def code_of(error: QueueCTLError) -> int:
    """Return the exit code of a daemon that cannot start, or go on, because of this."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)
