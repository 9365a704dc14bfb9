"""The life of a job. Whatever changes a job's state is in this file, and goes through one table.

The table is keyed by (state, event), not by (from, to): a person's retry and the requeue of an interrupted attempt
both end in ``pending``, but only the first may happen to a dead job, and only the second to a running one.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from queuectld.domain import policy as retries
from queuectld.domain.attempt import NOT_THE_JOBS_FAULT, Outcome, Reason
from queuectld.domain.job import Job, State
from queuectld.domain.policy import Policy
from queuectld.errors import WrongStateError


class Event(StrEnum):
    """What can happen to a job. The value is the name of the event in logs and in ``queuectl events``."""

    CLAIM = "job.started"
    COMPLETE = "job.completed"
    RETRY = "job.failed"
    BURY = "job.dead"
    REQUEUE = "job.requeued"
    CANCEL = "job.cancelled"
    REVIVE = "job.retried"
    DISCARD = "job.discarded"
    UNDELETE = "job.undeleted"


# The whole life of a job. What is not in this table cannot happen.
NEXT: Final[Mapping[State, Mapping[Event, State]]] = {
    State.PENDING: {
        Event.CLAIM: State.PROCESSING,
        Event.CANCEL: State.CANCELLED,
    },
    State.PROCESSING: {
        Event.COMPLETE: State.COMPLETED,
        Event.RETRY: State.FAILED,
        Event.BURY: State.DEAD,
        Event.REQUEUE: State.PENDING,
        Event.CANCEL: State.CANCELLED,
    },
    State.FAILED: {
        Event.CLAIM: State.PROCESSING,
        Event.CANCEL: State.CANCELLED,
        Event.REVIVE: State.FAILED,
    },
    State.COMPLETED: {Event.REVIVE: State.PENDING},
    State.CANCELLED: {Event.REVIVE: State.PENDING},
    State.DEAD: {Event.REVIVE: State.PENDING, Event.DISCARD: State.DELETED},
    State.DELETED: {Event.UNDELETE: State.DEAD},
}

_VERBS: Final[Mapping[Event, str]] = {
    Event.CLAIM: "started",
    Event.COMPLETE: "completed",
    Event.RETRY: "failed",
    Event.BURY: "buried",
    Event.REQUEUE: "given back",
    Event.CANCEL: "cancelled",
    Event.REVIVE: "retried",
    Event.DISCARD: "discarded",
    Event.UNDELETE: "brought back",
}


class Step(NamedTuple):
    """A job after a step of its life, and the event that made it."""

    job: Job
    event: Event


def _step(job: Job, event: Event, now: float, **changes: Any) -> Step:
    try:
        state = NEXT[job.state][event]
    except KeyError:
        raise WrongStateError(f"job '{job.id}' is {job.state}, so it cannot be {_VERBS[event]}") from None
    return Step(replace(job, state=state, updated_at=now, **changes), event)


def claim(job: Job, *, token: int, now: float) -> Step:
    """Hand it to a worker: a new attempt begins."""
    return _step(
        job,
        Event.CLAIM,
        now,
        token=token,
        attempts=job.attempts + 1,
        first_started_at=now if job.first_started_at is None else job.first_started_at,
        started_at=now,
        ended_at=None,
    )


def settle(job: Job, outcome: Outcome, *, policy: Policy, now: float, luck: float, reboot: bool = False) -> Step:
    """Decide what the end of its attempt means for a running job.

    `luck` in [0, 1) spreads the retries of jobs that ask for jitter; `reboot` says that the host went down, so that
    the loss is no sign against the job.
    """
    told = {
        "token": None,
        "ended_at": outcome.ended_at,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "reason": outcome.reason,
        "error": error_line(outcome),
        "cancel_requested": None,
    }
    if succeeded(job, outcome):
        return _step(job, Event.COMPLETE, now, **told | {"error": None, "losses": 0})
    if job.cancel_requested is not None:
        return _step(
            job, Event.CANCEL, now, **told | {"reason": Reason.CANCELLED, "error": job.cancel_requested or None}
        )
    if outcome.reason is Reason.CANCELLED:
        return _step(job, Event.CANCEL, now, **told)
    if outcome.reason in NOT_THE_JOBS_FAULT:
        return _give_back(job, outcome, told, policy, now, reboot=reboot)
    return _fail(job, outcome, told, policy, now, luck)


def _give_back(job: Job, outcome: Outcome, told: dict[str, Any], policy: Policy, now: float, *, reboot: bool) -> Step:
    counts = outcome.reason is Reason.LOST and not reboot
    losses = job.losses + counts
    told |= {"losses": losses}
    poison = counts and losses >= policy.max_lost
    # An interrupted attempt without a process never began, so running it is still the first time.
    began = outcome.reason is Reason.LOST or (outcome.reason is Reason.INTERRUPTED and outcome.pid is not None)
    once = job.spec.rerun == "never" and began
    if poison or once:
        return _step(job, Event.BURY, now, **told, seen=False)
    # It keeps its place in the order: it is not its fault that it has to begin again.
    return _step(job, Event.REQUEUE, now, **told)


def _fail(job: Job, outcome: Outcome, told: dict[str, Any], policy: Policy, now: float, luck: float) -> Step:
    told |= {"losses": 0}
    if never_again(job, outcome) or not retries.may_retry(job, policy, now):
        return _step(job, Event.BURY, now, **told, seen=False)
    due = now + retries.retry_delay(job, policy, luck)
    return _step(job, Event.RETRY, now, **told, **_place(job, due, policy), retries_spent=job.retries_spent + 1)


def _place(job: Job, due: float, policy: Policy) -> dict[str, float]:
    return {"due": due, "rank": retries.rank(due, job.priority, policy.priority_step)}


def cancel(job: Job, *, why: str, now: float) -> Step:
    """End a job that does not run."""
    if job.state is State.PROCESSING:
        raise WrongStateError(f"job '{job.id}' runs; its attempt has to end first")
    return _step(job, Event.CANCEL, now, reason=Reason.CANCELLED, error=why or None, ended_at=now)


def request_cancel(job: Job, *, why: str, now: float) -> Job:
    """Note that a running job is to be ended. No step: its state changes when its last process is gone."""
    if job.state is not State.PROCESSING:
        raise WrongStateError(f"job '{job.id}' is {job.state}, not running")
    return replace(job, cancel_requested=why, updated_at=now)


def revive(job: Job, *, policy: Policy, now: float, due: float | None = None) -> Step:
    """Bring a job back at a person's request: at once, or at `due`; with a fresh budget unless it still had one."""
    fresh: dict[str, Any] = (
        {} if job.state is State.FAILED else {"retries_spent": 0, "first_started_at": None, "losses": 0}
    )
    place = _place(job, now if due is None else due, policy)
    return _step(job, Event.REVIVE, now, **place, **fresh, reason=None, error=None, seen=False)


