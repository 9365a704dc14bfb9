"""From what a client says about jobs to what the store is asked."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from queuectld.domain.job import Job, State
from queuectld.errors import BadRequestError, QueueCTLError
from queuectld.protocol.messages import Selector
from queuectld.protocol.replies import Refused
from queuectld.store.base import Query, Reader


def conditions(select: Selector, *, seqs: Sequence[int] | None = None) -> Query:
    """Return the query of a selector whose ids have been resolved to `seqs`. Raises `BadRequestError`."""
    if select.exit_code is not None and not 0 <= select.exit_code <= 255:
        raise BadRequestError("`exit_code` lies between 0 and 255", path="$.select.exit_code")
    return Query(
        seqs=None if seqs is None else tuple(dict.fromkeys(seqs)),
        queues=select.queue,
        states=tuple(State(state) for state in select.state),
        tags=tuple(_tag(text, position) for position, text in enumerate(select.tags)),
        owner=select.owner,
        since=select.since,
        until=select.until,
        ended_since=select.ended_since,
        command=select.command,
        exit_code=select.exit_code,
        seen=select.seen,
    )


def _tag(text: str, position: int) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise BadRequestError(f"{text!r} is not a tag; write key=value", path=f"$.select.tags[{position}]")
    return key, value


def query(reader: Reader, select: Selector) -> Query:
    """Return the query of a selector, its ids resolved. Raises `NoSuchJobError`, `AmbiguousIdError` with the path."""
    if not select.ids:
        return conditions(select)
    jobs = (job_named(reader, text, f"$.select.ids[{position}]") for position, text in enumerate(select.ids))
    return conditions(select, seqs=[job.seq for job in jobs])


def job_named(reader: Reader, text: str, path: str) -> Job:
    """Return the job that a request names at `path`. Raises `NoSuchJobError` or `AmbiguousIdError` with that path."""
    try:
        return reader.resolve(text)
    except QueueCTLError as error:
        raise type(error)(error.message, path=path) from None


def each_named(reader: Reader, ids: Sequence[str], *, deleted: bool = False) -> list[tuple[int, Job | QueueCTLError]]:
    """Look up each id by itself, so that a wrong one harms no other; `deleted` takes whole ids of hidden jobs too.

    Returns (position, job or error); a job that several ids name is there once.
    """
    found: list[tuple[int, Job | QueueCTLError]] = []
    seen: set[int] = set()
    for position, text in enumerate(ids):
        try:
            job = reader.get(text) if deleted else reader.resolve(text)
        except QueueCTLError as error:
            found.append((position, error))
            continue
        if job.seq not in seen:
            seen.add(job.seq)
            found.append((position, job))
    return found


def narrowed(reader: Reader, select: Selector, seqs: Sequence[int]) -> frozenset[int]:
    """Return those of the given jobs that satisfy the other conditions of the selector too."""
    if not seqs or replace(select, ids=()) == Selector():
        return frozenset(seqs)
    matching: set[int] = set()
    after: int | None = None
    while True:
        page = reader.find(conditions(select, seqs=seqs), after=after, limit=len(seqs))
        matching.update(job.seq for job in page.jobs)
        if page.after is None:
            return frozenset(matching)
        after = page.after


def refusal(position: int, error: QueueCTLError) -> Refused:
    """Return what a reply says of the one of many that an error hit."""
    return Refused(index=position, code=error.code, message=error.message, path=error.path)
