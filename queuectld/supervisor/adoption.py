"""Takes up what an earlier daemon left, and waits for workers that are out of touch, for as long as that may last."""

from __future__ import annotations

import asyncio

import structlog

from queuectld.config import Holder
from queuectld.domain.attempt import Attempt, Reason
from queuectld.host.pulse import STALL
from queuectld.service.attempts import vanished
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.dispatch import Surroundings
from queuectld.supervisor.link import WorkerLink
from queuectld.supervisor.machine import Process
from queuectld.supervisor.records import Records
from queuectld.supervisor.recovery import Fate, fate
from queuectld.supervisor.worker import Worker
from queuectld.supervisor.world import World

log = structlog.get_logger()


class Adoption:
    """From "there was a worker" to "it is back", or to its end."""

    def __init__(self, around: Surroundings, crew: Crew, records: Records, config: Holder, world: World) -> None:
        """`around` is the supervisor."""
        self._around = around
        self._crew = crew
        self._records = records
        self._config = config
        self._world = world
        self._loop = asyncio.get_running_loop()

    async def take_up(self) -> None:
        """Record the outcomes in files, and know all attempts and workers that there are. Each step is idempotent."""
        await self._record_filed()
        for attempt in await self._records.live_attempts():
            await self._take_over(attempt)
        self._world.files.prune_inputs(frozenset(w.link.token for w in self._crew if w.link.token is not None))
        for worker in self._crew.find():
            self.expect(worker)
        await self._sweep()
        for worker in self._crew:
            # Another daemon had no cgroups, or had them elsewhere.
            if not (worker.link.dead or self._world.machine.encloses(Process(worker.pid, worker.start))):
                self._around.act(worker, worker.link.retire())

    async def _sweep(self) -> None:
        live = {worker.link.token for worker in self._crew if worker.link.token is not None}
        try:
            await self._world.machine.sweep(live, [Process(worker.pid, worker.start) for worker in self._crew])
        except OSError as error:
            log.error("Cannot look for what is left in cgroups", event_name="job.stuck", error=str(error))  # noqa: TRY400  (the errno tells all)

    async def _record_filed(self) -> None:
        filed = self._world.files.outcomes()
        await self._records.finished_all(filed)
        for one in filed:
            self._world.files.remove_outcome(one.token)
        if filed:
            log.info("Outcomes recovered", event_name="outcome.recovered", count=len(filed))

    async def _take_over(self, attempt: Attempt) -> None:
        machine = self._world.machine
        found = fate(attempt, boot_id=machine.boot_id, start_time=machine.start_time)
        log.info("Attempt found", event_name="job.adopted", token=attempt.token, attempt=attempt.number, state=found)
        if found is Fate.REBOOTED:
            # What its worker had not finished of an outcome file; a finished one was recorded before.
            self._world.files.remove_outcome(attempt.token)
            outcome = vanished(Reason.LOST, self._world.clock(), "the host went down")
            await self._records.finished(attempt.token, outcome, reboot=True)
            return
        name = attempt.worker if self._crew.named(attempt.worker) is None else self._crew.free_name()
        link = WorkerLink(self._world.store, token=attempt.token)
        worker = self._crew.register(name, attempt.worker_pid, attempt.worker_start, link)
        worker.attempt = attempt.number
        if attempt.pid is not None and attempt.pid_start is not None:
            worker.started = (attempt.pid, attempt.pid_start)
        if found is Fate.WIDOWED:
            self._crew.unwatch(worker)
            self._around.act(worker, link.died())
        else:
            self.expect(worker)

    def expect(self, worker: Worker) -> None:
        """Give a worker the time for adoption to connect; then it is killed."""
        if worker.link.token is not None:
            log.info("Worker out of touch", event_name="worker.awaited", worker_id=worker.name)
        if worker.adoption is None:
            due = self._loop.time() + self._config.config.adopt_timeout
            worker.adoption = self._loop.call_at(due, self._give_up, worker, due)

    def arrived(self, worker: Worker) -> None:
        """A worker has connected."""
        if worker.adoption is not None:
            worker.adoption.cancel()
            worker.adoption = None

    def _give_up(self, worker: Worker, due: float) -> None:
        worker.adoption = None
        if self._loop.time() > due + STALL:
            # It was the loop that stood still: the worker may be at the door, and is let in first.
            self.expect(worker)
            return
        log.warning("Worker does not come back", event_name="worker.replaced", worker_id=worker.name, reason="silent")
        self._crew.kill(worker)