def discard(job: Job, *, now: float) -> Step:
    """Hide a dead job; it is removed when its retention is over."""
    return _step(job, Event.DISCARD, now)


def undelete(job: Job, *, now: float) -> Step:
    """Bring back what was discarded, as it was."""
    return _step(job, Event.UNDELETE, now)


def succeeded(job: Job, outcome: Outcome) -> bool:
    """Whether the command ended as the job wants it."""
    return outcome.reason is Reason.EXITED and outcome.exit_code in job.spec.success_codes


def never_again(job: Job, outcome: Outcome) -> bool:
    """Whether the job asked not to be retried after such an end."""
    return outcome.reason.value in job.spec.no_retry_on or (
        outcome.exit_code is not None and outcome.exit_code in job.spec.no_retry_on
    )


def error_line(outcome: Outcome) -> str:
    """One line for people: the reason, and the last thing that the command wrote to stderr."""
    what = _what(outcome)
    return f"{what}: {outcome.message}" if outcome.message else what


def signal_name(number: int | None) -> str:
    """Return how people call a signal: ``SIGSEGV``."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def _what(outcome: Outcome) -> str:
    match outcome.reason:
        case Reason.EXITED:
            return f"exit code {outcome.exit_code}"
        case Reason.SIGNALLED:
            return f"killed by {signal_name(outcome.signal)}"
        case Reason.NOT_STARTED:
            return "could not be started"
        case Reason.SILENT:
            return "silent for too long"
        case Reason.CPU_LIMIT | Reason.OUTPUT_LIMIT:
            return f"over its {outcome.reason.value.replace('_', ' ')}"
        case _:
            return outcome.reason.value.replace("_", " ")
