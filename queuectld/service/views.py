"""What is stored, as clients see it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from queuectld.domain import policy as retries
from queuectld.domain.attempt import Attempt
from queuectld.domain.job import WAITING, Job, State
from queuectld.domain.policy import Policy
from queuectld.domain.spec import encode_spec
from queuectld.protocol.replies import AttemptView, EventView, Finished, JobView
from queuectld.service.sight import Sight
from queuectld.store.base import Entry

# What `waiting` says of a job that does not run: its time has not come, a retry is due later, no worker may run at
# all, others are before it, its end has been asked for.
WAITING_WORDS: Final = ("not_due", "retry_wait", "no_workers", "queued", "cancelling")


class Lens(NamedTuple):
    """What a view needs besides the job: what is configured, how many workers there may be, the time, and for whom."""

    policy: Policy
    limit: int
    now: float
    sight: Sight


def iso(seconds: float) -> str:
    """Return an instant in ISO 8601, UTC: ``2026-12-01T09:00:00Z``, with milliseconds where there are some."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond // 1000:03d}Z" if moment.microsecond >= 1000 else f"{text}Z"


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)


def _span(start: float | None, end: float | None) -> float | None:
    # The wall clock may have been set back in between; nothing lasts less than no time.
    return None if start is None or end is None else round(max(0.0, end - start), 6)


def waiting(job: Job, lens: Lens) -> str | None:
    """Say in one of `WAITING_WORDS` why a job does not run now; None if it does or is over."""
    if job.state is State.PROCESSING:
        return None if job.cancel_requested is None else "cancelling"
    if job.state not in WAITING:
        return None
    if job.due > lens.now:
        return "not_due" if job.state is State.PENDING else "retry_wait"
    return "queued" if lens.limit else "no_workers"


def job_view(job: Job, lens: Lens) -> JobView:
    """Return a job as it is listed; never with values of its environment. Of others' jobs it may tell little."""
    outline = _outline(job, lens)
    if not lens.sight.whole(job.owner):
        return outline
    return replace(
        outline,
        command=job.spec.command,
        argv=job.spec.argv,
        reason=None if job.reason is None else job.reason.value,
        attempts=job.attempts,
        max_retries=retries.max_retries(job, lens.policy),
        retries_left=retries.retries_left(job, lens.policy),
        priority=job.priority,
        tags=job.spec.tags,
        exit_code=job.exit_code,
        signal=job.signal,
        error=job.error,
        waiting=waiting(job, lens),
        hidden=False,
    )


def _outline(job: Job, lens: Lens) -> JobView:
    """Return of a job who has it, where it waits, its state and its times."""
    return JobView(
        id=job.id,
        command=None,
        argv=None,
        state=job.state.value,
        reason=None,
        attempts=None,
        max_retries=None,
        retries_left=None,
        queue=job.queue,
        priority=None,
        owner=job.owner,
        tags=None,
        created_at=iso(job.created_at),
        updated_at=iso(job.updated_at),
        run_at=iso(job.due),
        started_at=_iso(job.started_at),
        ended_at=_iso(job.ended_at),
        duration=_span(job.started_at, job.ended_at if job.token is None else lens.now),
        exit_code=None,
        signal=None,
        error=None,
        waiting=None,
        hidden=True,
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """Return one attempt as it is shown."""
    end = attempt.outcome
    started = attempt.started_at if end is None or end.started_at is None else end.started_at
    return AttemptView(
        number=attempt.number,
        token=attempt.token,
        worker=attempt.worker,
        pid=attempt.pid if end is None or end.pid is None else end.pid,
        queued_at=iso(attempt.queued_at),
        started_at=_iso(started),
        ended_at=None if end is None else iso(end.ended_at),
        duration=None if end is None else _span(started, end.ended_at),
        exit_code=None if end is None else end.exit_code,
        signal=None if end is None else end.signal,
        reason=None if end is None else end.reason.value,
        cpu_seconds=None if end is None else end.cpu_seconds,
        peak_memory=None if end is None else end.peak_memory,
        output_bytes=0 if end is None else end.output_bytes,
        output_missing=0 if end is None else end.output_missing,
        output_removed=attempt.output_removed,
        leftovers=() if end is None else end.leftovers,
        message=None if end is None else end.message,
    )


def event_view(entry: Entry, sight: Sight, *, gap: bool = False) -> EventView:
    """Return an entry of the history as it is told; of others' jobs as little as a listing tells."""
    told = EventView(
        number=entry.number,
        at=iso(entry.at),
        event=entry.event,
        job=entry.job,
        queue=entry.queue,
        owner=entry.owner,
        was=None if entry.was is None else entry.was.value,
        state=None if entry.state is None else entry.state.value,
        run_at=_iso(entry.run_at),
        hidden=entry.seq is not None and not sight.whole(entry.owner),
        gap=gap,
    )
    if told.hidden:
        return told
    return replace(
        told,
        attempt=entry.attempt,
        worker=entry.worker,
        exit_code=entry.exit_code,
        signal=entry.signal,
        reason=None if entry.reason is None else entry.reason.value,
        by=entry.by,
    )


def finished(job: Job) -> Finished:
    """Return how a job stands, for whoever waited for it."""
    return Finished(
        id=job.id,
        state=job.state.value,
        reason=None if job.reason is None else job.reason.value,
        exit_code=job.exit_code,
        signal=job.signal,
        attempts=job.attempts,
        error=job.error,
        ran=job.attempts > 0,
    )


def spec_view(job: Job, *, with_env: bool) -> dict[str, Any]:
    """Return the spec as it was asked for; of its environment only names unless values were asked for."""
    spec: dict[str, Any] = msgspec.json.decode(encode_spec(job.spec))
    if not with_env and "env" in spec:
        spec["env"] = dict.fromkeys(spec["env"])
    return spec
