"""The machine as it is: worker processes, their socket, and what dead workers leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from queuectld.host.alarm import Alarm
from queuectld.host.file_limit import FileLimit
from queuectld.host.state_dir import StateDir
from queuectld.protocol.replies import Isolation
from queuectld.protocol.worker_messages import WORKER_SOCKET
from queuectld.supervisor.connection import WorkerConnection
from queuectld.supervisor.groups import end, find_groups
from queuectld.supervisor.kept import KeptProcesses, prune_of_others
from queuectld.supervisor.machine import Process, Reception
from queuectld.supervisor.rescue import Host, Household, Remains, end_remains
from queuectld.supervisor.vitals import Reading, Subject, examine
from queuectld.worker import procfs
from queuectld.worker.cgroups import members, remove
from queuectld.worker.options import Options, store_served_by

# Signals that a daemon under a service manager or a shell may have had blocked or ignored, and that must not be
# inherited that way by workers and their commands.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class ProcessWatch:
    """A process that is watched through a pidfd, by which it can be killed even if no descriptor is left."""

    def __init__(self, pid: int, gone: Callable[[], None]) -> None:
        """Raises `ProcessLookupError`, `OSError`."""
        self._loop = asyncio.get_running_loop()
        self._gone = gone
        self._pidfd = os.pidfd_open(pid)
        self._loop.add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        self.close()
        self._gone()

    def kill(self) -> None:
        """SIGKILL it."""
        with contextlib.suppress(PermissionError, ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Watch it no more."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


class LinuxMachine:
    """This host. Implements `queuectld.supervisor.machine.Machine`."""

    def __init__(
        self,
        state: StateDir,
        store: str,
        *,
        environ: Mapping[str, str],
        files: FileLimit,
        family: Iterable[Process] | None = None,
        cgroups: bool = True,
    ) -> None:
        """`store` is the uuid of the store; workers are started with `environ`, and held to the limit `files`.

        `cgroups`: whether they are used where that is possible.
        `family` are the children that this process had when it was another program, and that did not flee to it.
        """
        self._state = state
        self._store = store
        self._environ = environ
        self._files = files
        # Who died since then, and whoever has its number now, is none of them.
        living = None if family is None else [one.pid for one in family if procfs.start_time(one.pid) == one.start]
        self._household = Household(living)
        self.uid = os.geteuid()
        self.boot_id = procfs.boot_id()
        self._groups = find_groups(store, wanted=cgroups)
        self._kept = KeptProcesses(state.path, store, self.boot_id, self._groups)

    @property
    def isolation(self) -> Isolation:
        """What holds the processes of a job together."""
        return self._groups.isolation

    def become_subreaper(self) -> None:
        """Let orphaned descendants become our children. Raises `OSError`."""
        procfs.become_subreaper()

    def start_time(self, pid: int) -> int | None:
        """Return when a living process started; None if there is none of that number."""
        return procfs.start_time(pid)

    # Workers.

    def spawn(self, name: str, orphan_timeout: float) -> Process:
        """Start a worker. Raises `OSError`."""
        groups = self._groups
        options = Options(str(self._state.path), self._store, name, orphan_timeout, groups.root, groups.home)
        pid = self.start_child(lambda: self._spawn([sys.executable, *options.words()]))
        with contextlib.suppress(ProcessLookupError):
            self._files.restore(pid)
        return Process(pid, procfs.start_time(pid) or 0)

    def start_child(self, start: Callable[[], int]) -> int:
        """Have `start` make a child, which is not taken for one that fled to us; return its number."""
        with self._household.lock:
            pid = start()
            self._household.known.add(pid)
            return pid

    def family(self) -> list[Process]:
        """Return the living children that did not flee to us."""
        found = [procfs.stat(pid) for pid in tuple(self._household.known)]
        return [Process(one.pid, one.start) for one in found if one and one.alive and one.ppid == os.getpid()]

    def _spawn(self, argv: list[str]) -> int:
        log = self._state.path / "workers.log"
        errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            return os.posix_spawn(
                sys.executable,
                argv,
                self._environ,
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

    def find(self, known: Iterable[int]) -> Sequence[Process]:
        """Return living workers of this store that are not among the `known`."""
        known = frozenset(known)
        state = str(self._state.path)
        found = {
            process.pid: process
            for process in procfs.processes()
            if process.alive and process.pid not in known and store_served_by(process.pid, state) == self._store
        }
        # A child of a worker that is about to become a command looks like it for a moment.
        families = found.keys() | known
        return [Process(process.pid, process.start) for process in found.values() if process.ppid not in families]

    def know(self, pid: int) -> None:
        """Take a process for one of ours: what a dead worker left is not looked for in it."""
        self._household.known.add(pid)

    def disown(self, pid: int) -> None:
        """Take it for one of ours no more: its number may be somebody else's."""
        self._household.known.discard(pid)

    def watch(self, pid: int, gone: Callable[[], None]) -> ProcessWatch:
        """Call `gone` once when the process has ended. Raises `ProcessLookupError` if it has, `OSError` if not now."""
        return ProcessWatch(pid, gone)

    def kill(self, process: Process) -> None:
        """SIGKILL a process that is not watched; nothing happens if it is gone."""
        with contextlib.suppress(PermissionError, ProcessLookupError):
            procfs.signal_process(process.pid, process.start, signal.SIGKILL)

    # The rest.

    async def listen(self, reception: Reception) -> Callable[[], None]:
        """Open the worker socket; return what closes it."""
        listener = procfs.bind_unix(str(self._state.path), WORKER_SOCKET)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: WorkerConnection(reception), sock=listener)
        return server.close

    def alarm(self, ring: Callable[[], None]) -> Alarm:
        """Return an alarm, not set; `ring` decides what is due and sets it again."""
        return Alarm(asyncio.get_running_loop(), ring)

    async def examine(self, subjects: Sequence[Subject]) -> Mapping[int, Reading | None]:
        """Read the vitals of workers, and see what is left of what was kept; off the loop."""
        return await asyncio.to_thread(self._examine, subjects)

    def _examine(self, subjects: Sequence[Subject]) -> Mapping[int, Reading | None]:
        with contextlib.suppress(OSError):
            self._prune()
        return examine(subjects)

    def _prune(self) -> None:
        self._kept.prune()
        prune_of_others(self._state.path, self._store, self.boot_id)

    def group(self, token: int) -> str | None:
        """Return the cgroup that an attempt may have of its own; None where there are none."""
        return self._groups.of_attempt(token)

    def encloses(self, worker: Process) -> bool:
        """Whether a worker makes use of all the cgroups that there are for it."""
        return self._groups.root is None or worker.pid in members(self._groups.of_worker(*worker))

    async def sweep(self, live: Collection[int], workers: Sequence[Process]) -> None:
        """End what is left of attempts that are not `live`, as far as cgroups tell; `workers` are seen to elsewhere."""
        await asyncio.to_thread(self._sweep, live, workers)

    def _sweep(self, live: Collection[int], workers: Sequence[Process]) -> None:
        self._prune()
        self._groups.sweep(live={*live, *self._kept.tokens()}, workers=workers, spared=self._kept.spared().pids)

    def bury(self, worker: Process) -> None:
        """Clean up behind a worker that is gone and has no attempt."""
        for directory in self._groups.all_of_worker(*worker):
            if not remove(directory):
                end(directory, self._kept.spared().pids)

    def close(self) -> None:
        """Remove the cgroups that are empty."""
        self._groups.close()

    async def end_remains(self, remains: Remains, report: Callable[[str], None]) -> list[str]:
        """End everything in the kill set of an attempt. Raises `OSError`."""
        return await end_remains(remains, Host(self._household, self._groups, self._kept), report)
