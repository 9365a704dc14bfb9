"""Everything at once and at random: nothing stalls, nothing runs twice at the same time, nothing is left."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.system import processes
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire
from tests.system.witness import Witness

BODIES = (":", "sleep 0.05", "sleep 0.2", "(exit 3)", "setsid sleep 0.3 & sleep 0.05", "trap '' TERM; sleep 0.3")
STEPS = 90


class Load:
    """One random step after the other; the same seed gives the same ones."""

    def __init__(self, daemon: LiveDaemon, witness: Witness, seed: int) -> None:
        self._daemon = daemon
        self._witness = witness
        self._luck = random.Random(seed)
        self._jobs: list[str] = []
        self._steps: dict[Callable[[Wire], object], int] = {
            self._enqueue: 55,
            self._cancel: 12,
            self._retry: 8,
            self._other_bound: 4,
            self._pause_workers: 4,
            self._kill_worker: 12,
        }

    def step(self) -> None:
        """Ask for something; what is refused, since the job has moved on meanwhile, is refused."""
        [step] = self._luck.choices(list(self._steps), list(self._steps.values()))
        with contextlib.suppress(RefusedError), self._daemon.wire() as wire:
            step(wire)

    def _enqueue(self, wire: Wire) -> None:
        jobs = [self._job() for _ in range(self._luck.choice([1, 1, 2, 5]))]
        wire.call("enqueue", jobs=jobs)

    def _job(self) -> dict[str, object]:
        self._jobs.append(f"j{len(self._jobs)}")
        command = self._witness.command(f"( {self._luck.choice(BODIES)} )")
        job = {"id": self._jobs[-1], "command": command, "max_retries": 1, "backoff_base": 0.1}
        extra = self._luck.choice([{}, {}, {"delay": self._luck.random()}, {"stdin": "text"}])
        return job | extra

    def _cancel(self, wire: Wire) -> None:
        wire.call("cancel", select={"ids": self._recent()}, no_wait=self._luck.random() < 0.5)

    def _retry(self, wire: Wire) -> None:
        wire.call("retry", select={"ids": self._recent()})

    def _recent(self) -> list[str]:
        return [self._luck.choice(self._jobs[-10:] or ["none"])]

    def _other_bound(self, wire: Wire) -> None:
        wire.call("worker_start", count=self._luck.randint(1, 4))

    def _pause_workers(self, wire: Wire) -> None:
        wire.call("worker_stop", now=self._luck.random() < 0.5)
        time.sleep(self._luck.uniform(0, 0.2))
        wire.call("worker_start", count=3)

    def _kill_worker(self, wire: Wire) -> None:
        if pids := [worker["pid"] for worker in wire.call("worker_list")["workers"]]:
            processes.kill(self._luck.choice(pids))

    def change_daemon(self) -> None:
        """Another daemon takes over, in one way or the other."""
        process = self._daemon.process
        assert process is not None
        how = self._luck.random()
        if how < 0.2:
            assert self._daemon.stop() == 0
            assert processes.of(self._daemon.home) == []
        elif how < 0.5:
            process.send_signal(signal.SIGTERM)
            time.sleep(self._luck.uniform(0, 0.5))
        elif how < 0.6:
            self._daemon.kill()
            self._daemon.launch()
            time.sleep(self._luck.uniform(0, 0.3))
        self._daemon.kill()
        self._daemon.start()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_mix_of_everything_stalls_nowhere_and_leaves_nothing(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, seed: int
) -> None:
    # No look at the workers' health hides that nobody looked after a job.
    daemon = new_daemon(
        workers=3, max_lost=1000, vitals_interval=3600, adopt_timeout=3, shutdown_grace=0.3, kill_after=0.5
    ).start()
    load = Load(daemon, witness, seed)

    for number in range(STEPS):
        load.step()
        if number % 15 == 14:
            load.change_daemon()
    with daemon.wire() as wire:
        wire.call("worker_start", count=3)
    wait_for(lambda: set(daemon.counts()) <= {"completed", "dead", "cancelled"}, "all jobs are over", deadline=30)

    assert witness.overlaps() == []
    assert witness.repeated() == []
    assert daemon.stop() == 0
    assert processes.of(daemon.home) == []
    assert list((daemon.state / "input").iterdir()) == []
    assert list((daemon.state / "outcomes").iterdir()) == []
