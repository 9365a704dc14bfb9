"""Which jobs a query means: said once in Python; the SQL of `queuectld.store.listing` only narrows it down."""

from __future__ import annotations

from fnmatch import fnmatchcase

from queuectld.domain.job import Job, State
from queuectld.store.base import Query, command_text


def matches(query: Query, job: Job) -> bool:
    """Whether all conditions of `query` hold for `job`."""
    if job.state not in query.states if query.states else job.state is State.DELETED:
        return False
    return _stands(query, job) and _in_time(query, job) and _asked_for(query, job)


def _stands(query: Query, job: Job) -> bool:
    return (
        (query.seqs is None or job.seq in query.seqs)
        and (not query.queues or job.queue in query.queues)
        and (query.owner is None or job.owner == query.owner)
        and (query.exit_code is None or job.exit_code == query.exit_code)
        and (query.seen is None or job.seen == query.seen)
    )


def _in_time(query: Query, job: Job) -> bool:
    return (
        (query.since is None or job.created_at >= query.since)
        and (query.until is None or job.created_at < query.until)
        and (query.ended_since is None or (job.ended_at is not None and job.ended_at >= query.ended_since))
    )


def _asked_for(query: Query, job: Job) -> bool:
    return all(job.spec.tags.get(key) == value for key, value in query.tags) and (
        query.command is None or fnmatchcase(command_text(job), query.command)
    )
