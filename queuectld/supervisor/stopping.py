"""How the daemon ends: a written sequence, with a bound at each step.

``leave``: at once; workers and their jobs go on, and the next daemon adopts them. Otherwise no new claims, and running
jobs may end for a grace (``drain``), without a bound (``wait``), or not at all (``now``); then TERM to their groups,
KILL after the longest `kill_after` among them; then the workers end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from queuectld.config import Holder
from queuectld.service.control import ShutdownMode
from queuectld.supervisor.crew import Crew, Worker

log = structlog.get_logger()

# How decided each mode is: a later request can only hurry.
_HASTE: Final = {"wait": 0, "drain": 1, "now": 2, "leave": 3}
# For what comes after the last KILL: outcomes to report and to record, workers to end.
_MARGIN: Final = 0.8
_GOODBYE: Final = 1.0


class Stopping:
    """One end of one daemon."""

    def __init__(
        self,
        crew: Crew,
        config: Holder,
        *,
        stop: Callable[[Worker, float, float], None],
        retire: Callable[[Worker], None],
    ) -> None:
        """`stop` interrupts a worker's attempt, given its grace and the time between TERM and KILL."""
        self._retire = retire
        self._crew = crew
        self._config = config
        self._stop = stop
        self._mode: ShutdownMode | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._term_at = 0.0
        self.done = asyncio.Event()
        # Jobs that still run now are ended with their workers, and count as interrupted, not as lost.
        self.overdue = False

    @property
    def begun(self) -> bool:
        """Whether the daemon is on its way out."""
        return self._mode is not None

    @property
    def left(self) -> bool:
        """Whether workers and their jobs are left to the next daemon."""
        return self._mode == "leave"

    def begin(self, mode: ShutdownMode) -> None:
        """Start to end in this mode, or switch to it if it is more decided than the one under way."""
        if self._mode is not None and _HASTE[mode] <= _HASTE[self._mode]:
            return
        self._mode = mode
        log.info("Stopping", event_name="daemon.draining", mode=mode, running=len(self._busy()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        if mode in {"drain", "now"}:
            self._term_at = asyncio.get_running_loop().time() + self._grace()
            for worker in self._busy():
                self.hurry(worker)
        self._wake.set()

    def hurry(self, worker: Worker) -> None:
        """Tell a worker that has turned up, or that all are told, how long it has."""
        if self._mode in {"drain", "now"}:
            grace = max(0.0, self._term_at - asyncio.get_running_loop().time())
            self._stop(worker, grace, self._kill_after(worker))

    def changed(self) -> None:
        """An attempt or a worker ended."""
        self._wake.set()

    def _grace(self) -> float:
        return 0.0 if self._mode == "now" else self._config.config.shutdown_grace

    def _kill_after(self, worker: Worker) -> float:
        config = self._config.config
        asked = worker.job.spec.kill_after if worker.job is not None else None
        return min(config.kill_after if asked is None else asked, config.max_kill_after)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._crew if worker.link.token is not None]

    async def _run(self) -> None:
        while self._mode != "leave" and self._busy():
            left = self._time_left()
            if left is not None and left <= 0:
                await self._end_overdue()
                break
            await self._woken(left)
        if self._mode != "leave":
            await self._dismiss()
        self.done.set()

    def _time_left(self) -> float | None:
        if self._mode == "wait":
            return None
        longest = max(map(self._kill_after, self._busy()), default=0.0)
        return self._term_at + longest + _MARGIN - asyncio.get_running_loop().time()

    async def _end_overdue(self) -> None:
        """Workers that could not end their attempts in time are killed, and what they leave is ended by us."""
        self.overdue = True
        for worker in self._busy():
            log.warning("Worker overdue", event_name="worker.replaced", worker_id=worker.name, reason="shutdown")
            self._crew.kill(worker)
        await self._until(lambda: not self._busy(), _GOODBYE)

    async def _dismiss(self) -> None:
        for worker in self._crew:
            self._retire(worker)
        await self._until(lambda: not len(self._crew), _GOODBYE)
        for worker in self._crew:
            self._crew.kill(worker)

    async def _until(self, condition: Callable[[], bool], bound: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + bound
        while not condition() and self._mode != "leave" and loop.time() < deadline:
            await self._woken(deadline - loop.time())

    async def _woken(self, bound: float | None) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), bound)
        except TimeoutError:
            return
        finally:
            self._wake.clear()
