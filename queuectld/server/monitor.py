"""What monitoring is answered: the figures, whether the daemon gets on, and whether it takes jobs."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from queuectld.errors import QueueCTLError
from queuectld.figures.picture import Build, Holdings, Picture, of_host, of_loop, of_store
from queuectld.figures.text import Samples, render
from queuectld.host.footprint import footprint
from queuectld.protocol.words import VERSION
from queuectld.server.desk import Desk
from queuectld.service.holdings import holdings

# Seconds for which the store is waited for; a scrape of Prometheus usually takes no more than ten.
_PATIENCE: Final = 2.0


class Verdict(NamedTuple):
    """Yes or no, and the reason in a line."""

    good: bool
    reason: str


class Monitor:
    """Puts figures together: no matter how many ask, once at a time. Belongs to the loop's thread."""

    def __init__(self, desk: Desk, database: Path, *, progress: Callable[[], tuple[int, int, int]]) -> None:
        """`progress` tells how much work the store was given, how much it has done, and the bytes of kept output."""
        self._desk = desk
        self._counts = desk.counts
        self._database = database
        self._progress = progress
        self._build = Build(VERSION, platform.python_version(), apsw.sqlite_lib_version())
        self._looking: asyncio.Task[Holdings | None] | None = None
        self._writing: asyncio.Task[bytes] | None = None

    def health(self) -> Verdict:
        """Whether the daemon gets on. That it answers says that its loop does."""
        found = self._desk.vigil.problems() if self._desk.vigil.stuck else ()
        return Verdict(not found, "; ".join(found) or "ok")

    def readiness(self) -> Verdict:
        """Whether the daemon takes jobs."""
        if self._desk.control.draining:
            return Verdict(good=False, reason="draining: the daemon is on its way out")
        found = (*(() if (health := self.health()).good else (health.reason,)), *self._desk.ledger.problems())
        return Verdict(not found, "; ".join(found) or "ok")

    async def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())
        # Others may wait for the same.
        return await asyncio.shield(self._writing)

    async def _write(self) -> bytes:
        found = await self._look()
        # All of the loop's own at one moment, and copied; text is made beside the loop.
        stored = of_store(self._counts, found, self._desk.clock())
        samples = {**of_loop(self._counts, self._picture()), **stored}
        return await asyncio.to_thread(partial(_text, samples, self._database))

    async def _look(self) -> Holdings | None:
        """Ask the store; None if it does not answer in time, and a question that it still owes an answer is enough."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._ask())
        done, _ = await asyncio.wait({self._looking}, timeout=_PATIENCE)
        return self._looking.result() if done else None

    async def _ask(self) -> Holdings | None:
        try:
            return await self._desk.ledger.read(holdings)
        except QueueCTLError:
            return None

    def _picture(self) -> Picture:
        desk = self._desk
        loop = desk.vigil.loop()
        asked, answered, output = self._progress()
        return Picture(
            build=self._build,
            now=desk.clock(),
            started_at=desk.facts.started_at,
            healthy=self.health().good,
            ready=self.readiness().good,
            draining=desk.control.draining,
            stuck=desk.vigil.stuck,
            disk_full=desk.ledger.full,
            problems=len(desk.problems()),
            lag=loop.lag,
            max_lag=loop.max_lag,
            stalls=loop.stalls,
            connections=desk.connections,
            workers=tuple(worker.phase for worker in desk.control.workers()),
            limit=desk.control.limit,
            asked=asked,
            answered=answered,
            output=output,
        )


def _text(samples: Samples, database: Path) -> bytes:
    return render({**samples, **of_host(footprint(database))}).encode()
