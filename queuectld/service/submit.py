"""Stores new jobs: reads each by itself, completes it with what its submitter brought along, and adds them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from queuectld.domain.job import Job, State
from queuectld.domain.policy import Policy, rank
from queuectld.domain.spec import INPUT_LIMIT, Blob, JobSpec, decode_spec, instant
from queuectld.errors import BadRequestError, DuplicateIdError, QueueCTLError
from queuectld.keys import Config
from queuectld.protocol.messages import Enqueue, Submission
from queuectld.protocol.replies import Added, Enqueued, Refused
from queuectld.service.environment import captured, pack_environment
from queuectld.service.owner import Submitter
from queuectld.service.resent import Key, digest
from queuectld.service.selection import refusal
from queuectld.service.views import iso
from queuectld.store.admission import no_such_queue
from queuectld.store.base import Store

# More waiting jobs than this in front of a new one are worth a word.
MANY_AHEAD: Final = 1000
# So many bad jobs of a request are told what may have been meant; to find that out takes a third of a millisecond.
HINTS: Final = 100
# How much is stored in one transaction, in jobs, for some 30 ms; and how many bytes of a job are as much as one more.
PART: Final = 2000
_BYTES: Final = 512
# The count behind that word may be so old, in seconds: counting for each of 20,000 requests a second would be felt.
_COUNT_AGE: Final = 1.0


# Fields of a spec that are stored beside it.
_ELSEWHERE: Final = ("id", "as_", "stdin", "script")

# Queues beyond which only administrators' jobs make new ones: each is counted apart, shown, and never forgotten.
MOST_QUEUES: Final = 1000

# What somebody else's job is given along.
_NOWHERE: Final = Submission()


class Undone(QueueCTLError):  # noqa: N818  (it carries a good answer; it is raised so that the transaction ends)
    """Nothing of the request was stored; the reply says what would have become of it."""

    def __init__(self, reply: Enqueued) -> None:
        super().__init__()
        self.reply = reply


class Ahead:
    """How many jobs wait in each queue, as far as it matters for a warning."""

    def __init__(self) -> None:
        self._counted_at = float("-inf")
        self._waiting: dict[str, int] = {}

    def of(self, store: Store, queue: str, now: float) -> int:
        """Return the number of waiting jobs, at most a second old."""
        if not 0 <= now - self._counted_at < _COUNT_AGE:
            self._waiting = {name: states.get(State.PENDING, 0) for name, states in store.counts().items()}
            self._counted_at = now
        return self._waiting.get(queue, 0)


class Terms(NamedTuple):
    """Under which a job is taken: who asks, what is configured, how many workers there may be, and the time."""

    submitter: Submitter
    config: Config
    policy: Policy
    limit: int
    ahead: Ahead
    now: float


def read_specs(jobs: Sequence[msgspec.Raw], *, wrong: int = 0) -> list[JobSpec | QueueCTLError]:
    """Read jobs, each by itself: what it says, or what is wrong with it, with paths from its root.

    `wrong` is how many of the same request were before.
    """
    read: list[JobSpec | QueueCTLError] = []
    for raw in jobs:
        try:
            read.append(decode_spec(raw, hints=wrong < HINTS))
        except QueueCTLError as error:
            wrong += 1
            # What led to each of many would be a burden on the memory, and on the collector of garbage.
            error.__context__ = error.__cause__ = None
            read.append(error.with_traceback(None))
    return read


@dataclass(frozen=True)
class Order:
    """What a request wants stored: its jobs behind those staged for it, and what was staged for stdin and script."""

    request: Enqueue
    jobs: Sequence[msgspec.Raw]
    inputs: Mapping[str, bytes]
    terms: Terms

    @cached_property
    def content(self) -> str:
        """All that it asks for, as a digest."""
        return digest(self.jobs, self.inputs)

    @property
    def whole(self) -> bool:
        """Whether all of it is stored or nothing."""
        return self.request.atomic or self.request.dry_run

    def part(self, start: int) -> Part:
        """Return which jobs are stored together, from this one on: others are served between two parts."""
        weight = 0
        for place in range(start, len(self.jobs)):
            more = _weight(self.jobs[place])
            if place > start and weight + more > PART and not self.whole:
                return Part(start, place, weight)
            weight += more
        return Part(start, len(self.jobs), weight)


class Part(NamedTuple):
    """Jobs of an order that are stored in one transaction, from `start` until before `stop`, and how much that is."""

    start: int
    stop: int
    weight: int


def _weight(job: msgspec.Raw) -> int:
    return 1 + len(memoryview(job)) // _BYTES


def enqueue(
    store: Store, order: Order, part: Part, specs: Sequence[JobSpec | QueueCTLError] | None = None
) -> tuple[Enqueued, int]:
    """Store a part of an order; return what became of it, and behind which job that ends.

    A job that is alone in its order and refused raises its error, a key that was used for other jobs
    `DuplicateKeyError`. Raises `Undone` where nothing may stay: a dry run, or `atomic` with one refused; the
    transaction then has to be rolled back. `specs` are the jobs as `read_specs` has them, where that was done before.
    """
    request, terms = order.request, order.terms
    if request.request is None or request.dry_run:
        return _store(store, order, part, specs), part.stop
    key = Key(terms.submitter.user, request.request, part.start, order.content)
    if (earlier := key.earlier(store)) is not None:
        return earlier.reply, earlier.stop or len(order.jobs)
    reply = _store(store, order, part, specs)
    key.keep(store, reply, part.stop, terms.now)
    return reply, part.stop


def enqueue_all(store: Store, order: Order, whole: Part) -> Enqueued:
    """Store an order that is one part; an earlier copy may have been stored in smaller ones, and lack the rest."""
    reply, stop = enqueue(store, order, whole)
    replies = [reply]
    while stop < whole.stop:
        reply, stop = enqueue(store, order, whole._replace(start=stop))
        replies.append(reply)
    return joined(replies)


def _store(store: Store, order: Order, part: Part, specs: Sequence[JobSpec | QueueCTLError] | None) -> Enqueued:
    request = order.request
    read = read_specs(order.jobs[part.start : part.stop]) if specs is None else specs
    reply = _add(store, order, part.start, read)
    if request.dry_run or (request.atomic and reply.refused):
        none = replace(reply, jobs=(), warnings=())
        raise Undone(reply if request.dry_run and not (request.atomic and reply.refused) else none)
    return reply


def _add(store: Store, order: Order, start: int, specs: Sequence[JobSpec | QueueCTLError]) -> Enqueued:
    request, terms, lone = order.request, order.terms, len(order.jobs) == 1
    intake = Intake(store, request.submission, order.inputs, terms)
    drafts: list[Job] = []
    places: list[int] = []
    refused: list[Refused] = []
    for index, spec in enumerate(specs, start):
        try:
            drafts.append(intake.draft(spec, hints=len(refused) < HINTS))
            places.append(index)
        except QueueCTLError as error:
            refused.append(refusal(index, _placed(error, index)))
            if lone:
                raise _placed(error, index) from None
    # What waits already is counted before these join it.
    warnings = _warnings(store, drafts, terms) if start == 0 else ()
    added: list[Added] = []
    named = [draft.id for draft in drafts]
    for index, name, result in zip(places, named, store.add(drafts, by=terms.submitter.user), strict=True):
        if isinstance(result, Job):
            added.append(_added(result, name, request, terms))
            continue
        refusing = _refused_by_store(result, index)
        if lone:
            raise refusing
        refused.append(refusal(index, refusing))
    refused.sort(key=lambda one: one.index)
    return Enqueued(jobs=tuple(added), refused=tuple(refused), warnings=warnings)


def joined(parts: Sequence[Enqueued]) -> Enqueued:
    """Return what became of all parts as one answer."""
    if len(parts) == 1:
        return parts[0]
    return Enqueued(
        jobs=tuple(chain.from_iterable(part.jobs for part in parts)),
        refused=tuple(chain.from_iterable(part.refused for part in parts)),
        warnings=parts[0].warnings,
    )


def refused_from(start: int, stop: int, error: QueueCTLError) -> Enqueued:
    """Return what is said of jobs that were not stored because of something that is not their fault."""
    return Enqueued(jobs=(), refused=tuple(refusal(index, error) for index in range(start, stop)), warnings=())


def _added(job: Job, name: str, request: Enqueue, terms: Terms) -> Added:
    # The id that a dry run would generate may be another job's in the end.
    return Added(
        id=name if request.dry_run else job.id,
        state=job.state.value,
        created=not request.dry_run,
        run_at=iso(job.due) if job.due > terms.now else None,
    )


def _placed(error: QueueCTLError, index: int) -> QueueCTLError:
    """Return the error with a path that begins at the request instead of at its job."""
    path = (error.path or "$").removeprefix("$")
    return type(error)(error.message, path=f"$.jobs[{index}]{path}")


def _refused_by_store(error: Exception, index: int) -> QueueCTLError:
    match error:
        case DuplicateIdError():
            return _placed(DuplicateIdError(error.message, path="$.id"), index)
        case QueueCTLError():
            return _placed(error, index)
        case _:
            raise error


def _warnings(store: Store, drafts: Sequence[Job], terms: Terms) -> tuple[str, ...]:
    if not drafts:
        return ()
    warnings = [] if terms.limit else ["no workers: nothing runs until `queuectl worker start`"]
    queues = dict.fromkeys(draft.queue for draft in drafts)
    ahead = {queue: terms.ahead.of(store, queue, terms.now) for queue in queues}
    many = (f"about {n:,} jobs wait in queue '{queue}' already" for queue, n in ahead.items() if n > MANY_AHEAD)
    return (*warnings, *many)


class Intake:
    """Makes drafts of jobs, and interns what they share once."""

    def __init__(self, store: Store, submission: Submission, inputs: Mapping[str, bytes], terms: Terms) -> None:
        self._store = store
        self._submission = submission
        self._inputs = inputs
        self._terms = terms
        self._environment: str | None = None
        self._owners: dict[str | None, str] = {}
        self._queues: set[str] = {"default"}
        self._known: Sequence[str] = ()
        self._made = 0

    def draft(self, spec: JobSpec | QueueCTLError, *, hints: bool) -> Job:
        """Return a job as it will be stored. Raises what is wrong with it, with paths from its root."""
        if isinstance(spec, QueueCTLError):
            raise spec
        self._check(spec, hints=hints)
        owner = self._owner(spec.as_)
        own = owner == self._terms.submitter.user
        now = self._terms.now
        due = self._due(spec, now)
        return Job(
            seq=0,
            id=spec.id or "",
            environment=self._captured(spec, own=own),
            stdin=self._intern("stdin", spec.stdin),
            script=self._intern("script", spec.script),
            spec=self._stored(spec, own=own),
            owner=owner,
            created_at=now,
            updated_at=now,
            due=due,
            rank=rank(due, spec.priority, self._terms.policy.priority_step),
        )

    def _owner(self, named: str | None) -> str:
        # Who there is may be in a directory far away.
        if named not in self._owners:
            self._owners[named] = self._terms.submitter.owner(named)
        return self._owners[named]

    def _check(self, spec: JobSpec, *, hints: bool) -> None:
        if spec.priority > self._terms.config.max_priority:
            raise BadRequestError(
                f"`priority` may be at most {self._terms.config.max_priority} here", path="$.priority"
            )
        if spec.queue not in self._queues:
            self._admit_queue(spec.queue, hints=hints)

    def _admit_queue(self, name: str, *, hints: bool) -> None:
        self._known = self._known or tuple(self._store.queues())
        if name not in self._known:
            if self._terms.config.queues != "open":
                raise no_such_queue(name, self._known, hints=hints)
            if self._made + len(self._known) >= MOST_QUEUES and not self._terms.submitter.admin:
                raise BadRequestError(
                    f"there are {MOST_QUEUES:,} queues, and only jobs of administrators make more: use one of them, "
                    "or have an administrator enqueue something there",
                    path="$.queue",
                )
            self._store.declare_queue(name)
            self._made += 1
        self._queues.add(name)

    def _due(self, spec: JobSpec, now: float) -> float:
        if spec.run_at is not None:
            return instant(spec.run_at)
        return now if spec.delay is None else now + spec.delay

    def _captured(self, spec: JobSpec, *, own: bool) -> str | None:
        if self._submission.env is None or spec.env_mode == "clean":
            return None
        # What is in one's own environment is for nobody else.
        if spec.env_mode is None and not (own and self._terms.config.capture_env):
            return None
        if self._environment is None:
            self._environment = self._store.intern(pack_environment(captured(self._submission.env)))
        return self._environment

    def _intern(self, field: str, given: str | Blob | None) -> str | None:
        return None if given is None else self._store.intern(self._bytes(field, given))

    def _bytes(self, field: str, given: str | Blob) -> bytes:
        data = given.encode() if isinstance(given, str) else given.b64
        if data is None and isinstance(given, Blob):
            data = self._inputs.get(given.staged or "")
            if data is None:
                raise BadRequestError(f"nothing is staged under {given.staged!r}", path=f"$.{field}.staged")
        if data is None or len(data) > INPUT_LIMIT:
            raise BadRequestError(f"`{field}` is larger than {INPUT_LIMIT >> 20} MiB", path=f"$.{field}")
        return data

    def _stored(self, spec: JobSpec, *, own: bool) -> JobSpec:
        # What is stored elsewhere goes; what the job does not say itself, its submission says.
        changes: dict[str, Any] = {name: None for name in _ELSEWHERE if getattr(spec, name) is not None}
        # Where one is oneself, another may not be allowed to be.
        source = self._submission if own else _NOWHERE
        if spec.cwd is None and source.cwd is not None:
            changes["cwd"] = source.cwd
        if spec.umask is None and source.umask is not None:
            changes["umask"] = source.umask
        return replace(spec, **changes) if changes else spec
