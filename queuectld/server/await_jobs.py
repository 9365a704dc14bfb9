"""Waits until jobs come to rest. Looks at each once; from then on it is told what is committed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from queuectld.domain.job import FINAL, Job, State
from queuectld.protocol.messages import Finished, Wait, Waited
from queuectld.server.desk import Desk
from queuectld.server.lending import lending
from queuectld.server.outlet import Outlet
from queuectld.service import selection
from queuectld.service.change import mark_seen
from queuectld.service.views import finished
from queuectld.store.base import Entry, Page, Query, Reader

_PAGE: Final = 500


class Waiter:
    """One request to wait."""

    def __init__(self, desk: Desk, request: Wait, outlet: Outlet, user: str) -> None:
        self._desk = desk
        self._request = request
        self._outlet = outlet
        self._user = user
        self._until = FINAL if request.until is None else frozenset(map(State, request.until))
        self._waiting: set[int] = set()
        # Came to what is waited for since the last look, in that order: by seq, in which state.
        self._arrived: dict[int, State] = {}
        self._listing = True
        self._told: list[Finished] = []
        self._enough = False

    async def run(self) -> Waited:
        """Send an event for each job that gets there; return when all have, or enough."""
        unsubscribe = self._desk.hub.subscribe(self._committed)
        try:
            with lending(self._desk, self._request.lend):
                await self._list()
                while self._goes_on() and (self._arrived or await self._outlet.news()):
                    await self._tell_arrived()
        finally:
            unsubscribe()
        return Waited(jobs=tuple(self._told), stopped=bool(self._waiting) and not self._enough)

    def _goes_on(self) -> bool:
        return bool(self._waiting) and self._may_go_on()

    def _may_go_on(self) -> bool:
        return not (self._enough or self._outlet.stopping)

    async def _list(self) -> None:
        query = await self._desk.ledger.read(lambda reader: selection.query(reader, self._request.select))
        after: int | None = None
        while self._may_go_on():
            page = await self._desk.ledger.read(partial(_page, query=query, after=after))
            for job in page.jobs:
                if not self._may_go_on():
                    break
                if job.state in self._until:
                    await self._tell(job, job.state)
                else:
                    self._waiting.add(job.seq)
            after = page.after
            if after is None:
                break
        self._listing = False
        self._arrived = {seq: state for seq, state in self._arrived.items() if seq in self._waiting}

    def _committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.seq is None or entry.state is None:
                continue
            # Discarded: nobody will see it come to anything any more.
            there = entry.state in self._until or entry.state is State.DELETED
            if there and (self._listing or entry.seq in self._waiting):
                self._arrived.setdefault(entry.seq, entry.state)
                self._outlet.wake()

    async def _tell_arrived(self) -> None:
        arrived, self._arrived = self._arrived, {}
        wanted = [seq for seq in arrived if seq in self._waiting]
        for first in range(0, len(wanted), _PAGE):
            seqs = wanted[first : first + _PAGE]
            jobs = await self._desk.ledger.read(partial(_by_seq, seqs=seqs))
            for job in jobs:
                self._waiting.discard(job.seq)
                await self._tell(job, arrived[job.seq])
                if not self._may_go_on():
                    return
            self._waiting.difference_update(seqs)

    async def _tell(self, job: Job, state: State) -> None:
        if state is State.DELETED:
            return
        told = finished(job)
        if told.state != state.value:
            # It has moved on since; what was waited for is what it came to.
            told = replace(told, state=state.value)
        self._told.append(told)
        await self._outlet.send(told)
        if self._request.mark_seen and state is State.DEAD:
            now = self._desk.clock()
            await self._desk.ledger.write(lambda store: mark_seen(store, job.seq, by=self._user, now=now))
        failed = state is not State.COMPLETED
        self._enough = self._request.any or (self._request.fail_fast and failed)


def _page(reader: Reader, query: Query, after: int | None) -> Page:
    return reader.find(query, after=after, limit=_PAGE)


def _by_seq(reader: Reader, seqs: Sequence[int]) -> list[Job]:
    found = reader.find(Query(seqs=tuple(seqs), states=tuple(State)), limit=len(seqs)).jobs
    by_seq = {job.seq: job for job in found}
    return [by_seq[seq] for seq in seqs if seq in by_seq]


async def await_jobs(desk: Desk, request: Wait, outlet: Outlet, user: str) -> Waited:
    """Answer a request to wait."""
    return await Waiter(desk, request, outlet, user).run()
