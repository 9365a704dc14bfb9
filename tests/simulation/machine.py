"""The ports of the supervisor to a host and a disk that are not there. A dead daemon's hands do nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from queuectld.service.attempts import Claimed
from queuectld.service.run_spec import InputFiles
from queuectld.supervisor.machine import Process as Pid
from queuectld.supervisor.machine import Reception
from queuectld.supervisor.plan import Vitals
from queuectld.supervisor.recovery import Filed
from queuectld.supervisor.rescue import Remains
from queuectld.supervisor.vitals import Reading, Subject
from tests.simulation.host import Process

if TYPE_CHECKING:
    from tests.simulation.world import SimDaemon


class SimWatch:
    """A process that is watched."""

    def __init__(self, machine: SimMachine, process: Process, gone: Callable[[], None]) -> None:
        self._machine, self._process, self._gone = machine, process, gone
        self._open = True
        process.watchers.append(self._ended)

    def _ended(self) -> None:
        daemon = self._machine.daemon
        late = daemon.dice.random() * (0.1 if daemon.dice.random() < 0.1 else 0.001)
        daemon.world.scheduler.after(late, self._tell, daemon.process)

    def _tell(self) -> None:
        if self._open:
            self._open = False
            self._machine.daemon.loop.within(self._gone)

    def kill(self) -> None:
        if self._machine.daemon.process.alive and self._process.alive:
            self._machine.daemon.world.host.end(self._process, signal=9)

    def close(self) -> None:
        self._open = False


class SimAlarm:
    """An alarm on the wall clock of the world."""

    def __init__(self, daemon: SimDaemon, ring: Callable[[], None]) -> None:
        self._daemon, self._ring = daemon, ring
        self._when: float | None = None
        self._set = 0

    def no_later_than(self, when: float) -> None:
        if self._when is None or when < self._when:
            self._arm(when)

    def _arm(self, when: float) -> None:
        self._when = when
        self._set += 1
        world = self._daemon.world
        due = max(world.scheduler.now, when - world.clock_base)
        world.scheduler.at(due, partial(self._due, self._set), self._daemon.process)

    def _due(self, number: int) -> None:
        if number == self._set and self._when is not None:
            self._when = None
            self._daemon.loop.within(self._ring)

    def clock_was_set(self) -> None:
        if self._when is not None:
            self._arm(self._when)
        self._daemon.loop.call_soon(self._ring)

    def close(self) -> None:
        self._when = None


class SimMachine:
    """Implements `queuectld.supervisor.machine.Machine`."""

    def __init__(self, daemon: SimDaemon, known: Iterable[int]) -> None:
        self.daemon = daemon
        self._host = daemon.world.host
        self.uid = 0
        self.boot_id = self._host.boot_id
        self.known = set(known)
        self.alarms: list[SimAlarm] = []

    @property
    def _alive(self) -> bool:
        return self.daemon.process.alive

    def become_subreaper(self) -> None:
        """Every daemon is one here."""

    def start_time(self, pid: int) -> int | None:
        process = self._host.processes.get(pid)
        return None if process is None else process.start

    def spawn(self, name: str, orphan_timeout: float) -> Pid:
        if not self._alive or (not self.daemon.world.calm and self.daemon.dice.random() < 0.03):
            raise OSError("no more processes")
        process = self._host.fork(self.daemon.process.pid, "worker")
        self.known.add(process.pid)
        self.daemon.world.add_worker(process, name, orphan_timeout)
        return Pid(process.pid, process.start)

    def find(self, known: Iterable[int]) -> Sequence[Pid]:
        known = frozenset(known)
        return [Pid(p.pid, p.start) for p in self._host.processes.values() if p.role == "worker" and p.pid not in known]

    def know(self, pid: int) -> None:
        self.known.add(pid)

    def disown(self, pid: int) -> None:
        self.known.discard(pid)

    def watch(self, pid: int, gone: Callable[[], None]) -> SimWatch:
        process = self._host.processes.get(pid)
        if process is None:
            raise ProcessLookupError(pid)
        if not self.daemon.world.calm and self.daemon.dice.random() < 0.02:
            raise OSError("no more descriptors")
        return SimWatch(self, process, gone)

    def kill(self, process: Pid) -> None:
        if self._alive and (found := self._host.find(*process)) is not None:
            self._host.end(found, signal=9)

    async def listen(self, reception: Reception) -> Callable[[], None]:
        self.daemon.reception = reception

        def close() -> None:
            self.daemon.reception = None

        return close

    def alarm(self, ring: Callable[[], None]) -> SimAlarm:
        alarm = SimAlarm(self.daemon, ring)
        self.alarms.append(alarm)
        return alarm

    async def examine(self, subjects: Sequence[Subject]) -> Mapping[int, Reading | None]:
        await asyncio.sleep(self.daemon.dice.random() * 0.01)
        return {subject.pid: self._reading(subject) for subject in subjects}

    def _reading(self, subject: Subject) -> Reading | None:
        process = self._host.processes.get(subject.pid)
        if process is None or subject.created not in {None, float(process.start)}:
            return None
        stopped = process.still and process in self.daemon.world.stopped
        memory = (1 << 40) if not self.daemon.world.calm and self.daemon.dice.random() < 0.01 else 1 << 20
        return Reading(Vitals("T" if stopped else "S", memory, 10, 1.0), float(process.start))

    def group(self, token: int) -> str | None:
        return f"/cgroup/{token}" if self._host.cgroups else None

    def encloses(self, worker: Pid) -> bool:
        del worker
        return True

    async def sweep(self, live: Collection[int], workers: Sequence[Pid]) -> None:
        del workers
        if self._alive and self._host.cgroups:
            for process in tuple(self._host.processes.values()):
                token = process.token
                if token is not None and token not in live and not self._spared(process):
                    self._host.end(process, signal=9)

    def bury(self, worker: Pid) -> None:
        """Attempts are all in cgroups of their own here."""

    def close(self) -> None:
        """There is nothing to leave behind."""

    def _spared(self, process: Process) -> bool:
        return process.kept and process.token in self.daemon.world.disk.kept

    async def end_remains(self, remains: Remains, report: Callable[[str], None]) -> list[str]:
        """End what can be found of an attempt, as the real one does: rounds, until two of them find nothing."""
        del report
        dice, ended, quiet = self.daemon.dice, [], 0
        if not remains.ended:
            self.daemon.world.disk.kept.discard(remains.token)
        while quiet < 2:
            await asyncio.sleep(dice.random() * 0.004)
            found = [one for one in self._host.processes.values() if self._doomed(one, remains)]
            quiet = 0 if found else quiet + 1
            for process in found:
                ended.append(f"{process.pid} {process.role}")
                # Some hang in the kernel for a while.
                late = 2.0 if dice.random() < 0.02 else 0.003
                end = partial(self._host.end, process, signal=9)
                self.daemon.world.scheduler.after(dice.random() * late, end, process)
        return ended

    def _doomed(self, process: Process, remains: Remains) -> bool:
        if process.token is None or self._spared(process):
            return False
        mine = process.token == remains.token
        in_session = process.session == remains.pid and self._leads(remains)
        return (
            (mine and (process.marked or self._host.cgroups))
            or in_session
            or (process.parent == self.daemon.process.pid and process.pid not in self.known)
        )

    def _leads(self, remains: Remains) -> bool:
        leader = self._host.processes.get(remains.pid or 0)
        return leader is None or leader.start == remains.pid_start


class SimFiles:
    """Implements `queuectld.supervisor.machine.Files`."""

    def __init__(self, daemon: SimDaemon) -> None:
        self._daemon = daemon
        self._world = daemon.world

    def outcomes(self) -> Sequence[Filed]:
        self._daemon.looked = True
        return [Filed(Path(str(token)), token, outcome) for token, outcome in self._world.disk.outcomes.items()]

    def outcome(self, token: int) -> Filed | None:
        outcome = self._world.disk.outcomes.get(token)
        return None if outcome is None else Filed(Path(str(token)), token, outcome)

    def remove_outcome(self, token: int) -> None:
        if self._daemon.process.alive and token in self._world.disk.outcomes:
            self._world.checker.unfiled(token)
            del self._world.disk.outcomes[token]

    async def write_inputs(self, claimed: Claimed) -> InputFiles:
        await asyncio.sleep(self._daemon.dice.random() * 0.02)
        if self._world.disk.full:
            raise OSError(28, "no space left on device")
        return InputFiles(stdin=f"/input/{claimed.attempt.token}")

    def remove_inputs(self, token: int) -> None:
        """Nothing reads them."""

    def prune_inputs(self, live: frozenset[int]) -> None:
        """Nothing reads them."""
