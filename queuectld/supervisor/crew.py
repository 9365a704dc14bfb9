"""The worker processes: started, recognised when they connect, watched by the kernel until they are gone.

Knows no jobs and decides nothing; what happens is told to its `Watcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Final

import structlog

from queuectld.protocol.worker_messages import WORKER_SOCKET, FromWorker, Hello, ToWorker
from queuectld.supervisor.link import Link
from queuectld.supervisor.rescue import Household
from queuectld.supervisor.worker import Watcher, Worker, WorkerConnection
from queuectld.supervisor.world import World
from queuectld.worker import procfs

log = structlog.get_logger()

# With no descriptor left, say.
_WATCH_AGAIN: Final = 1.0
# Signals that a daemon under a service manager or a shell may have had blocked or ignored, and that must not be
# inherited that way by workers and their commands.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Crew:
    """All worker processes of this daemon, its own and those that it took over."""

    def __init__(self, world: World, watcher: Watcher) -> None:
        """`watcher` is told what happens."""
        self._world = world
        self._watcher = watcher
        self.household = Household()
        self._loop = asyncio.get_running_loop()
        self._workers: dict[int, Worker] = {}
        self._server: asyncio.Server | None = None

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over the workers that there are at this moment."""
        return iter(tuple(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def named(self, name: str) -> Worker | None:
        """Return a worker by its name."""
        return next((worker for worker in self._workers.values() if worker.name == name), None)

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
            worker.connection.worker = None
            worker.connection.close()
            worker.connection = None

    def unwatch(self, worker: Worker) -> None:
        """Take a worker for dead: its number may be somebody else's."""
        self._close_pidfd(worker)
        self.household.known.discard(worker.pid)

    async def listen(self) -> None:
        """Open the worker socket. Workers of an earlier daemon come back by themselves."""
        listener = procfs.bind_unix(str(self._world.state.path), WORKER_SOCKET)
        listener.setblocking(False)
        self._server = await self._loop.create_unix_server(lambda: WorkerConnection(self), sock=listener)

    def close(self) -> None:
        """Take no more workers, and let go of those that there are: they live on."""
        if self._server is not None:
            self._server.close()
        for worker in self:
            self.disconnect(worker)
            self.forget(worker)

    def spawn(self, orphan_timeout: float) -> Worker | None:
        """Start a worker; None if the host cannot start one now."""
        name = self._free_name()
        argv = [sys.executable, *self._marks(), "--name", name, "--orphan-timeout", str(orphan_timeout)]
        with self.household.lock:
            try:
                pid = self._spawn(argv)
            except OSError as error:
                log.error("Cannot start a worker", event_name="worker.failed", worker_id=name, error=str(error))  # noqa: TRY400  (the errno tells all)
                return None
            self.household.known.add(pid)
        with contextlib.suppress(ProcessLookupError):
            self._world.files.restore(pid)
        worker = self.register(name, pid, procfs.start_time(pid) or 0, Link(self._world.store))
        log.info("Worker started", event_name="worker.started", worker_id=name, worker_pid=pid)
        return worker

    def _marks(self) -> list[str]:
        """By which a worker of ours is known in the list of processes."""
        return ["-P", "-m", "queuectld.worker", "--state", str(self._world.state.path), "--store", self._world.store]

    def find(self) -> list[Worker]:
        """Take up those workers of an earlier daemon that are not known yet; they will come back, or be ended."""
        marks = [os.fsencode(word) for word in self._marks()]
        found = {
            process.pid: process
            for process in procfs.processes()
            if process.alive and process.pid not in self._workers and _is_ours(process.pid, marks)
        }
        # A child of a worker that is about to become a command looks like it for a moment.
        workers = [process for process in found.values() if process.ppid not in found.keys() | self._workers.keys()]
        return [
            self.register(self._free_name(), process.pid, process.start, Link(self._world.store)) for process in workers
        ]

    def _spawn(self, argv: list[str]) -> int:
        errors = os.open(
            self._world.state.path / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return os.posix_spawn(
                sys.executable,
                argv,
                self._world.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, nothing, 0),
                    (os.POSIX_SPAWN_DUP2, nothing, 1),
                    (os.POSIX_SPAWN_DUP2, errors, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=_DEFAULT_SIGNALS,
            )
        finally:
            os.close(errors)
            os.close(nothing)

    def _free_name(self) -> str:
        taken = {worker.name for worker in self._workers.values()}
        return next(name for number in range(1, len(taken) + 2) if (name := f"w{number}") not in taken)

    def register(self, name: str, pid: int, start: int, link: Link) -> Worker:
        """Watch over a process that lives, or did a moment ago."""
        now = self._loop.time()
        worker = Worker(name, pid, start, link, started_at=self._world.clock(), since=now, heard_at=now)
        self._workers[pid] = worker
        self.household.known.add(pid)
        self._watch(worker)
        return worker

    def _watch(self, worker: Worker) -> None:
        if self._workers.get(worker.pid) is not worker or worker.link.dead:
            return
        try:
            worker.pidfd = os.pidfd_open(worker.pid)
        except ProcessLookupError:
            self._loop.call_soon(self._dead, worker)
        except OSError as error:
            log.error("Cannot watch a worker yet", event_name="worker.failed", worker_id=worker.name, error=str(error))  # noqa: TRY400  (the errno tells all)
            self._loop.call_later(_WATCH_AGAIN, self._watch, worker)
        else:
            self._loop.add_reader(worker.pidfd, self._dead, worker)

    def _dead(self, worker: Worker) -> None:
        self.unwatch(worker)
        if not worker.link.dead:
            self._watcher.on_death(worker)

    def recognise(self, connection: WorkerConnection, hello: Hello) -> Worker | None:
        """Return who is at the other end, if it is who it says."""
        pid, uid = connection.peer()
        if uid != os.geteuid() or pid != hello.pid or procfs.start_time(pid) != hello.pid_start:
            log.warning("Stranger on the worker socket", event_name="worker.refused", peer_pid=pid, peer_uid=uid)
            return None
        worker = self._workers.get(pid)
        if worker is not None and worker.start not in {hello.pid_start, 0}:
            return None
        if worker is None:
            name = hello.name if self.named(hello.name) is None else self._free_name()
            worker = self.register(name, pid, hello.pid_start, Link(self._world.store))
        worker.start = hello.pid_start
        # An earlier connection is over, even if we did not notice yet: it was read to its end before this one was made.
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
        with contextlib.suppress(PermissionError, ProcessLookupError):
            if worker.pidfd >= 0:
                signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            else:
                procfs.signal_process(worker.pid, worker.start, signal.SIGKILL)

    def forget(self, worker: Worker) -> None:
        """Stop watching; the process may live on."""
        self._close_pidfd(worker)
        if worker.adoption is not None:
            worker.adoption.cancel()
        if self._workers.get(worker.pid) is worker:
            del self._workers[worker.pid]

    def _close_pidfd(self, worker: Worker) -> None:
        if worker.pidfd >= 0:
            self._loop.remove_reader(worker.pidfd)
            os.close(worker.pidfd)
            worker.pidfd = -1


def _is_ours(pid: int, marks: list[bytes]) -> bool:
    words = procfs.command_line(pid)
    return words[1 : len(marks) + 1] == marks and procfs.owner(pid) == os.geteuid()
