"""Answers about jobs: one, a page of them, how many."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import VISIBLE, Job, State
from queuectld.errors import BadRequestError
from queuectld.protocol.messages import CountJobs, GetJob, ListJobs
from queuectld.protocol.output import LOG_SUFFIX
from queuectld.protocol.replies import AttemptView, Count, JobDetail, Jobs
from queuectld.service import selection
from queuectld.service.environment import unpack_environment
from queuectld.service.logs import tail
from queuectld.service.output_files import output_base
from queuectld.service.sight import Sight
from queuectld.service.views import Lens, attempt_view, job_view, spec_view
from queuectld.store.base import Query, Reader

# Jobs that a count without a shortcut reads at a time.
_PAGE: Final = 1000


def detail(reader: Reader, request: GetJob, lens: Lens, output_dir: Path, output_limit: int) -> JobDetail:
    """Return everything about one job; of its environment the names only, unless the values are asked for."""
    job = selection.job_named(reader, request.job, "$.job", lens.sight)
    return JobDetail(
        job=job_view(job, lens),
        spec=spec_view(job, with_env=request.with_env),
        history=tuple(_attempt(attempt, job, output_dir) for attempt in reader.attempts_of(job.seq)),
        env=_environment(reader, job, with_values=request.with_env),
        output_tail=tail(reader, job, request.tail, output_dir, output_limit),
    )


def _attempt(attempt: Attempt, job: Job, output_dir: Path) -> AttemptView:
    file = Path(f"{output_base(output_dir, job.seq, attempt.number)}{LOG_SUFFIX}")
    return replace(attempt_view(attempt), output_file=str(file) if file.exists() else None)


def _environment(reader: Reader, job: Job, *, with_values: bool) -> dict[str, str | None]:
    if job.environment is None:
        return {}
    env = unpack_environment(reader.blob(job.environment))
    return dict(env) if with_values else dict.fromkeys(env)


def listing(reader: Reader, request: ListJobs, lens: Lens) -> Jobs:
    """Return a page of the jobs that match."""
    page = reader.find(
        selection.query(reader, request.select, lens.sight),
        after=_cursor(request.after),
        limit=request.limit,
        reverse=request.reverse,
    )
    return Jobs(
        jobs=tuple(job_view(job, lens) for job in page.jobs),
        next=None if page.after is None else str(page.after),
    )


def _cursor(text: str | None) -> int | None:
    if text is None:
        return None
    # As `next` gave it; the store's numbers are far below 2**63.
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequestError("`after` takes what `next` of the page before said", path="$.after")
    return int(text)


class Counting(NamedTuple):
    """How far a count has come: what was found, and where to look on; `query` is None when it is done."""

    query: Query | None
    after: int | None
    states: dict[str, int]

    def reply(self) -> Count:
        """Return the answer."""
        return Count(total=sum(self.states.values()), states=self.states)


def begin_count(reader: Reader, request: CountJobs, sight: Sight) -> Counting:
    """Begin to count what matches; done at once, from the kept figures, where only queues and states matter."""
    select, query = request.select, selection.query(reader, request.select, sight)
    if query == Query(queues=select.queue, states=query.states):
        return Counting(None, None, _kept(reader, query).states)
    return Counting(query, None, {})


def count_on(reader: Reader, so_far: Counting) -> Counting:
    """Count the next page."""
    if so_far.query is None:
        return so_far
    page = reader.find(so_far.query, after=so_far.after, limit=_PAGE)
    states = dict(so_far.states)
    for job in page.jobs:
        states[job.state.value] = states.get(job.state.value, 0) + 1
    return Counting(None if page.after is None else so_far.query, page.after, states)


def _kept(reader: Reader, query: Query) -> Count:
    wanted = query.states or VISIBLE
    states: dict[str, int] = {}
    for queue, figures in reader.counts().items():
        if not query.queues or queue in query.queues:
            for state, number in figures.items():
                if state in wanted and state is not State.DELETED:
                    states[state.value] = states.get(state.value, 0) + number
    return Count(total=sum(states.values()), states=states)
