"""What can go wrong for a user: what happened, why, what to do, and the exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

# What the daemon's error codes mean as an exit code; 1 for all others.
STATUS: Final[Mapping[str, int]] = {
    "ambiguous_id": 2,
    "bad_config": 78,
    "bad_json": 2,
    "bad_request": 2,
    "check_failed": 1,
    "disk_full": 75,
    "draining": 75,
    "tls_required": 76,
    "too_many_attempts": 75,
    "too_many_clients": 75,
    "too_much_held": 75,
    "duplicate_id": 4,
    "duplicate_key": 4,
    "forbidden": 77,
    "line_too_long": 2,
    "no_such_attempt": 3,
    "no_such_job": 3,
    "no_such_key": 3,
    "no_such_queue": 3,
    "unauthenticated": 77,
    "unknown_op": 76,
    "unsupported": 2,
    "wrong_state": 4,
}

_HINTS: Final[Mapping[str, Sequence[str]]] = {
    "duplicate_id": (
        "Give it another id, or none: one is made up.",
        "Look at it:  queuectl show {id}      Run that one again:  queuectl retry {id}",
    ),
    "no_such_job": ("List them:  queuectl list",),
    "no_such_key": ("List them:  queuectl config list",),
    "no_such_queue": ("Known queues:  queuectl status",),
    "check_failed": ("The daemon that runs goes on; repair what is installed, or its configuration, and try again.",),
    "draining": ("The daemon is stopping; try again when it has been started again.",),
    "disk_full": ("Free some space on the disk of the daemon's state directory, then try again.",),
    "tls_required": ("It encrypts; write tls:// in place of tcp://.",),
    "too_many_attempts": ("Try again later. Somebody at your address may be guessing; ssh:// is not held up by that.",),
    "unauthenticated": ("Name the file with the token:  --token-file FILE  or  QUEUECTL_TOKEN_FILE",),
    "unknown_op": ("queuectl and queuectld differ in version:  queuectl version",),
    "forbidden": ("Who may do what:  queuectl help permissions",),
    "internal": ("The daemon's log has the details.",),
}


class CliError(Exception):
    """Ends the command with one message, hints below it, and a status."""

    def __init__(
        self, message: str, *hints: str, code: str = "error", status: int = 1, path: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hints = hints
        self.code = code
        self.status = status
        self.path = path

    def text(self) -> str:
        """Return the lines for people."""
        return "\n".join([f"Error: {self.message}", *(f"  {hint}" for hint in self.hints)])

    def as_json(self, status: int) -> dict[str, Any]:
        """Return the object for programs."""
        body = {"code": self.code, "message": self.message, "hints": list(self.hints), "exit_code": status}
        if self.path is not None:
            body["path"] = self.path
        return {"error": body}


class UsageError(CliError):
    """The command line, or what it reads, is not right."""

    def __init__(self, message: str, *hints: str, path: str | None = None) -> None:
        super().__init__(message, *hints, code="usage", status=2, path=path)


class UnreachableError(CliError):
    """No daemon answers there."""

    def __init__(self, message: str, *hints: str, code: str = "unreachable", status: int = 69) -> None:
        super().__init__(message, *hints, code=code, status=status)


class LostError(UnreachableError):
    """The connection ended in the middle."""


class RefusedError(CliError):
    """The daemon answered with an error."""

    def __init__(self, error: Mapping[str, Any], *hints: str, job: str | None = None) -> None:
        code = str(error.get("code", "internal"))
        usual = tuple(hint.format(id=job or "ID") for hint in _HINTS.get(code, ()))
        super().__init__(
            str(error.get("message", code)),
            *(hints or usual),
            code=code,
            status=STATUS.get(code, 1),
            path=error.get("path"),
        )
