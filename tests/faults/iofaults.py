"""Calls of the kernel fail, of the daemon and of its workers, under load: with EIO, ENOSPC, EMFILE, EAGAIN."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from tests.faults.judge import Judge
from tests.faults.load import Load
from tests.faults.suite import Suite, Tally, home, needs_strace
from tests.faults.tracing import attach, failing, injected
from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire
from tests.system.witness import Witness

EXIT_IO: Final = 74
CONFIG: Final[dict[str, Any]] = {"workers": 3, "max_lost": 1000, "shutdown_grace": 0.1, "vitals_interval": 0.2}
# How long clients work with a daemon whose calls fail, in seconds.
_LOAD: Final = 2.0


class Fault(NamedTuple):
    """Which calls fail, how, and from which one on; `length` None: from there on all of them."""

    calls: str
    error: str
    first: range
    length: int | None = None
    # Whether the daemon may end because of it; then with `EXIT_IO`, and the next one has everything.
    fatal: bool = False


# Of the daemon, from its start on. The first calls of a kind belong to the start, the others to the work.
DAEMON: Final = {
    "fsync EIO": Fault("fsync,fdatasync", "EIO", range(1, 60), fatal=True),
    "one fsync EIO": Fault("fsync,fdatasync", "EIO", range(1, 60), 1, fatal=True),
    "write EIO": Fault("pwrite64", "EIO", range(1, 200), 1, fatal=True),
    "read EIO": Fault("pread64", "EIO", range(1, 80), fatal=True),
    "write ENOSPC": Fault("pwrite64", "ENOSPC", range(60, 200), 20),
    "accept EMFILE": Fault("accept4", "EMFILE", range(3, 10), 3),
    # The first ones open modules of the program.
    "open EMFILE": Fault("openat", "EMFILE", range(480, 700), 60, fatal=True),
    # Threads at first, then workers.
    "spawn EAGAIN": Fault("vfork,clone,clone3", "EAGAIN", range(1, 16), 2, fatal=True),
}
# Of a worker, once it is idle; some of them only when there is no daemon.
WORKER: Final = {
    "worker: spawn EAGAIN": Fault("vfork,clone,clone3", "EAGAIN", range(1, 2), 2),
    "worker: pipe EMFILE": Fault("pipe2", "EMFILE", range(1, 3), 2),
    "worker: outcome ENOSPC": Fault("write", "ENOSPC", range(1, 2), 2),
    "worker: outcome fsync EIO": Fault("fsync,fdatasync", "EIO", range(1, 3), 1),
    "worker: rename ENOSPC": Fault("rename,renameat,renameat2", "ENOSPC", range(1, 2), 1),
}
_ALONE: Final = frozenset({"worker: outcome ENOSPC", "worker: outcome fsync EIO", "worker: rename ENOSPC"})


def _when(fault: Fault, luck: random.Random) -> str:
    first = luck.choice(fault.first)
    return f"{first}+" if fault.length is None else f"{first}..{first + fault.length - 1}"


class Faults:
    """One state directory through many of them."""

    def __init__(self, daemon: LiveDaemon, luck: random.Random, tally: Tally) -> None:
        self.daemon, self.luck, self.tally = daemon, luck, tally
        self.witness = Witness(daemon.home / "witness")
        self.load = Load(daemon, self.witness, luck)
        self.judge = Judge(daemon, self.witness, self.load.ledger, tally)
        self._trace = daemon.home / "trace"
        self._number = 0

    def of_daemon(self, name: str) -> None:
        """Have clients work with a daemon to which this happens; then with one to which nothing does."""
        fault = DAEMON[name]
        when = _when(fault, self.luck)
        self.daemon.launch(*failing(fault.calls, fault.error, when, self._trace))
        assert self.daemon.process is not None
        with self.load:
            wait_for(self._answers_or_ended, f"it answers or has ended: {name} {when}", deadline=60)
            limit = time.monotonic() + _LOAD
            while self.daemon.process.poll() is None and time.monotonic() < limit:
                time.sleep(0.01)
            code = self._ended()
        allowed = {0, EXIT_IO} if fault.fatal else {0}
        self.tally.check(
            "a daemon ends with the code for it", other=[] if code in allowed else [f"{name} {when}: {code}"]
        )
        self.tally.fault(name, min(1, injected(self._trace)))
        self._trace.unlink(missing_ok=True)
        self.daemon.start()
        self.judge.look(f"{name} {when}")
        self.daemon.kill()

    def _answers_or_ended(self) -> bool:
        assert self.daemon.process is not None
        return self.daemon.process.poll() is not None or self.daemon.answers()

    def _ended(self) -> int:
        """Ask the daemon itself to end, and not strace, if it has not ended; return its exit code."""
        assert self.daemon.process is not None
        for pid in [] if self.daemon.process.poll() is not None else processes.children(self.daemon.process.pid):
            processes.kill(pid, signal.SIGTERM)
        return self.daemon.process.wait(30)

    def of_worker(self, name: str) -> None:
        """Have a worker to which this happens run a job, without a daemon if that matters; none of it costs a retry."""
        fault, when = WORKER[name], _when(WORKER[name], self.luck)
        self._number += 1
        job, gate = f"w{self._number}", Gate(self.daemon.home / f"gate-{self._number}")
        self.daemon.start()
        with self.daemon.wire() as wire:
            wire.call("worker_start", count=1)
            worker = wait_for(lambda: _idle(wire), "a worker is idle")
            alone = name in _ALONE
            if not alone:
                tracer = attach(self.daemon, worker, failing(fault.calls, fault.error, when, self._trace))
                gate.open()
            wire.enqueue(self.witness.command(f"{gate.wait()}; echo said"), id=job, max_retries=0)
            self.load.ledger.sent[job] = self.load.ledger.acknowledged[job] = "good"
            if alone:
                wait_for(lambda: self.witness.started(job), "it runs")
                tracer = attach(self.daemon, worker, failing(fault.calls, fault.error, when, self._trace))
                self.daemon.kill()
                gate.open()
                wait_for(self._written, "the outcome is written down")
                self.daemon.start()
        self.daemon.wait_for_state(job, "completed", "dead")
        reasons = [one["reason"] for one in self.daemon.history(job)]
        fine = reasons[-1] == "exited" and set(reasons[:-1]) <= (set() if alone else {"host_error"})
        self.tally.check("a fault of the host costs no result", lost=[] if fine else [f"{name} {when}: {reasons}"])
        processes.kill(worker)
        tracer.wait(20)
        self.tally.fault(name, min(1, injected(self._trace)))
        self._trace.unlink(missing_ok=True)
        self.daemon.kill()

    def _written(self) -> bool:
        return any(file.name[0] != "." for file in (self.daemon.state / "outcomes").iterdir())


def _idle(wire: Wire) -> int | None:
    return next((int(one["pid"]) for one in wire.call("worker_list")["workers"] if one["phase"] == "idle"), None)


def attack(tally: Tally, names: Iterable[str], seed: int) -> None:
    """Let these things happen, one after another, to one state directory."""
    luck = random.Random(seed)
    with home() as place, LiveDaemon(place, **CONFIG) as daemon:
        faults = Faults(daemon, luck, tally)
        # The database is there: how its making fails is another matter, with tests of its own.
        daemon.start().kill()
        for name in names:
            (faults.of_daemon if name in DAEMON else faults.of_worker)(name)
        daemon.start()
        faults.judge.look("at the end")
        faults.judge.end()


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Let everything happen so often."""
    names = [name for _ in range(rounds) for name in (*DAEMON, *WORKER)]
    random.Random(seed).shuffle(names)
    attack(tally, names, seed)


SUITE: Final = Suite(
    "io-faults",
    "system calls of daemon and workers fail: EIO on fsync, ENOSPC, EMFILE, EAGAIN at a spawn, …",
    run,
    rounds=10,
    unit="times each",
    hindrance=needs_strace,
)
