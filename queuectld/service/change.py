"""Cancel, retry, discard, bring back: over one job or a million, in steps that are durable each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, assert_never

from msgspec.structs import replace

from queuectld.domain.job import WAITING, Job, State
from queuectld.domain.policy import Policy
from queuectld.domain.transitions import cancel, discard, request_cancel, revive, undelete
from queuectld.errors import BadRequestError, QueueCTLError
from queuectld.protocol.messages import Bulk, Cancel, Discard, Retry, Undelete
from queuectld.protocol.replies import Changed, Refused
from queuectld.service.history import move
from queuectld.service.selection import each_named, narrowed, refusal, within
from queuectld.service.sight import Sight
from queuectld.store.base import Query, Reader, Store

# Rows that one transaction changes at most, so that others are served in between.
STEP: Final = 500
# Ids that a reply names at most.
SHOWN: Final = 1000


AnyBulk = Cancel | Retry | Discard | Undelete

# The states that a verb looks at where its selector names no jobs. Running completed jobs again, or cancelled ones,
# takes saying so: nobody means that by "retry all".
_USUAL: Final[dict[type[Bulk], frozenset[State]]] = {
    Cancel: WAITING | {State.PROCESSING},
    Retry: frozenset({State.FAILED, State.DEAD}),
    Discard: frozenset({State.DEAD}),
}
_POSSIBLE: Final = _USUAL | {Retry: frozenset({State.FAILED, State.DEAD, State.CANCELLED, State.COMPLETED})}


class Live(NamedTuple):
    """A running job whose end was stored, and the attempt to be stopped for it."""

    job: str
    token: int
    # Its place in the request, where the request names jobs; else in what was found.
    place: int
    # What the job says about the time between TERM and KILL.
    kill_after: float | None


class Progress(NamedTuple):
    """What a verb has done so far; `done` when nothing is left. With ids, `after` counts them; else it is a seq."""

    jobs: tuple[str, ...] = ()
    total: int = 0
    refused: tuple[Refused, ...] = ()
    live: tuple[Live, ...] = ()
    after: int | None = None
    # Jobs behind this one came after the request.
    last: int = 0
    done: bool = False

    def reply(self, pending: tuple[str, ...] = ()) -> Changed:
        """Return the answer."""
        return Changed(jobs=self.jobs, count=self.total, refused=self.refused, pending=pending)


class Act(NamedTuple):
    """Who changes jobs, under which policy, and when."""

    by: str
    policy: Policy
    now: float
    # In [0, 1) for each call: where in the spread a retry falls.
    luck: Callable[[], float]
    # Whose jobs they may change.
    sight: Sight


def begin(reader: Reader, request: AnyBulk, sight: Sight) -> Progress:
    """Check a request before its first step. Raises `BadRequestError`, `ForbiddenError`."""
    if isinstance(request, Undelete) and not request.select.ids:
        raise BadRequestError("name what to bring back by its ids", path="$.select.ids")
    if request.select.ids:
        return Progress()
    within(request.select, sight)
    newest = reader.find(Query(), limit=1, reverse=True).jobs
    return Progress(last=newest[0].seq) if newest else Progress(done=True)


def step(store: Store, request: AnyBulk, so_far: Progress, act: Act) -> Progress:
    """Change the next jobs, at most `STEP`. With ids, each that is refused is named; a lone one raises its error."""
    return _step_named(store, request, so_far, act) if request.select.ids else _step_page(store, request, so_far, act)


def _step_page(store: Store, request: AnyBulk, so_far: Progress, act: Act) -> Progress:
    states = _states(request)
    if not states:
        return so_far._replace(done=True)
    query = replace(within(request.select, act.sight), states=tuple(sorted(states)))
    page = store.find(query, after=so_far.after, limit=_room(request, so_far))
    for job in page.jobs:
        if job.seq <= so_far.last:
            so_far = _change(store, request, job, so_far, act, so_far.total)
    over = page.after is None or page.after >= so_far.last or _room(request, so_far) == 0
    return so_far._replace(after=page.after, done=over)


def _states(request: AnyBulk) -> frozenset[State]:
    kind = type(request)
    asked = frozenset(State(state) for state in request.select.state)
    return asked & _POSSIBLE[kind] if asked else _USUAL[kind]


def _room(request: AnyBulk, so_far: Progress) -> int:
    if isinstance(request, Retry) and request.limit is not None:
        return min(STEP, request.limit - so_far.total)
    return STEP


def _step_named(store: Store, request: AnyBulk, so_far: Progress, act: Act) -> Progress:
    first = so_far.after or 0
    ids = request.select.ids[first : first + STEP]
    found = each_named(store, ids, act.sight, deleted=isinstance(request, Undelete))
    wanted = narrowed(store, request.select, [job.seq for _, job in found if isinstance(job, Job)])
    for place, job in found:
        if _room(request, so_far) == 0:
            return so_far._replace(done=True)
        try:
            if isinstance(job, QueueCTLError):
                raise job
            if job.seq in wanted:
                so_far = _change(store, request, job, so_far, act, first + place)
        except QueueCTLError as error:
            if len(request.select.ids) == 1:
                raise
            so_far = so_far._replace(refused=(*so_far.refused, refusal(first + place, error)))
    return so_far._replace(after=first + STEP, done=first + STEP >= len(request.select.ids))


def _change(store: Store, request: AnyBulk, job: Job, so_far: Progress, act: Act, place: int) -> Progress:
    changed, event = _decide(request, job, act)
    if changed is not job and not request.dry_run:
        store.save(changed, was=job, entry=move(changed, job, event, now=act.now, by=act.by))
    running = isinstance(request, Cancel) and job.token is not None and not request.dry_run
    live = (Live(job.id, job.token or 0, place, job.spec.kill_after),) if running else ()
    return so_far._replace(
        jobs=so_far.jobs if len(so_far.jobs) >= SHOWN else (*so_far.jobs, job.id),
        total=so_far.total + 1,
        live=so_far.live + live,
    )


def _decide(request: AnyBulk, job: Job, act: Act) -> tuple[Job, str]:
    match request:
        case Cancel():
            return _cancel(request, job, act)
        case Retry():
            wait = (request.delay or 0.0) + (request.spread or 0.0) * act.luck()
            changed, event = revive(job, policy=act.policy, now=act.now, due=act.now + wait)
        case Discard():
            changed, event = discard(job, now=act.now)
        case Undelete():
            changed, event = undelete(job, now=act.now)
        case _:
            assert_never(request)
    return changed, event.value


def _cancel(request: Cancel, job: Job, act: Act) -> tuple[Job, str]:
    if job.state is not State.PROCESSING:
        changed, event = cancel(job, why=request.reason, now=act.now)
        return changed, event.value
    if job.cancel_requested is not None:
        return job, "job.cancel_requested"
    return request_cancel(job, why=request.reason, now=act.now), "job.cancel_requested"


def mark_seen(store: Store, seq: int, *, by: str, now: float) -> None:
    """Note that somebody has taken notice of a final failure. Harmless for jobs that are not dead."""
    job = store.by_seq(seq)
    if job.state is State.DEAD and not job.seen:
        seen = replace(job, seen=True, updated_at=now)
        store.save(seen, was=job, entry=move(seen, job, "job.seen", now=now, by=by))


def without(reply: Changed, refused: Mapping[str, Refused]) -> Changed:
    """Return the reply with these jobs, by id, among the refused ones."""
    if not refused:
        return reply
    return replace(
        reply,
        jobs=tuple(job for job in reply.jobs if job not in refused),
        count=reply.count - len(refused),
        refused=tuple(sorted((*reply.refused, *refused.values()), key=lambda one: one.index)),
    )
