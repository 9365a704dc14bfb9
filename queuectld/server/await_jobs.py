"""Waits until jobs come to rest. Looks at each once; from then on it is told what is committed."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from queuectld.domain.job import FINAL, Job, State
from queuectld.protocol.messages import Wait
from queuectld.protocol.replies import Finished, Waited
from queuectld.server.bulk import By
from queuectld.server.desk import Desk
from queuectld.server.lending import lending
from queuectld.server.outlet import Outlet
from queuectld.server.seqs import Seqs
from queuectld.service import selection
from queuectld.service.change import mark_seen
from queuectld.service.views import finished
from queuectld.store.base import Entry, Page, Query, Reader

_PAGE: Final = 500
# Jobs that the answer names at most; the events have told them all.
SHOWN: Final = 1000
_STATES: Final = tuple(State)


class Waiter:
    """One request to wait. What it keeps for each job is a bit, and 8 bytes from its end until its client reads it."""

    def __init__(self, desk: Desk, request: Wait, outlet: Outlet, by: By) -> None:
        self._desk = desk
        self._request = request
        self._outlet = outlet
        self._by = by
        self._until = FINAL if request.until is None else frozenset(map(State, request.until))
        self._waiting = Seqs()
        # While jobs are listed: those that came to what is waited for meanwhile, and in which state first.
        self._early: dict[int, State] | None = {}
        # Since then, in their order and not told yet: position and state of each in one number.
        self._arrived = array("q")
        self._told: list[Finished] = []
        self._states: dict[str, int] = {}
        self._enough = False

    async def run(self) -> Waited:
        """Send an event for each job that gets there; return when all have, or enough."""
        unsubscribe = self._desk.hub.subscribe(self._committed)
        try:
            async with lending(self._desk, self._request.lend, self._by.sight):
                await self._list()
                while self._goes_on() and (self._arrived or await self._outlet.news()):
                    await self._tell_arrived()
        finally:
            unsubscribe()
        return Waited(
            jobs=tuple(self._told),
            count=sum(self._states.values()),
            states=self._states,
            stopped=bool(self._waiting or self._arrived) and not self._enough,
        )

    def _goes_on(self) -> bool:
        return bool(self._waiting or self._arrived) and self._may_go_on()

    def _may_go_on(self) -> bool:
        return not (self._enough or self._outlet.stopping)

    async def _list(self) -> None:
        query = await self._desk.ledger.read(
            lambda reader: selection.query(reader, self._request.select, self._by.sight)
        )
        after: int | None = None
        while self._may_go_on():
            async with self._outlet.turn:
                page = await self._desk.ledger.read(partial(_page, query=query, after=after))
                await self._sort(page.jobs)
            after = page.after
            if after is None:
                break
        early, self._early = self._early or {}, None
        for seq, state in early.items():
            self._arrive(seq, state)

    async def _sort(self, jobs: Sequence[Job]) -> None:
        """Tell those that are there already; wait for the others."""
        for job in jobs:
            if not self._may_go_on():
                return
            if job.state in self._until:
                await self._tell(job, job.state)
            else:
                self._waiting.add(job.seq)

    def _committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.seq is None or entry.state is None:
                continue
            # Discarded: nobody will see it come to anything any more.
            if entry.state not in self._until and entry.state is not State.DELETED:
                continue
            if self._early is not None:
                self._early.setdefault(entry.seq, entry.state)
            else:
                self._arrive(entry.seq, entry.state)

    def _arrive(self, seq: int, state: State) -> None:
        if seq in self._waiting:
            self._waiting.discard(seq)
            self._arrived.append(seq * len(_STATES) + _STATES.index(state))
            self._outlet.wake()

    async def _tell_arrived(self) -> None:
        while self._arrived and self._may_go_on():
            async with self._outlet.turn:
                await self._tell_page([divmod(number, len(_STATES)) for number in self._arrived[:_PAGE]])

    async def _tell_page(self, arrived: Sequence[tuple[int, int]]) -> None:
        jobs = await self._desk.ledger.read(partial(_by_seq, seqs=[seq for seq, _ in arrived]))
        for seq, state in arrived:
            if seq in jobs:
                await self._tell(jobs[seq], _STATES[state])
            if not self._may_go_on():
                return
        del self._arrived[: len(arrived)]

    async def _tell(self, job: Job, state: State) -> None:
        if state is State.DELETED:
            return
        told = finished(job)
        if told.state != state.value:
            # It has moved on since; what was waited for is what it came to.
            told = replace(told, state=state.value)
        if len(self._told) < SHOWN:
            self._told.append(told)
        self._states[told.state] = self._states.get(told.state, 0) + 1
        await self._outlet.send(told)
        if self._request.mark_seen and state is State.DEAD:
            now = self._desk.clock()
            await self._desk.ledger.write(lambda store: mark_seen(store, job.seq, by=self._by.user, now=now))
        failed = state is not State.COMPLETED
        self._enough = self._request.any or (self._request.fail_fast and failed)


def _page(reader: Reader, query: Query, after: int | None) -> Page:
    return reader.find(query, after=after, limit=_PAGE)


def _by_seq(reader: Reader, seqs: Sequence[int]) -> dict[int, Job]:
    found: dict[int, Job] = {}
    page = Page(jobs=(), after=0)
    while page.after is not None:
        page = reader.find(Query(seqs=tuple(seqs), states=_STATES), after=page.after, limit=len(seqs))
        found.update((job.seq, job) for job in page.jobs)
    return found


async def await_jobs(desk: Desk, request: Wait, by: By, outlet: Outlet) -> Waited:
    """Answer a request to wait."""
    return await Waiter(desk, request, outlet, by).run()
