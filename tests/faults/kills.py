"""Kill loops: daemons, workers and jobs are killed and stopped at random under load, with witnesses."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Collection
from typing import Any, Final

from tests.faults.judge import Judge
from tests.faults.load import Load
from tests.faults.suite import Suite, Tally, broken, home
from tests.system import processes
from tests.system.livedaemon import LiveDaemon
from tests.system.wire import RefusedError
from tests.system.witness import Witness

CONFIG: Final[dict[str, Any]] = {
    "workers": 4,
    "max_lost": 1000,
    "shutdown_grace": 0.1,
    "max_kill_after": 1,
    # So that what was stopped for good is soon noticed.
    "vitals_interval": 0.2,
    "adopt_timeout": 4,
}
# None of these is noticed by a running job.
GENTLE: Final = frozenset(
    {"daemon killed", "daemon stopped for a moment", "daemon asked to leave its jobs", "program replaced"}
)
# So many faults on one load; then everything is looked at, and the next load begins.
_STRETCH: Final = 100


class Killer:
    """Does one thing after another to whoever belongs to a daemon, which runs again afterwards."""

    def __init__(self, daemon: LiveDaemon, luck: random.Random, tally: Tally, only: Collection[str] = ()) -> None:
        """`only` are the deeds to choose from; none means all."""
        self._daemon, self._luck, self._tally = daemon, luck, tally
        self._deeds: dict[str, tuple[int, Callable[[], bool]]] = {
            "worker killed": (30, lambda: self._signal(self._worker(), signal.SIGKILL)),
            "job killed": (12, lambda: self._signal(self._leader(), signal.SIGKILL)),
            "daemon killed": (22, self._daemon_dies),
            "daemon and a worker killed": (6, self._both_die),
            "worker stopped for a moment": (8, lambda: self._halt(self._worker())),
            "worker stopped for good": (3, lambda: self._signal(self._worker(), signal.SIGSTOP)),
            "job stopped for a moment": (4, lambda: self._halt(self._leader())),
            "daemon stopped for a moment": (5, lambda: self._halt(self._serving())),
            "daemon asked to stop": (3, self._daemon_stops),
            "daemon asked to leave its jobs": (3, self._daemon_leaves),
            "program replaced": (4, self._reexec),
        }
        if only:
            self._deeds = {name: deed for name, deed in self._deeds.items() if name in only}

    def strike(self) -> None:
        """Do one thing, drawn by weight; if there is nobody whom it could meet, another one."""
        while True:
            names = list(self._deeds)
            [name] = self._luck.choices(names, [self._deeds[one][0] for one in names])
            if self._deeds[name][1]():
                self._tally.fault(name)
                return

    # Victims.

    def _serving(self) -> int:
        assert self._daemon.process is not None
        return self._daemon.process.pid

    def _workers(self) -> list[int]:
        state = str(self._daemon.state)
        return [
            one.pid for one in processes.of(self._daemon.home) if f"queuectld.worker --state {state} " in one.command
        ]

    def _worker(self) -> int | None:
        workers = self._workers()
        return self._luck.choice(workers) if workers else None

    def _leader(self) -> int | None:
        leaders = [child for worker in self._workers() for child in processes.children(worker)]
        return self._luck.choice(leaders) if leaders else None

    # Deeds.

    def _signal(self, pid: int | None, number: int) -> bool:
        if pid is None:
            return False
        processes.kill(pid, number)
        return True

    def _halt(self, pid: int | None) -> bool:
        if not self._signal(pid, signal.SIGSTOP):
            return False
        time.sleep(self._luck.uniform(0.02, 0.4))
        return self._signal(pid, signal.SIGCONT)

    def _rest(self) -> None:
        """Leave the workers alone for a while, so that some write down how their commands ended."""
        time.sleep(self._luck.choice((0, 0, 0.1, 0.4)))
        self._daemon.start()

    def _daemon_dies(self) -> bool:
        self._daemon.kill()
        self._rest()
        return True

    def _both_die(self) -> bool:
        worker = self._worker()
        victims = [self._serving(), *([worker] if worker else [])]
        self._luck.shuffle(victims)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        self._daemon.kill()
        self._rest()
        return True

    def _daemon_stops(self) -> bool:
        code = self._daemon.stop()
        left = processes.of(self._daemon.home)
        self._tally.check("a stop ends well", other=[f"exit code {code}"] if code else [], left_over=left)
        self._daemon.start()
        return True

    def _daemon_leaves(self) -> bool:
        with contextlib.suppress(ConnectionError), self._daemon.wire() as wire:
            wire.call("shutdown", mode="leave")
        assert self._daemon.process is not None
        code = self._daemon.process.wait(30)
        self._tally.check("a stop ends well", other=[f"exit code {code}"] if code else [])
        self._rest()
        return True

    def _reexec(self) -> bool:
        try:
            with self._daemon.wire() as wire:
                wire.call("reexec")
        except RefusedError as error:
            self._tally.check("the program can be replaced", other=[str(error)])
        except ConnectionError:
            # It gave way before it could say so.
            pass
        return True


def run(tally: Tally, rounds: int, seed: int, mutant: str | None = None, only: Collection[str] = ()) -> None:
    """Strike so often, with one of the deeds in `only`; none means all."""
    luck = random.Random(seed)
    with home() as place, LiveDaemon(place, **CONFIG) as daemon:
        daemon.env |= broken(mutant)
        witness = Witness(place / "witness")
        daemon.start()
        load = Load(daemon, witness, luck)
        judge = Judge(daemon, witness, load.ledger, tally)
        killer = Killer(daemon, luck, tally, only)
        for first in range(0, rounds, _STRETCH):
            with load:
                for _ in range(min(_STRETCH, rounds - first)):
                    time.sleep(luck.uniform(0, 0.15))
                    killer.strike()
            judge.look(
                f"after {tally.faults.total()} faults, seed {seed}", undisturbed=bool(only) and GENTLE.issuperset(only)
            )
        judge.end()


SUITE: Final = Suite(
    "kills",
    "daemons, workers and jobs are killed, stopped, replaced at random under load",
    run,
    rounds=3000,
    unit="faults",
)


def run_gently(tally: Tally, rounds: int, seed: int) -> None:
    """Strike so often at the daemon alone."""
    run(tally, rounds, seed, only=GENTLE)


DAEMON_SUITE: Final = Suite(
    "daemon-kills",
    "the daemon alone is killed, stopped and replaced at random under load: no job notices",
    run_gently,
    rounds=1000,
    unit="faults",
)
