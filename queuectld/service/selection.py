"""From what a client says about jobs to what the store is asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from queuectld.domain.job import Job, State
from queuectld.errors import AmbiguousIdError, BadRequestError, ForbiddenError, NoSuchJobError, QueueCTLError
from queuectld.protocol.messages import Selector
from queuectld.protocol.replies import Refused
from queuectld.service.sight import Others, Sight, telling
from queuectld.store.base import Query, Reader

# Pages that are looked through for somebody's newest job: some 20,000 jobs, and 50 ms.
_LAST_PAGES: Final = 10


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


def query(reader: Reader, select: Selector, sight: Sight) -> Query:
    """Return the query of a selector, its ids resolved, for the jobs that this one may see.

    Raises `NoSuchJobError`, `AmbiguousIdError`, `ForbiddenError` with the path.
    """
    if not select.ids:
        return within(select, sight)
    jobs = (job_named(reader, text, f"$.select.ids[{position}]", sight) for position, text in enumerate(select.ids))
    return within(select, sight, seqs=[job.seq for job in jobs])


def within(select: Selector, sight: Sight, *, seqs: Sequence[int] | None = None) -> Query:
    """Return the query of a selector as `conditions` does, but for jobs only of which it may tell something.

    Raises `BadRequestError`, and `ForbiddenError` where that can be none.
    """
    found = conditions(select, seqs=seqs)
    condition = telling(select)
    if sight.all or (sight.others is Others.LISTED and condition is None):
        return found
    if sight.user is None:
        raise ForbiddenError(
            f"you may choose by id, queue, state, owner and times; `{condition}` would tell more than a listing does",
            path=f"$.select.{condition}",
        )
    if select.owner not in {None, sight.user}:
        if sight.others is Others.REFUSED:
            raise ForbiddenError(f"jobs of {select.owner} are not yours", path="$.select.owner")
        return replace(found, seqs=())
    return replace(found, owner=sight.user)


def job_named(reader: Reader, text: str, path: str, sight: Sight) -> Job:
    """Return the job that a request names at `path`.

    Raises `NoSuchJobError`, `AmbiguousIdError`, or `ForbiddenError` if it is not to be had, with that path.
    """
    try:
        job = _resolve(reader, text, sight)
    except QueueCTLError as error:
        raise type(error)(error.message, path=path) from None
    sight.check(job, path)
    return job


def _resolve(reader: Reader, text: str, sight: Sight) -> Job:
    if sight.user is None:
        return reader.resolve(text)
    if text == "@last":
        return _last_of(reader, sight.user)
    try:
        return reader.resolve(text)
    except AmbiguousIdError as error:
        # Ids that others have chosen do not get into the way of one's own.
        with suppress(NoSuchJobError):
            return reader.resolve(text, owner=sight.user)
        raise error from None


def _last_of(reader: Reader, user: str) -> Job:
    after: int | None = None
    for _ in range(_LAST_PAGES):
        page = reader.find(Query(owner=user), after=after, limit=1, reverse=True)
        if page.jobs:
            return page.jobs[0]
        after = page.after
        if after is None:
            raise NoSuchJobError("there is no job of yours yet")
    raise NoSuchJobError("your last job is too far back among those of others; name it by its id")


def each_named(
    reader: Reader, ids: Sequence[str], sight: Sight, *, deleted: bool = False
) -> list[tuple[int, Job | QueueCTLError]]:
    """Look up each id by itself, so that a wrong one harms no other; `deleted` takes whole ids of hidden jobs too.

    Returns (position, job or error); a job that several ids name is there once.
    """
    found: list[tuple[int, Job | QueueCTLError]] = []
    seen: set[int] = set()
    for position, text in enumerate(ids):
        try:
            job = _hidden(reader, text, sight) if deleted else _resolve(reader, text, sight)
            sight.check(job, f"$.select.ids[{position}]")
        except QueueCTLError as error:
            found.append((position, error))
            continue
        if job.seq not in seen:
            seen.add(job.seq)
            found.append((position, job))
    return found


def _hidden(reader: Reader, text: str, sight: Sight) -> Job:
    """Return the job with this id, be it a discarded one: of several one's own first."""
    if sight.user is not None:
        with suppress(NoSuchJobError):
            return reader.get(text, owner=sight.user)
    job = reader.get(text)
    if job.state is State.DELETED and not sight.whole(job.owner):
        # No listing tells that it was there.
        raise NoSuchJobError(f"there is no job '{text}'")
    return job


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
