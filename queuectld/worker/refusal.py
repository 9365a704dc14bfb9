"""Why there is no running command, in the words of its user: what was asked for, and what the host says to that."""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from queuectld.protocol.worker_messages import Reason

# It is the host that has none of these left; the command would start elsewhere, or later.
_HOST_ERRORS: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
# What a shell answers for a program that it cannot find, and for one that it may not or cannot execute.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class NotStarted(NamedTuple):
    """Why there is no running command."""

    reason: Reason
    exit_code: int | None
    message: str


def impossible(message: str) -> NotStarted:
    """Return that it can never be started as it is."""
    return NotStarted(Reason.NOT_STARTED, NOT_EXECUTABLE, message)


def nowhere(directory: str, error: OSError) -> NotStarted:
    """Return that it cannot begin in that directory."""
    return _of_host(error) or _missing(f"the directory {directory} cannot be used", error)


def unreadable(what: str, error: OSError) -> NotStarted:
    """Return that a file of ours that it needs cannot be opened."""
    return _of_host(error) or _missing(f"its {what} cannot be read", error)


def unfit(program: str, error: OSError) -> NotStarted:
    """Return that the program cannot be executed, or anything on the way to it failed."""
    code = NOT_FOUND if error.errno in MISSING else NOT_EXECUTABLE
    return _of_host(error) or NotStarted(Reason.NOT_STARTED, code, f"{program}: {error.strerror}")


def forbidden(what: str, error: OSError) -> NotStarted:
    """Return that the host does not grant something that it asks for."""
    return _of_host(error) or impossible(f"{what}: {error.strerror}")


def _missing(what: str, error: OSError) -> NotStarted:
    return NotStarted(Reason.NOT_STARTED, NOT_FOUND, f"{what}: {error.strerror}")


def _of_host(error: OSError) -> NotStarted | None:
    if error.errno not in _HOST_ERRORS:
        return None
    return NotStarted(Reason.HOST_ERROR, None, f"the host could not start it: {error.strerror}")
