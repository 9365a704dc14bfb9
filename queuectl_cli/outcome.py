"""How a job ended, as an exit code: what ``run`` and ``wait`` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from queuectl_cli.render import exit_of

# Ours, not the command's: it never ran, or was lost.
OURS: Final = 125
TIMED_OUT: Final = 124
# Our patience ran out, and the job goes on.
GOES_ON: Final = 75
_TERM: Final = 143
_TOLD_TO_END: Final = frozenset({"out_of_memory", "cpu_limit", "output_limit"})


def exit_code(job: Mapping[str, Any]) -> int:
    """Return the exit code for one job that is over."""
    if not job.get("ran", True):
        return OURS
    match job.get("reason"):
        case "timeout" | "silent":
            return TIMED_OUT
        case "lost" | "interrupted" | "host_error":
            return OURS
    if job.get("signal") is not None:
        return 128 + int(job["signal"])
    if job["state"] == "cancelled" or job.get("reason") in _TOLD_TO_END:
        # A command that ends well when it is told to end has not succeeded.
        return int(job.get("exit_code") or _TERM)
    code = job.get("exit_code")
    return int(code) if code is not None else 0 if job["state"] == "completed" else OURS


def exit_code_of_all(jobs: Sequence[Mapping[str, Any]]) -> int:
    """Return the exit code for several: 0 if all succeeded."""
    return 0 if all(job["state"] == "completed" for job in jobs) else 1


def in_words(job: Mapping[str, Any]) -> str:
    """Return how a job ended, in a few words."""
    how = exit_of(job)
    reason = job.get("reason")
    usual = reason in {None, "exited", "signalled"}
    detail = job.get("error") if job["state"] != "completed" else None
    words = [str(job["state"]), "" if usual else str(reason), f"exit {how}" if how.isdecimal() else how]
    text = ", ".join(dict.fromkeys(word for word in words if word))
    return f"{text}: {detail}" if detail and detail not in words else text
