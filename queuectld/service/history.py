"""Entries of the history of everything."""

from __future__ import annotations

from queuectld.domain.job import WAITING, Job, State
from queuectld.store.base import Entry


def move(job: Job, was: Job, event: str, *, now: float, by: str | None = None) -> Entry:
    """Return the entry that tells how `was` became `job`, or what was noted about it."""
    return Entry(
        at=now,
        event=event,
        seq=job.seq,
        job=job.id,
        queue=job.queue,
        owner=job.owner,
        was=was.state,
        state=job.state,
        # While it runs, the reason that it has is that of the attempt before.
        reason=None if job.state is State.PROCESSING else job.reason,
        run_at=job.due if job.state in WAITING else None,
        by=by,
    )
