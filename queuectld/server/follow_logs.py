"""The output of jobs as it comes. Woken by what is committed and by workers that write; reads at its client's pace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from queuectld.domain.job import Job
from queuectld.protocol.messages import Logs
from queuectld.protocol.replies import LogsEnd
from queuectld.server.desk import Desk
from queuectld.server.lending import lending
from queuectld.server.outlet import Outlet
from queuectld.service import logs
from queuectld.service.logs import Look, Place
from queuectld.service.sight import Sight
from queuectld.service.views import finished
from queuectld.store.base import Entry


class Follower:
    """One request for logs: where it reads in each of its jobs, and which of them have news."""

    def __init__(self, desk: Desk, request: Logs, outlet: Outlet, sight: Sight) -> None:
        self._desk = desk
        self._request = request
        self._outlet = outlet
        self._sight = sight
        self._open: dict[int, Place] = {}
        self._order: list[int] = []
        self._dirty: set[int] = set()
        self._jobs: dict[int, Job] = {}
        self._followed: dict[int, Callable[[], None]] = {}

    async def run(self) -> LogsEnd:
        """Send the output; return when the jobs are over, or at once when asked to stop."""
        unsubscribe = self._desk.hub.subscribe(self._committed)
        try:
            async with lending(self._desk, self._request.lend, self._sight):
                await self._begin()
                while self._open and not self._outlet.stopping:
                    await self._look_around()
                    if self._open and not self._dirty and not await self._outlet.news():
                        break
        finally:
            unsubscribe()
            for release in self._followed.values():
                release()
        return LogsEnd(
            jobs=tuple(finished(self._jobs[seq]) for seq in self._order if seq in self._jobs),
            stopped=bool(self._open),
        )

    async def _begin(self) -> None:
        for place in await self._desk.ledger.read(lambda reader: logs.places(reader, self._request, self._sight)):
            self._open[place.seq] = place
            self._order.append(place.seq)
        self._dirty = set(self._open)

    async def _look_around(self) -> None:
        # One look at each that has news, then the next round: a chatty job does not keep the others waiting.
        for seq in [seq for seq in self._order if seq in self._dirty]:
            self._dirty.discard(seq)
            async with self._outlet.turn:
                await self._take(seq, await self._look(seq))
            if self._outlet.stopping:
                return

    async def _look(self, seq: int) -> Look:
        work = partial(
            logs.look,
            request=self._request,
            place=self._open[seq],
            output_dir=self._desk.output_dir,
            limit=self._desk.config.output_limit,
        )
        return await self._desk.ledger.read(work)

    async def _take(self, seq: int, look: Look) -> None:
        first = seq not in self._jobs
        self._open[seq] = look.place
        if look.job is not None:
            self._jobs[seq] = look.job
        if look.over:
            del self._open[seq]
        elif not look.idle or self._newly_followed(seq, look.token):
            self._dirty.add(seq)
        for piece in look.pieces:
            if self._outlet.stopping:
                return
            await self._outlet.send(piece)
        if first and self._request.marks and not look.pieces:
            await self._outlet.send(logs.place_mark(look.place, self._request, self._desk.clock()))

    def _newly_followed(self, seq: int, token: int | None) -> bool:
        """Have the worker say when it writes; what it wrote until then is there to be read: look once more."""
        if not self._request.follow or token is None or token in self._followed:
            return False
        self._followed[token] = self._desk.control.follow(token, partial(self._news_of, seq))
        return True

    def _news_of(self, seq: int) -> None:
        if seq in self._open:
            self._dirty.add(seq)
            self._outlet.wake()

    def _committed(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.seq is not None:
                self._news_of(entry.seq)


async def follow_logs(desk: Desk, request: Logs, sight: Sight, outlet: Outlet) -> LogsEnd:
    """Answer a request for logs."""
    return await Follower(desk, request, outlet, sight).run()
