"""Why there is no connection to a daemon, and what to do about it."""

from __future__ import annotations

import grp
import os
import stat

from queuectl_cli.errors import UnreachableError
from queuectl_cli.target import Target


def explain(error: OSError, target: Target) -> UnreachableError:
    """Return the error for a failed attempt to connect to `target`."""
    what = f"cannot reach queuectld at {target.name}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UnreachableError(
            f"{what} (there is no such socket)", *_at_rest(target), *_start(target), code="no_socket"
        )
    if isinstance(error, ConnectionRefusedError) and not _is_socket(target):
        return UnreachableError(f"{what} (that is no socket)", "Something else took its place; move it away.")
    if isinstance(error, ConnectionRefusedError):
        why = (
            "The socket file exists: the daemon was probably killed." if target.local else "Is the daemon's `tcp` set?"
        )
        return UnreachableError(f"{what} (nothing listens there)", why, *_start(target), code="refused")
    if isinstance(error, PermissionError):
        return UnreachableError(f"{what} (permission denied)", *_who_may(target), code="permission")
    if isinstance(error, TimeoutError):
        return UnreachableError(f"{what} (no answer)", "It is stopped, stuck, or behind a firewall.", code="timeout")
    return UnreachableError(f"{what} ({error.strerror or error})", code="unreachable")


def _is_socket(target: Target) -> bool:
    try:
        return target.path is None or stat.S_ISSOCK(os.stat(target.path).st_mode)  # noqa: PTH116  (pathlib costs 3 ms)
    except OSError:
        return True


def _at_rest(target: Target) -> list[str]:
    if not target.local:
        return []
    state = target.places.state
    if not target.explicit and os.path.exists(f"{state}/queue.db"):  # noqa: PTH110  (pathlib costs 3 ms)
        return [f"The daemon does not run. Its jobs wait in {state}."]
    return ["No daemon runs here."]


def _start(target: Target) -> list[str]:
    if not target.local:
        return []
    if target.explicit:
        return ["Start the daemon that listens there, or leave out -H and QUEUECTL_HOST."]
    if target.places.scope == "system":
        return [f"Start it{' as root' * (os.geteuid() != 0)}:  queuectl --system daemon start"]
    return ["Start it:  queuectl daemon start"]


def _who_may(target: Target) -> list[str]:
    own = "A queue of your own:  queuectl --user …"
    try:
        found = os.stat(target.path or "")  # noqa: PTH116  (pathlib costs 3 ms)
        group = grp.getgrgid(found.st_gid).gr_name
    except (OSError, KeyError):
        return ["You may not look into the directory of its socket; it is for its owner.", own]
    if not found.st_mode & 0o020:
        return [f"It is for its owner alone (mode {found.st_mode & 0o777:o}).", own]
    return [
        f"It is for members of the group {group!r} (mode {found.st_mode & 0o777:o}).",
        f"Join it, then log in again:  sudo usermod -aG {group} $USER",
        own,
    ]
