"""Attempts from their claim to their end: what the store has to know of them, and nothing else.

These run on the store thread, inside a transaction; whoever calls them speaks to workers only after it was committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.domain.job import Job
from queuectld.domain.policy import Policy
from queuectld.domain.transitions import Step, claim, settle
from queuectld.service.history import move
from queuectld.store.base import Entry, Store

# What a shell answers for what it cannot find, be it the user.
_NOT_FOUND: Final = 127


class Offer(NamedTuple):
    """A worker that is free to run something."""

    worker: str
    pid: int
    start: int


class Claimed(NamedTuple):
    """A job that belongs to a worker now, with the blobs that it needs."""

    job: Job
    attempt: Attempt
    environment: bytes | None
    stdin: bytes | None
    script: bytes | None


class Ending(NamedTuple):
    """What a report of an end came to."""

    # Whether the outcome is on record now; if not, the attempt ended otherwise long ago, or never was.
    recorded: bool
    # The job as it is now, if this report was the one that changed it, and its attempt.
    job: Job | None = None
    attempt: Attempt | None = None
    # The next job for the same worker.
    claimed: Claimed | None = None


class Claims(NamedTuple):
    """The jobs that were claimed, one for each of the first offers."""

    claimed: Sequence[Claimed]
    # Whether a startable job is left.
    more: bool = False
    # When the next job is due, if that was asked.
    next_due: float | None = None


def claim_for(store: Store, offers: Sequence[Offer], *, now: float, boot_id: str, ripen: bool) -> Claims:
    """Give the first startable jobs to the workers on offer. `ripen` looks for jobs whose time has come before."""
    if ripen:
        while store.ripen(now, limit=500):
            pass
    # One more than can be taken, to know whether there is more.
    heads = _heads(store, len(offers) + 1, now)
    claimed = [_claim(store, job, offer, now, boot_id) for job, offer in zip(heads, offers, strict=False)]
    return Claims(claimed, len(heads) > len(offers), store.next_due() if ripen else None)


def _heads(store: Store, limit: int, now: float) -> Sequence[Job]:
    """Return the first startable jobs of all queues."""
    heads = [job for queue in store.queues() for job in store.heads(queue, limit=limit, now=now)]
    heads.sort(key=lambda job: (job.rank, job.seq))
    return heads[:limit]


def _claim(store: Store, job: Job, offer: Offer, now: float, boot_id: str) -> Claimed:
    step = claim(job, token=store.next_token(), now=now)
    attempt = Attempt(
        token=step.job.token or 0,
        job=job.seq,
        number=step.job.attempts,
        worker=offer.worker,
        worker_pid=offer.pid,
        worker_start=offer.start,
        boot_id=boot_id,
        queued_at=job.due,
        claimed_at=now,
    )
    saved = store.save(step.job, was=job, entry=_entry(step, job, attempt, now))
    store.open_attempt(attempt)
    environment, stdin, script = (
        store.blob(digest) if digest else None for digest in (job.environment, job.stdin, job.script)
    )
    return Claimed(saved, attempt, environment, stdin, script)


def note_start(store: Store, token: int, *, pid: int, pid_start: int, now: float) -> None:
    """Keep who leads the command's session, for whoever has to end it. Harmless once the attempt is over."""
    attempt = store.attempt(token)
    if attempt is not None and attempt.live:
        store.save_attempt(replace(attempt, pid=pid, pid_start=pid_start, started_at=now))


class Circumstances(NamedTuple):
    """What a decision about the end of an attempt depends on besides the attempt."""

    policy: Policy
    # Wall clock, seconds.
    now: float
    # In [0, 1): spreads retries that ask for jitter.
    luck: float
    boot_id: str


def finish(
    store: Store,
    token: int,
    outcome: Outcome,
    given: Circumstances,
    *,
    offer: Offer | None = None,
    reboot: bool = False,
) -> Ending:
    """Record how an attempt ended, decide what that means for its job, and claim the next one for `offer`.

    Idempotent by token: the same report again is `recorded` and changes nothing. `reboot`: the host went down.
    """
    attempt = store.attempt(token)
    if attempt is None or not attempt.live:
        return Ending(recorded=attempt is not None and attempt.outcome == outcome)
    job = store.by_seq(attempt.job)
    now = given.now
    step = settle(job, outcome, policy=given.policy, now=now, luck=given.luck, reboot=reboot)
    ended = replace(
        attempt,
        outcome=outcome,
        pid=attempt.pid if outcome.pid is None else outcome.pid,
        pid_start=attempt.pid_start if outcome.pid_start is None else outcome.pid_start,
        started_at=attempt.started_at if outcome.started_at is None else outcome.started_at,
    )
    store.save_attempt(ended)
    saved = store.save(step.job, was=job, entry=_entry(step, job, ended, now))
    heads = _heads(store, 1, now) if offer else ()
    claimed = _claim(store, heads[0], offer, now, given.boot_id) if offer and heads else None
    return Ending(recorded=True, job=saved, attempt=ended, claimed=claimed)


def vanished(reason: Reason, now: float, message: str) -> Outcome:
    """Return the outcome of an attempt that nobody could report."""
    return Outcome(reason=reason, ended_at=now, message=message, output_unknown=True)


def never_begun(reason: Reason, now: float, message: str) -> Outcome:
    """Return the outcome of an attempt that was not given to its worker; whose fault that is, `reason` says."""
    outcome = vanished(reason, now, message)
    return replace(outcome, exit_code=_NOT_FOUND) if reason is Reason.NOT_STARTED else outcome


def _entry(step: Step, was: Job, attempt: Attempt, now: float) -> Entry:
    outcome = attempt.outcome
    return replace(
        move(step.job, was, step.event.value, now=now),
        attempt=attempt.number,
        token=attempt.token,
        worker=attempt.worker,
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
    )
