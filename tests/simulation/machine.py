"""The ports of the supervisor to a host and a disk that are not there. A dead daemon's hands do nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from queuectld.service.account import Account, NoAnswerError, NoSuchAccountError
from queuectld.service.attempts import Claimed
from queuectld.service.run_spec import InputFiles
from queuectld.supervisor.kept import Spared, spared_among
from queuectld.supervisor.machine import Process as Pid
from queuectld.supervisor.machine import Reception
from queuectld.supervisor.plan import Vitals
from queuectld.supervisor.recovery import Filed
from queuectld.supervisor.rescue import Remains, Round, Scene, kill_set, until_nothing_is_left
from queuectld.supervisor.vitals import Reading, Subject
from queuectld.worker.procfs import Stat
from tests.simulation.checker import SECRET
from tests.simulation.host import STORE, Process

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


class SimAccounts:
    """Implements `queuectld.supervisor.accounts.Accounts`."""

    def __init__(self, daemon: SimDaemon) -> None:
        self._daemon = daemon

    def known(self, owner: str) -> Account | None:
        if self._daemon.world.calm or self._daemon.dice.random() < 0.7:
            return Account(owner, "/", {"SECRET": SECRET})
        return None

    async def find(self, owner: str) -> Account:
        dice, figures = self._daemon.dice, self._daemon.world.figures
        await asyncio.sleep(dice.random() * dice.choice((0.001, 0.02, 2.0)))
        luck = 1.0 if self._daemon.world.calm else dice.random()
        if luck < 0.05:
            figures.case("the owner of a job is no user any more")
            raise NoSuchAccountError("nobody")
        if luck < 0.1:
            figures.case("nobody tells who the owner of a job is")
            raise NoAnswerError("no answer")
        return Account(owner, "/", {"SECRET": SECRET})


class SimMachine:
    """Implements `queuectld.supervisor.machine.Machine`."""

    def __init__(self, daemon: SimDaemon, known: Iterable[int]) -> None:
        self.daemon = daemon
        self._host, self._disk, self._figures = daemon.world.host, daemon.world.disk, daemon.world.figures
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
        if not self._alive:
            raise OSError("it is dead")
        if not self.daemon.world.calm and self.daemon.dice.random() < 0.03:
            self._figures.case("the host cannot start a worker")
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
            self._figures.case("the host cannot watch a worker yet")
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
        self._prune()
        return {subject.pid: self._reading(subject) for subject in subjects}

    def _reading(self, subject: Subject) -> Reading | None:
        process = self._host.processes.get(subject.pid)
        if process is None or subject.created not in {None, float(process.start)}:
            return None
        stopped = process.still and process in self.daemon.world.stopped
        memory = 1 << 20
        if not self.daemon.world.calm and self.daemon.dice.random() < 0.01:
            memory = 1 << 40
            self._figures.case("a worker grows too large")
        return Reading(Vitals("T" if stopped else "S", memory, 10, 1.0), float(process.start))

    def group(self, token: int) -> str | None:
        return f"/cgroup/{token}" if self._host.cgroups else None

    def encloses(self, worker: Pid) -> bool:
        del worker
        return True

    async def sweep(self, live: Collection[int], workers: Sequence[Pid]) -> None:
        del workers
        self._prune()
        kept = self._disk.kept
        for token in {p.token for p in self._host.processes.values() if p.token is not None} - {*live, *kept}:
            self._end_group(self._host.fenced([token]), self._spared(self._host.stats()))

    def bury(self, worker: Pid) -> None:
        """Attempts are all in cgroups of their own here."""

    def close(self) -> None:
        """There is nothing to leave behind."""

    # What is left, and what is kept. What is which, the product decides.

    def _spared(self, processes: list[Stat]) -> Spared:
        kept = self._disk.kept
        known = [one for found in kept.values() if found.boot == self.boot_id for one in found.processes]
        markers = frozenset(f"{STORE}/{token}".encode() for token in kept)
        return Spared(spared_among(processes, known, self._host.fenced(kept)), markers)

    def _prune(self) -> None:
        for token, kept in tuple(self._disk.kept.items()) if self._alive else ():
            found = any(self._host.find(*one) for one in kept.processes) or self._host.fenced([token])
            if kept.boot != self.boot_id or not (found or self._host.marked(f"{STORE}/{token}".encode())):
                del self._disk.kept[token]
                if kept.boot == self.boot_id:
                    self._figures.case("a kept process has gone by itself")

    def _drop_kept(self, token: int) -> None:
        if self._disk.kept.pop(token, None) is not None:
            self._figures.case("what was to be kept is ended, for its command was lost")
        for process in self._host.of_attempt(token):
            process.kept = False

    async def end_remains(self, remains: Remains, report: Callable[[str], None]) -> list[str]:
        def told(what: str) -> None:
            self._figures.case("a process that does not die is told of")
            report(what)

        if not remains.ended:
            self._drop_kept(remains.token)
        return await until_nothing_is_left(partial(self._kill_round, remains), told)

    async def _kill_round(self, remains: Remains) -> Round:
        await asyncio.sleep(self.daemon.dice.random() * 0.004)
        host = self._host
        processes, fenced = host.stats(), host.fenced([remains.token])
        spared = self._spared(processes)
        scene = Scene(
            processes=processes,
            me=self.daemon.process.pid,
            household=self.known,
            spared=spared,
            fenced=fenced,
            marked=host.marked(remains.marker.encode()),
            marker=host.marker,
        )
        found = kill_set(remains, scene)
        if found:
            self._figures.case("what a dead worker left is ended by the daemon")
            if spared.pids:
                self._figures.case("what is kept lives on while another attempt's is ended")
        populated = self._end_group(fenced, spared)
        for one in found:
            self._slay(one.pid)
        return Round(found, populated)

    def _end_group(self, group: list[int], spared: Spared) -> bool:
        if not group or not spared.pids.isdisjoint(group):
            return False
        for pid in group:
            self._slay(pid)
        return True

    def _slay(self, pid: int) -> None:
        """SIGKILL; some hang in the kernel for a while."""
        world, process = self.daemon.world, self._host.processes[pid]
        world.checker.slain(process)
        if not process.dying:
            process.dying = True
            luck = self.daemon.dice.random()
            late = 90.0 if luck < 0.06 else 2.0 if luck < 0.08 else 0.003
            world.scheduler.after(self.daemon.dice.random() * late, partial(self._host.end, process, signal=9), process)


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
            self._world.adversary.struck("fill disk")
            self._world.figures.case("the input of a command cannot be written")
            raise OSError(28, "no space left on device")
        return InputFiles(stdin=f"/input/{claimed.attempt.token}")

    def remove_inputs(self, token: int) -> None:
        """Nothing reads them."""

    def prune_inputs(self, live: frozenset[int]) -> None:
        """Nothing reads them."""
