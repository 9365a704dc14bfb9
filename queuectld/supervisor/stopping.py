"""How the daemon ends: a written sequence, with a bound at each step.

``leave``: at once; workers and their jobs go on, and the next daemon adopts them. Otherwise no new claims, and running
jobs may end for a grace (``drain``), without a bound (``wait``), or not at all (``now``); then TERM to their groups,
KILL after the longest `kill_after` among them; then the workers end. Where all that still run only wait for jobs that
will not start any more, ``wait`` becomes ``drain``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from queuectld.config import Holder
from queuectld.service.control import ShutdownMode
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.link import Phase
from queuectld.supervisor.worker import Worker

log = structlog.get_logger()

# How decided each mode is: a later request can only hurry.
_HASTE: Final = {"wait": 0, "drain": 1, "now": 2, "leave": 3}
# Seconds for which nobody may get on before that counts: the end of a job is told to those that wait for it.
_BLOCKED: Final = 2.0
# Seconds after the last KILL was due: until then ends may be reported and recorded; until then what an overdue worker
# leaves is ended by us; and until then workers with nothing to do may end by themselves.
_REPORTED: Final = 0.4
_RESCUED: Final = 0.6
_DISMISSED: Final = 0.75
# And then until those that had to be killed are gone.
_GONE: Final = 0.2


class Stopping:
    """One end of one daemon."""

    def __init__(
        self,
        crew: Crew,
        config: Holder,
        *,
        stop: Callable[[Worker, float, float], None],
        retire: Callable[[Worker], None],
        waits: Callable[[Worker], bool],
    ) -> None:
        """`stop` interrupts a worker's attempt, given its grace and the time between TERM and KILL.

        `waits` tells whether its attempt does nothing but wait for other jobs.
        """
        self._retire = retire
        self._crew = crew
        self._config = config
        self._stop = stop
        self._waits = waits
        # Since when nobody gets on.
        self._blocked: float | None = None
        self._mode: ShutdownMode | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._term_at = 0.0
        self._dismiss_by = float("inf")
        self._ready = asyncio.Event()
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

    def ready(self) -> None:
        """All workers and attempts that there are, are known: what is begun may go on."""
        self._ready.set()

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

    def press(self) -> None:
        """Somebody asks for the end, or asks again: first with a grace, then without."""
        self.begin("drain" if self._mode in {None, "wait"} else "now")

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
        return [worker for worker in self._crew if worker.link.busy]

    async def _run(self) -> None:
        await self._ready.wait()
        while self._mode != "leave" and self._busy():
            now = asyncio.get_running_loop().time()
            if self._mode == "wait":
                await self._wait_on(now)
                continue
            last_kill = self._last_kill()
            if now >= last_kill + _REPORTED:
                await self._end_overdue(now - _REPORTED)
                break
            await self._woken(last_kill + _REPORTED - now)
        if self._mode != "leave":
            await self._dismiss()
        self.done.set()

    async def _wait_on(self, now: float) -> None:
        """Wait for running jobs, however long they take, unless none of them can end before others have begun."""
        if not all(map(self._waits, self._busy())):
            self._blocked = None
            await self._woken(None)
            return
        self._blocked = now if self._blocked is None else self._blocked
        if now < self._blocked + _BLOCKED:
            await self._woken(self._blocked + _BLOCKED - now)
        else:
            self.begin("drain")

    def _last_kill(self) -> float:
        """When the last of those that still run gets its KILL."""
        return self._term_at + max(map(self._kill_after, self._busy()), default=0.0)

    async def _end_overdue(self, last_kill: float) -> None:
        """Workers that could not end their attempts in time are killed, and what they leave is ended by us.

        One with an outcome that cannot be recorded now is let be: it puts that into a file, or keeps it until it can.
        """
        self.overdue = True
        self._dismiss_by = last_kill + _DISMISSED
        for worker in self._busy():
            if worker.link.phase is not Phase.SETTLING:
                log.warning("Worker overdue", event_name="worker.replaced", worker_id=worker.name, reason="shutdown")
                self._crew.kill(worker)
        await self._until(lambda: not self._busy(), last_kill + _RESCUED)

    async def _dismiss(self) -> None:
        for worker in self._crew:
            self._retire(worker)
        deadline = min(asyncio.get_running_loop().time() + _DISMISSED, self._dismiss_by)
        await self._until(lambda: not len(self._crew), deadline)
        doomed = [worker for worker in self._crew if worker.link.phase is not Phase.SETTLING]
        if self._mode == "leave" or not doomed:
            return
        for worker in doomed:
            self._crew.kill(worker)
        # What they lived in can be removed only when they are gone.
        await self._until(lambda: not any(worker in self._crew for worker in doomed), deadline + _GONE)

    async def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while not condition() and self._mode != "leave" and loop.time() < deadline:
            await self._woken(deadline - loop.time())

    async def _woken(self, bound: float | None) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), bound)
        except TimeoutError:
            return
        finally:
            self._wake.clear()
