"""How soon a job runs again whose worker was killed, all workers busy; how soon a daemon is back with many jobs."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

from queuectld.domain.job import Job
from queuectld.domain.spec import JobSpec
from queuectld.store.sqlite import open_store
from tests.bench.figures import percentile
from tests.faults.suite import Suite, Tally, home
from tests.system import processes
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.witness import Line, Witness

WORKERS: Final = 4
CONFIG: Final[dict[str, Any]] = {"workers": WORKERS, "max_lost": 1000, "shutdown_grace": 0.1}
_BATCH: Final = 20_000


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Kill so many workers; then restart a daemon that has 5,000 jobs for each of them, so a million in a long run."""
    rescues(tally, rounds, seed)
    restarts(tally, rounds * 5000)


def rescues(tally: Tally, rounds: int, seed: int) -> None:
    """Kill one worker after the other, all of them busy, and measure from each kill to the start of its job again."""
    luck, took = random.Random(seed), list[float]()
    with home() as place, LiveDaemon(place, **CONFIG) as daemon:
        witness = Witness(place / "witness")
        daemon.start()
        with daemon.wire() as wire:
            wire.call("worker_start", count=WORKERS)
            # As many wait as run: the one that is rescued has to come before them.
            for number in range(2 * WORKERS):
                wire.enqueue(witness.command("sleep 10000"), id=f"n{number}")
        running = wait_for(lambda: _running(daemon, witness), "all workers are busy")
        for _ in range(rounds):
            job = luck.choice(sorted(running))
            seconds, left = _rescue(daemon, witness, job, running[job])
            took.append(seconds)
            tally.fault("worker killed")
            tally.check("no process is left when the job runs again", left_over=left)
            running = wait_for(lambda: _running(daemon, witness), "all workers are busy")
        tally.check("attempts do not overlap", doubled=witness.overlaps())
        tally.check("no attempt and no token begins twice", doubled=witness.repeated())
        tally.check(
            "the same jobs run as before", other=[] if set(running) == {f"n{n}" for n in range(WORKERS)} else [running]
        )
        tally.runs += len(witness.lines())
    shown = {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "max": max(took)}
    told = ", ".join(f"{name} {value * 1000:.0f} ms" for name, value in shown.items())
    tally.figures[f"a killed worker's job runs again, of {len(took)} with all workers busy"] = told


def _running(daemon: LiveDaemon, witness: Witness) -> dict[str, int]:
    """Return which worker runs which job, if all do and each job has said so itself; else nothing."""
    found = {one["job"]: one["pid"] for one in daemon.workers() if one["phase"] == "running" and one["job"]}
    told = {line.job: line.attempt for line in witness.lines()}
    with daemon.wire() as wire:
        begun = [name for name in found if told.get(name) == wire.job(name)["attempts"]]
    return found if len(begun) == WORKERS else {}


def _rescue(daemon: LiveDaemon, witness: Witness, job: str, worker: int) -> tuple[float, list[processes.Process]]:
    """Kill a worker; return the seconds to the next start of its job, and what was left of the last one then."""
    last = witness.of(job)[-1]
    before = processes.look(last.pid)
    size = witness.path.stat().st_size
    begin = time.monotonic()
    os.kill(worker, signal.SIGKILL)

    def again() -> Line | None:
        # A short look at the file, so that looking costs no time that would count.
        if witness.path.stat().st_size == size:
            return None
        return witness.started(job, last.attempt + 1)

    wait_for(again, "the job runs again", every=0.001)
    took = time.monotonic() - begin
    return took, [before] if before and processes.look(last.pid) == before else []


def restarts(tally: Tally, count: int) -> None:
    """Store so many jobs, and measure from the start of a daemon to its first answer, after its end and its death."""
    with home() as place, LiveDaemon(place, workers=0) as daemon:
        daemon.start()
        daemon.stop()
        fill(daemon.state / "queue.db", count)
        took = {}
        for how in ("stopped", "killed"):
            begin = time.monotonic()
            daemon.start()
            took[how] = time.monotonic() - begin
            with daemon.wire() as wire:
                counted = wire.counts().get("pending")
            tally.check("all jobs are there", lost=[] if counted == count else [f"{counted} of {count}"])
            daemon.kill() if how == "stopped" else daemon.stop()
            tally.fault(f"daemon {how} with many jobs")
        told = ", ".join(f"{seconds:.2f} s after it was {how}" for how, seconds in took.items())
        tally.figures[f"a daemon answers again with {count:,} jobs stored"] = told


def fill(database: Path, count: int) -> None:
    """Store so many jobs, as the daemon does, but many to a commit."""
    store = open_store(database)
    now = time.time()
    made: dict[str, Any] = {"seq": 0, "id": "", "spec": JobSpec(command="true"), "owner": "x", "created_at": now}
    # Half of them could run now, half wait for tomorrow.
    drafts = [Job(**made, updated_at=now, due=due, rank=due) for due in (now, now + 86400)]
    for first in range(0, count, _BATCH):
        with store.transaction():
            store.add((drafts * _BATCH)[: min(_BATCH, count - first)])
        store.take_entries()
    store.close()


SUITE: Final = Suite(
    "rescue",
    "workers are killed while all are busy: how soon their jobs run again; restarts with a million jobs",
    run,
    rounds=200,
    unit="workers killed, 5,000 jobs stored for each",
)
