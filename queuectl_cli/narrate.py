"""What happened, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from queuectl_cli.render import exit_of

Event = Mapping[str, Any]
# What an event tells besides its name, its job and its time, and what of that goes without saying.
_TOLD: Final = ("attempt", "worker", "queue", "exit_code", "signal", "reason", "run_at", "by")
_USUAL: Final = {"queue": "default", "reason": "exited"}


def as_worker_line(event: Event, now: float) -> str | None:
    """Return what a worker did: ``[Worker 1] Running job demo1 (attempt 1)``; None for what no worker did."""
    job, worker, state = event.get("job"), event.get("worker"), event.get("state")
    if (
        not job
        or not worker
        or event.get("was") not in {"processing", "pending", "failed"}
        or state == event.get("was")
    ):
        return None
    told = {
        "processing": f"Running job {job} (attempt {event.get('attempt')})",
        "completed": f"Job {job} completed",
        "failed": f"Job {job} failed{_how(event)}, retrying{_due(event, now)}",
        "dead": f"Job {job} failed{_how(event)}, moved to the dead letter queue",
        "pending": f"Job {job} goes back to the queue{_how(event)}",
        "cancelled": f"Job {job} cancelled",
    }.get(str(state))
    return told and f"[Worker {worker.removeprefix('w')}] {told}"


def as_line(event: Event, *, utc: bool = False) -> str:
    """Return an event for people: its number, when, what, to which job, and the rest as ``name=value``."""
    from queuectl_cli.times import local  # noqa: PLC0415  (only here)

    when = local if not utc else str
    told = {name: event[name] for name in _TOLD if event.get(name) not in {None, _USUAL.get(name)}}
    if event.get("event") == "job.started":
        # Of the attempt before.
        told.pop("reason", None)
    if "run_at" in told:
        told["run_at"] = when(told["run_at"])
    words = [f"{event['number']:>6}", when(str(event["at"])), f"{event['event']:<13}", str(event.get("job") or "")]
    words += [f"{name}={value}" for name, value in told.items()]
    return ("… older events are gone\n" if event.get("gap") else "") + "  ".join(words).rstrip()


def _how(event: Event) -> str:
    how, reason = exit_of(event), event.get("reason")
    text = how if reason in {None, "exited", "signalled"} else str(reason)
    return f" ({'exit ' if how == text and how.isdecimal() else ''}{text})" if text else ""


def _due(event: Event, now: float) -> str:
    if not event.get("run_at"):
        return ""
    from queuectl_cli.times import distance, epoch  # noqa: PLC0415  (only for jobs that fail)

    return f" {distance(epoch(event['run_at']) - now)}"
