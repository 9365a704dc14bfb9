"""The worker processes: started, recognised when they connect, watched by the kernel until they are gone.

Knows no jobs and decides nothing; what happens is told to its `Watcher`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import structlog

from queuectld.protocol.worker_messages import FromWorker, Hello, ToWorker
from queuectld.supervisor.link import WorkerLink
from queuectld.supervisor.machine import Process
from queuectld.supervisor.worker import Connection, Watcher, Worker
from queuectld.supervisor.world import World

log = structlog.get_logger()

# With no descriptor left, say.
_WATCH_AGAIN: Final = 1.0


class Crew:
    """All worker processes of this daemon, its own and those that it took over."""

    def __init__(self, world: World, watcher: Watcher) -> None:
        """`watcher` is told what happens."""
        self._world = world
        self._watcher = watcher
        self._machine = world.machine
        self._loop = asyncio.get_running_loop()
        # By name. By number there may be two: one whose death is not known yet, or whose attempt is still being ended.
        self._workers: dict[str, Worker] = {}
        self._stop_listening: Callable[[], None] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over the workers that there are at this moment."""
        return iter(tuple(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def named(self, name: str) -> Worker | None:
        """Return a worker by its name."""
        return self._workers.get(name)

    def with_token(self, token: int) -> Worker | None:
        """Return the worker that an attempt belongs to."""
        return next((worker for worker in self._workers.values() if worker.link.token == token), None)

    def say(self, worker: Worker, message: ToWorker) -> None:
        """Say something to a worker; if it is out of touch, it is told again what matters when it comes back."""
        if worker.connection is not None:
            worker.connection.send(message)

    def disconnect(self, worker: Worker) -> None:
        """Hang up on a worker, and wait for nothing but its end."""
        if worker.connection is not None:
            worker.connection.abandon()
            worker.connection = None

    def unwatch(self, worker: Worker) -> None:
        """Take a worker for dead: its number may be somebody else's."""
        self._stop_watching(worker)
        if all(other is worker for other in self._numbered(worker.pid)):
            self._machine.disown(worker.pid)

    def _numbered(self, pid: int) -> list[Worker]:
        """Who has this number, and is not known to be dead."""
        return [worker for worker in self._workers.values() if worker.pid == pid and not worker.link.dead]

    async def listen(self) -> None:
        """Open the worker socket. Workers of an earlier daemon come back by themselves."""
        self._stop_listening = await self._machine.listen(self)

    def close(self) -> None:
        """Take no more workers, and let go of those that there are: they live on."""
        self._closed = True
        if self._stop_listening is not None:
            self._stop_listening()
        for worker in self:
            self.disconnect(worker)
            self.forget(worker)

    def spawn(self, orphan_timeout: float) -> Worker | None:
        """Start a worker; None if the host cannot start one now."""
        name = self.free_name()
        try:
            pid, start = self._machine.spawn(name, orphan_timeout)
        except OSError as error:
            self._world.note("failed")
            log.error("Cannot start a worker", event_name="worker.failed", worker_id=name, error=str(error))  # noqa: TRY400  (the errno tells all)
            return None
        worker = self.register(name, pid, start, WorkerLink(self._world.store))
        self._world.note("started")
        log.info("Worker started", event_name="worker.started", worker_id=name, worker_pid=pid)
        return worker

    def find(self) -> list[Worker]:
        """Take up those workers of an earlier daemon that are not known yet; they will come back, or be ended."""
        return [
            self.register(self.free_name(), pid, start, WorkerLink(self._world.store))
            for pid, start in self._machine.find({worker.pid for worker in self if not worker.link.dead})
        ]

    def free_name(self) -> str:
        """Return the first name that no worker has."""
        taken = self._workers
        return next(name for number in range(1, len(taken) + 2) if (name := f"w{number}") not in taken)

    def register(self, name: str, pid: int, start: int, link: WorkerLink) -> Worker:
        """Watch over a process that lives, or did a moment ago."""
        now = self._loop.time()
        worker = Worker(name, pid, start, link, started_at=self._world.clock(), since=now, heard_at=now)
        self._workers[name] = worker
        self._machine.know(pid)
        self._watch(worker)
        return worker

    def _watch(self, worker: Worker) -> None:
        if self._workers.get(worker.name) is not worker or worker.link.dead:
            return
        try:
            worker.watch = self._machine.watch(worker.pid, partial(self._dead, worker))
        except ProcessLookupError:
            self._loop.call_soon(self._dead, worker)
        except OSError as error:
            log.error("Cannot watch a worker yet", event_name="worker.failed", worker_id=worker.name, error=str(error))  # noqa: TRY400  (the errno tells all)
            self._loop.call_later(_WATCH_AGAIN, self._watch, worker)

    def _dead(self, worker: Worker) -> None:
        self.unwatch(worker)
        if not worker.link.dead:
            self._watcher.on_death(worker)

    def recognise(self, connection: Connection, hello: Hello) -> Worker | None:
        """Return who is at the other end, if it is who it says."""
        if self._closed:
            # It came in before the socket was closed. The next daemon knows its attempt; we have let go of it, and
            # would tell it to end what it runs.
            return None
        pid, uid = connection.peer()
        if uid != self._machine.uid or pid != hello.pid or self._machine.start_time(pid) != hello.pid_start:
            log.warning("Stranger on the worker socket", event_name="worker.refused", peer_pid=pid, peer_uid=uid)
            return None
        worker = next((one for one in self._numbered(pid) if one.start in {hello.pid_start, 0}), None)
        if worker is None:
            name = hello.name if self.named(hello.name) is None else self.free_name()
            worker = self.register(name, pid, hello.pid_start, WorkerLink(self._world.store))
        worker.start = hello.pid_start
        if 0 < hello.connection < worker.connections:
            # Read late: it has made another one since, and what it said over this one is not so any more.
            return None
        worker.connections = hello.connection
        # An earlier connection is over, even if we did not notice yet: what was said over it came before this.
        self.disconnect(worker)
        worker.connection = connection
        self._watcher.on_hello(worker, hello)
        return worker

    def heard(self, worker: Worker, message: FromWorker) -> None:
        """Pass on what a worker said."""
        self._watcher.on_message(worker, message)

    def lost(self, worker: Worker) -> None:
        """Pass on that a worker's connection is over, and has been read to its end."""
        worker.connection = None
        self._watcher.on_disconnect(worker)

    def kill(self, worker: Worker) -> None:
        """End a worker's process at once; its death is noticed as any other."""
        if worker.watch is not None:
            worker.watch.kill()
        else:
            self._machine.kill(Process(worker.pid, worker.start))

    def forget(self, worker: Worker) -> None:
        """Stop watching; the process may live on."""
        self._stop_watching(worker)
        if worker.adoption is not None:
            worker.adoption.cancel()
        if self._workers.get(worker.name) is worker:
            del self._workers[worker.name]

    def _stop_watching(self, worker: Worker) -> None:
        if worker.watch is not None:
            worker.watch.close()
            worker.watch = None
