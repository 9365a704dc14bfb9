"""A host that is not there: its processes, with parents, sessions and numbers that are reused, and its disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from queuectld.domain.attempt import Outcome
from queuectld.worker.kept import Kept
from queuectld.worker.procfs import Stat
from tests.simulation.scheduler import Actor, Scheduler

STORE = "5" * 32
INIT = 1
_FIRST_PID, _LAST_PID = 100, 400


class Process(Actor):
    """One process. `token` is the attempt that it belongs to in truth, whether that can be seen of it or not."""

    def __init__(self, pid: int, start: int, parent: int, role: str, token: int | None = None) -> None:
        super().__init__()
        self.pid, self.start, self.parent, self.role, self.token = pid, start, parent, role, token
        self.session = pid
        # Whether the marker is in its environment; whether it heeds SIGTERM; whether it is to be left running.
        self.marked = True
        self.deaf = False
        self.kept = False
        # Fled from all that could still find it: nobody promises its end.
        self.escaped = False
        # Has got its SIGKILL; some take their time.
        self.dying = False
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.watchers: list[Callable[[], None]] = []

    @property
    def stat(self) -> Stat:
        return Stat(self.pid, self.role, "S", self.parent, self.session, self.session, self.start)

    @property
    def marker(self) -> bytes | None:
        """What its environment names, which everybody can read."""
        return f"{STORE}/{self.token}".encode() if self.marked and self.token is not None else None


class Host:
    """The processes of one machine, from boot to boot."""

    def __init__(self, scheduler: Scheduler, dice: random.Random, *, cgroups: bool) -> None:
        self._scheduler = scheduler
        self._dice = dice
        self.cgroups = cgroups
        self.boots = 0
        self.booted_at = 0.0
        self.processes: dict[int, Process] = {}
        # Numbers of the dead that their parents have not reaped.
        self.unreaped: dict[int, Process] = {}

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def fork(self, parent: int, role: str, token: int | None = None) -> Process:
        # As long as a session has members, its number is not given out again; nor that of a dead who is not reaped.
        taken = self.processes.keys() | {process.session for process in self.processes.values()}
        taken |= {pid for pid, reaper in self.unreaped.items() if reaper.alive}
        pid = self._dice.randint(_FIRST_PID, _LAST_PID)
        while pid in taken:
            pid = self._dice.randint(_FIRST_PID, _LAST_PID)
        # Of one number, no two start in the same tick: it takes time to come round.
        start = int((self._scheduler.now - self.booted_at) * 1000)
        process = Process(pid, start, parent, role, token)
        self.processes[pid] = process
        return process

    def find(self, pid: int, start: int) -> Process | None:
        process = self.processes.get(pid)
        return process if process is not None and process.start == start else None

    def of_attempt(self, token: int) -> list[Process]:
        return [process for process in self.processes.values() if process.token == token]

    def end(self, process: Process, *, code: int | None = None, signal: int | None = None) -> None:
        """End a process: its children go to the next reaper, and who watches is told."""
        if not process.alive:
            return
        process.alive = False
        process.exit_code, process.signal = code, signal
        del self.processes[process.pid]
        heir = self._reaper(process)
        for child in self.processes.values():
            if child.parent == process.pid:
                child.parent = heir
                # Without a cgroup, its session and its marker, it is found only by who inherits it.
                child.escaped = child.escaped or (heir == INIT and not self.cgroups and not child.marked)
        for gone in process.watchers:
            gone()

    def _reaper(self, process: Process) -> int:
        parent = self.processes.get(process.parent)
        while parent is not None and parent.role not in {"daemon", "worker"}:
            parent = self.processes.get(parent.parent)
        return parent.pid if parent is not None else INIT

    def power_off(self) -> None:
        """End everything at once, and boot again."""
        for process in tuple(self.processes.values()):
            process.alive = False
        for process in tuple(self.processes.values()):
            for gone in process.watchers:
                gone()
        self.processes.clear()
        self.unreaped.clear()
        self.boots += 1
        self.booted_at = self._scheduler.now

    # What everybody can see, whatever the truth.

    def stats(self) -> list[Stat]:
        return [process.stat for process in self.processes.values()]

    def marker(self, pid: int) -> bytes | None:
        process = self.processes.get(pid)
        return None if process is None else process.marker

    def marked(self, marker: bytes) -> list[int]:
        return [process.pid for process in self.processes.values() if process.marker == marker]

    def fenced(self, tokens: Iterable[int]) -> list[int]:
        """Who is in the cgroups of these attempts."""
        tokens = frozenset(tokens)
        return [process.pid for process in self.processes.values() if process.token in tokens] if self.cgroups else []


class Disk:
    """What survives everything but a person: outcome files, and what is noted of processes that are kept."""

    def __init__(self) -> None:
        self.full = False
        # Bytes that commands wrote, by token.
        self.output: dict[int, int] = {}
        self.outcomes: dict[int, Outcome] = {}
        # Of which attempts an outcome was put there by somebody else than their workers.
        self.forged: set[int] = set()
        self.kept: dict[int, Kept] = {}
