"""Verbs over many jobs: step by step, and for a cancel until the last process is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from queuectld.domain.job import State
from queuectld.domain.spec import JobSpec
from queuectld.errors import QueueCTLError, WrongStateError
from queuectld.protocol.messages import Cancel, CountJobs
from queuectld.protocol.replies import Changed, Count, Enqueued
from queuectld.server.desk import Desk
from queuectld.service import change
from queuectld.service.change import Act, AnyBulk, Live, Progress
from queuectld.service.jobs import begin_count, count_on
from queuectld.service.selection import refusal
from queuectld.service.sight import Sight
from queuectld.service.submit import Order, Part, enqueue, joined, read_specs, refused_from
from queuectld.store.base import Entry, Reader
from queuectld.store.turns import Turn

# Seconds behind the KILL after which a cancel answers, and says what holds it up.
PATIENCE: Final = 5.0
# Jobs that are read at a time: some 10 ms.
_SLICE: Final = 1000


class By(NamedTuple):
    """Who changes jobs, and whose jobs that may be."""

    user: str
    sight: Sight


async def enqueue_many(desk: Desk, order: Order) -> Enqueued:
    """Store many jobs part by part, with others served in between; each part is read beside the store before.

    Where something other than a job is wrong behind the first part, the jobs that were not stored are told so.
    """
    stored: list[Enqueued] = []
    start, wrong, lane = 0, 0, object()
    while start < len(order.jobs):
        part = order.part(start)
        specs = await _read_part(desk, order, part, wrong)
        work = partial(enqueue, order=order, part=part, specs=specs)
        try:
            reply, start = await desk.ledger.write(work, sheds=True, turn=Turn(lane, part.weight))
        except QueueCTLError as error:
            if not stored:
                raise
            reply, start = refused_from(start, len(order.jobs), error), len(order.jobs)
        stored.append(reply)
        wrong += len(reply.refused)
    return joined(stored)


async def _read_part(desk: Desk, order: Order, part: Part, wrong: int) -> Sequence[JobSpec | QueueCTLError]:
    specs: list[JobSpec | QueueCTLError] = []
    for start in range(part.start, part.stop, _SLICE):
        jobs = order.jobs[start : min(start + _SLICE, part.stop)]
        so_far = wrong + sum(isinstance(spec, QueueCTLError) for spec in specs)
        specs += await desk.ledger.read(partial(_read, jobs=jobs, wrong=so_far))
    return specs


def _read(_store: Reader, *, jobs: Sequence[msgspec.Raw], wrong: int) -> list[JobSpec | QueueCTLError]:
    return read_specs(jobs, wrong=wrong)


async def change_many(desk: Desk, request: AnyBulk, by: By) -> Changed:
    """Carry out a verb; each step is durable, and others are served in between."""
    return (await _steps(desk, request, by)).reply()


async def cancel_many(desk: Desk, request: Cancel, by: By, settled: Callable[[], None]) -> Changed:
    """Cancel jobs, and wait until those that ran are gone unless `no_wait` says not to.

    Calls `settled` when all wishes are stored: what comes behind need not wait for commands to end.
    """
    ends = Ends(desk)
    unsubscribe = desk.hub.subscribe(ends.committed)
    try:
        progress = await _steps(desk, request, by)
        settled()
        if request.no_wait or request.dry_run:
            return progress.reply()
        await ends.of(progress.live, _patience(progress.live, request, desk))
    finally:
        unsubscribe()
    return _cancelled(progress, ends, desk, alone=len(request.select.ids) == 1)


async def _steps(desk: Desk, request: AnyBulk, by: By) -> Progress:
    progress = await desk.ledger.read(partial(change.begin, request=request, sight=by.sight))
    turn = Turn(object(), min(change.STEP, len(request.select.ids) or change.STEP))
    while not progress.done:
        act = Act(by.user, desk.policy, desk.clock(), desk.luck, by.sight)
        known = len(progress.live)
        progress = await desk.ledger.write(partial(change.step, request=request, so_far=progress, act=act), turn=turn)
        for live in progress.live[known:]:
            # Stored before: should the daemon die here, the next one sends this.
            desk.control.cancel(live.token, kill_after=request.kill_after if isinstance(request, Cancel) else None)
    return progress


async def count_many(desk: Desk, request: CountJobs, sight: Sight) -> Count:
    """Count jobs; a million take seconds, and no look at the store lasts as long."""
    so_far = await desk.ledger.read(partial(begin_count, request=request, sight=sight))
    while so_far.query is not None:
        so_far = await desk.ledger.read(partial(count_on, so_far=so_far))
    return so_far.reply()


def _patience(lives: Sequence[Live], request: Cancel, desk: Desk) -> float:
    spans = (desk.config.kill_after if live.kill_after is None else live.kill_after for live in lives)
    return PATIENCE + (max(spans, default=0.0) if request.kill_after is None else request.kill_after)


class Ends:
    """The ends of attempts that were committed since it listens, by token: in which state the job is since."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._news = asyncio.Event()
        self.states: dict[int, State] = {}

    def committed(self, entries: Sequence[Entry]) -> None:
        """Listen to the hub."""
        for entry in entries:
            if entry.token is not None and entry.state is not None and entry.state is not State.PROCESSING:
                self.states[entry.token] = entry.state
                self._news.set()

    async def of(self, lives: Sequence[Live], patience: float) -> None:
        """Wait for the ends of these attempts, at most so many seconds."""
        missing = {live.token for live in lives}
        try:
            async with asyncio.timeout(patience):
                while missing := missing - self.states.keys():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return


def _cancelled(progress: Progress, ends: Ends, desk: Desk, *, alone: bool) -> Changed:
    """Put together the answer. A command that ended well before its end came stays completed, and was not cancelled."""
    escaped = [live for live in progress.live if ends.states.get(live.token) is State.COMPLETED]
    errors = {live.job: WrongStateError(f"job '{live.job}' completed before it could be cancelled") for live in escaped}
    if alone and escaped:
        raise errors[escaped[0].job]
    held_up = [live for live in progress.live if live.token not in ends.states]
    reply = progress.reply(
        pending=tuple(
            f"{live.job}: {desk.control.held_up_by(live.token) or 'its end is not stored yet'}" for live in held_up
        )
    )
    return change.without(reply, {live.job: refusal(live.place, errors[live.job]) for live in escaped})
