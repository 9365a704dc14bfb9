"""Soak: a mixed load for a long time, and samples of what is used meanwhile; what grows slowly shows as a slope."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import psutil

from tests.faults.judge import Judge
from tests.faults.load import Client, Ledger, Load
from tests.faults.suite import Suite, Tally, home
from tests.system import processes
from tests.system.bystander import MIB
from tests.system.livedaemon import LiveDaemon
from tests.system.wire import RefusedError, Wire
from tests.system.witness import Witness

CONFIG: Final[dict[str, Any]] = {
    "workers": 4,
    "max_lost": 1000,
    "shutdown_grace": 0.1,
    "max_kill_after": 1,
    "vitals_interval": 0.5,
    "adopt_timeout": 2,
}
# Seconds between two samples.
_EVERY: Final = 0.5
# Seconds until what a daemon keeps ready is there: SQLite's pages (8 MiB and a MiB for each reader) fill with the first
# jobs, and the allocator keeps what the busiest moments took. Under this load its memory grew from 25 to 44 MiB in
# 160 s, and by less than 1 MiB in the 4 minutes behind; the number of Python's objects was the same all the time.
_WARM: Final = 180.0
# Growth is told from what comes behind that, at least the later two thirds of a life, if they last so many seconds.
_STRETCH: Final = 180.0


class Bound(NamedTuple):
    # Of each sample; None: none.
    most: float | None
    # Of the slope, an hour; None: it may grow.
    hourly: float | None
    unit: str = ""


BOUNDS: Final[dict[str, Bound]] = {
    "daemon memory": Bound(96, 24, "MiB"),
    "daemon descriptors": Bound(160, 60),
    "daemon threads": Bound(24, 30),
    "daemon zombies": Bound(8, None),
    "WAL": Bound(64, None, "MiB"),
    "worker memory": Bound(24, None, "MiB"),
    "worker descriptors": Bound(24, None),
    "worker threads": Bound(1, None),
    "worker zombies": Bound(64, None),
    "workers": Bound(2 * CONFIG["workers"], None),
}


class Sample(NamedTuple):
    at: float
    value: float


def slope(samples: Sequence[Sample]) -> float:
    """Return by how much the values grow an hour, as a straight line through all of them has it."""
    count = len(samples)
    if count < 2:
        return 0.0
    middle = sum(one.at for one in samples) / count
    level = sum(one.value for one in samples) / count
    spread = sum((one.at - middle) ** 2 for one in samples)
    if not spread:
        return 0.0
    return 3600 * sum((one.at - middle) * (one.value - level) for one in samples) / spread


class Gauge(threading.Thread):
    """Looks at the daemon and its workers over and over. A life is the time of one program in one process."""

    def __init__(self, daemon: LiveDaemon) -> None:
        super().__init__(name="gauge", daemon=True)
        self._daemon = daemon
        self._over = threading.Event()
        self.life = 0
        # By name and life.
        self.samples: dict[str, dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))

    def run(self) -> None:
        while not self._over.wait(_EVERY):
            life = self.life
            # Who is just being replaced has nothing to tell.
            with contextlib.suppress(psutil.Error, OSError):
                self._look(life)

    def finish(self) -> None:
        self._over.set()
        self.join()

    def _look(self, life: int) -> None:
        assert self._daemon.process is not None
        daemon = psutil.Process(self._daemon.process.pid)
        family = daemon.children()
        self._note(life, "daemon memory", daemon.memory_full_info().uss / MIB)
        self._note(life, "daemon descriptors", daemon.num_fds())
        self._note(life, "daemon threads", daemon.num_threads())
        self._note(life, "daemon zombies", sum(_state(one) == psutil.STATUS_ZOMBIE for one in family))
        wal = self._daemon.state / "queue.db-wal"
        self._note(life, "WAL", wal.stat().st_size / MIB if wal.exists() else 0)
        state = str(self._daemon.state)
        # Of an earlier daemon too, that are no children of this one.
        workers = [
            psutil.Process(one.pid)
            for one in processes.of(self._daemon.home)
            if f"queuectld.worker --state {state} " in one.command
        ]
        self._note(life, "workers", len(workers))
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                self._worker(life, worker)

    def _worker(self, life: int, worker: psutil.Process) -> None:
        self._note(life, "worker memory", worker.memory_full_info().uss / MIB)
        self._note(life, "worker descriptors", worker.num_fds())
        self._note(life, "worker threads", worker.num_threads())
        zombies = sum(_state(one) == psutil.STATUS_ZOMBIE for one in worker.children())
        self._note(life, "worker zombies", zombies)

    def _note(self, life: int, name: str, value: float) -> None:
        self.samples[name][life].append(Sample(time.monotonic(), value))


def _state(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.Error:
        return ""


class Looker(Client):
    """Lists, counts, looks at jobs, follows their output, asks how all are, changes a key, and comes and goes."""

    def __init__(self, daemon: LiveDaemon, ledger: Ledger, name: str, luck: random.Random) -> None:
        super().__init__(daemon, name)
        self._ledger, self._luck = ledger, luck

    def talk(self, wire: Wire) -> None:
        for _ in range(self._luck.randrange(1, 50)):
            if self.over.is_set():
                return
            with contextlib.suppress(RefusedError):
                self._luck.choice(self._deeds())(wire)
            self.over.wait(self._luck.uniform(0, 0.05))

    def _deeds(self) -> list[Callable[[Wire], Any]]:
        names = list(self._ledger.acknowledged)
        job = self._luck.choice(names) if names else "none"
        return [
            lambda wire: wire.call("list", limit=100, reverse=True),
            lambda wire: wire.call("list", select={"state": ["dead"]}, limit=10),
            lambda wire: wire.call("count", select={"command": "*said*"}),
            lambda wire: wire.call("status"),
            lambda wire: wire.call("get", job=job),
            lambda wire: wire.call("worker_list"),
            lambda wire: wire.call("config_list"),
            lambda wire: wire.call("config_set", key="jitter", value=self._luck.choice((0, 0.1))),
            lambda wire: wire.call("stage", key="in", data="x" * 100_000),
            lambda wire: list(wire.stream("logs", jobs=[job])),
            lambda wire: list(wire.stream("events", start=1, limit=100)),
            lambda wire: list(wire.stream("wait", select={"ids": [job]})),
            # Neither of them is true of anything.
            lambda wire: wire.call("retry", select={"ids": [job]}, dry_run=True),
            lambda wire: wire.call("enqueue", jobs=[{"command": "true", "queue": "nowhere"}]),
        ]


class Trouble:
    """What happens to daemon and workers meanwhile, at times drawn by luck."""

    def __init__(self, daemon: LiveDaemon, gauge: Gauge, luck: random.Random, tally: Tally) -> None:
        self._daemon, self._gauge, self._luck, self._tally = daemon, gauge, luck, tally

    def make(self, seconds: float) -> None:
        """Go on for so long. The program is replaced in the first third; its last life is long enough to see growth."""
        begin = time.monotonic()
        changes = [self._replace, self._kill, self._replace, self._restart]
        due = [begin + seconds * (number + 1) / 3 / len(changes) for number in range(len(changes))]
        while (now := time.monotonic()) < begin + seconds:
            if due and now >= due[0]:
                due.pop(0)
                changes.pop(0)()
                self._gauge.life += 1
            time.sleep(min(self._luck.uniform(0.5, 3), seconds / 20))
            self._worker_dies()

    def _worker_dies(self) -> None:
        with contextlib.suppress(OSError, RefusedError):
            workers = self._daemon.workers()
            if workers:
                processes.kill(self._luck.choice(workers)["pid"], signal.SIGKILL)
                self._tally.fault("worker killed")

    def _replace(self) -> None:
        with contextlib.suppress(ConnectionError), self._daemon.wire() as wire:
            wire.call("reexec")
        self._tally.fault("program replaced")

    def _kill(self) -> None:
        self._daemon.again()
        self._tally.fault("daemon killed")

    def _restart(self) -> None:
        code = self._daemon.stop()
        self._tally.check("a stop ends well", other=[f"exit code {code}"] if code else [])
        self._daemon.start()
        self._tally.fault("daemon stopped and started")


def attack(tally: Tally, seconds: float, seed: int) -> None:
    """Keep it busy for so long."""
    luck = random.Random(seed)
    with home() as place, LiveDaemon(place, **CONFIG) as daemon:
        daemon.start()
        witness = Witness(place / "witness")
        load = Load(daemon, witness, luck, submitters=2)
        gauge = Gauge(daemon)
        lookers = [Looker(daemon, load.ledger, f"looker{n}", random.Random(luck.random())) for n in range(2)]
        gauge.start()
        with load:
            for looker in lookers:
                looker.start()
            Trouble(daemon, gauge, luck, tally).make(seconds)
            for looker in lookers:
                looker.finish()
        gauge.finish()
        weigh(gauge, tally)
        judge = Judge(daemon, witness, load.ledger, tally)
        judge.look(f"after {seconds:.0f} s, seed {seed}")
        judge.end()


def weigh(gauge: Gauge, tally: Tally) -> None:
    """Hold all samples to their bounds, and the longest lives to theirs of growth."""
    for name, bound in BOUNDS.items():
        lives = gauge.samples[name]
        values = [one.value for samples in lives.values() for one in samples]
        if not values:
            tally.check("what is used is bounded", other=[f"{name} was never looked at"])
            continue
        unit = f" {bound.unit}" if bound.unit else ""
        ordered = sorted(values)
        told = f"{ordered[len(ordered) // 2]:.1f}, at most {ordered[-1]:.1f}{unit}"
        growth = growing(lives)
        told += "" if math.isnan(growth) else f", {growth:+.1f} an hour"
        if bound.hourly is not None and math.isnan(growth):
            told += f", growth not judged in less than {_WARM + _STRETCH:.0f} s"
        tally.figures[name] = told
        over = bound.most is not None and ordered[-1] > bound.most
        tally.check("what is used is bounded", other=[f"{name}: {told}, not {bound.most:g}"] if over else [])
        if bound.hourly is not None and not math.isnan(growth):
            grows = [f"{name}: {told}, not {bound.hourly:g}"] if growth > bound.hourly else []
            tally.check("nothing grows for ever", other=grows)


def growing(lives: dict[int, list[Sample]]) -> float:
    """Return the least growth of the lives that were long enough: a leak is in each; NaN if there was none."""
    found = []
    for samples in lives.values():
        begun = samples[0].at
        warm = [one for one in samples[len(samples) // 3 :] if one.at >= begun + _WARM]
        if warm and warm[-1].at - warm[0].at >= _STRETCH:
            found.append(slope(warm))
    return min(found, default=math.nan)


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Keep it busy for so many minutes."""
    attack(tally, rounds * 60.0, seed)


SUITE: Final = Suite(
    "soak",
    "a mixed load while workers die and the program is replaced: memory, files, threads, zombies and log stay bounded",
    run,
    rounds=20,
    unit="minutes",
)
