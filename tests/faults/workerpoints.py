"""A worker dies at the N-th call of each kind: beside its daemon, and without one, when it writes down an outcome."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

from tests.faults.crashpoints import numbers
from tests.faults.suite import Suite, Tally, home, needs_strace
from tests.faults.tracing import attach, counted, counting, killing
from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire
from tests.system.witness import Witness

# What a worker does for a job while its daemon lives.
BESIDE: Final = {
    "spawn": "vfork,clone,clone3",
    "message": "sendto,sendmsg",
    "output": "write,pwrite64",
    "watch": "pidfd_open,waitid,wait4",
    "kill": "kill,pidfd_send_signal",
    "group": "mkdir,mkdirat,rmdir",
}
# And when there is none.
ALONE: Final = {
    "outcome": "write",
    "sync": "fsync,fdatasync",
    "rename": "rename,renameat,renameat2",
    "connect": "connect",
}
CONFIG: Final[dict[str, Any]] = {"workers": 1, "max_lost": 1000, "shutdown_grace": 0.1}


class Rounds:
    """One state directory through the deaths of many workers."""

    def __init__(self, daemon: LiveDaemon, tally: Tally) -> None:
        self.daemon, self.tally = daemon, tally
        self.witness = Witness(daemon.home / "witness")
        self._number = 0

    def survives(self, prefix: tuple[str, ...], *, alone: bool) -> bool:
        """Have a worker that dies as `prefix` has it run a job; return whether it came through."""
        self._number += 1
        gate = Gate(self.daemon.home / f"gate-{self._number}")
        job = f"n{self._number}"
        with self.daemon.wire() as wire:
            wire.call("worker_start", count=1)
            worker = wait_for(lambda: _idle(wire), "a worker is idle")
            if not alone:
                gate.open()
                tracer = attach(self.daemon, worker, prefix)
            # Leaves a process behind, whose arguments name the directory: so it is found if it survives.
            body = f"(sh -c 'while :; do sleep 1; done' {self.daemon.home} &) ; echo said; {gate.wait()}"
            wire.enqueue(self.witness.command(body), id=job, max_retries=0, kill_after=0.2)
            if alone:
                wait_for(lambda: self.witness.started(job), "it runs")
                tracer = attach(self.daemon, worker, prefix)
                self._without_daemon(worker, gate)
        self.daemon.wait_for_state(job, "completed", "dead")
        lived = processes.alive(worker)
        if lived:
            processes.kill(worker)
        tracer.wait(20)
        self._check(job, lived=lived)
        return lived

    def _without_daemon(self, worker: int, gate: Gate) -> None:
        outcomes = self.daemon.state / "outcomes"
        self.daemon.kill()
        gate.open()
        wait_for(
            lambda: not processes.alive(worker) or [one for one in outcomes.iterdir() if one.name[0] != "."],
            "it dies, or has written down the outcome",
        )
        self.daemon.start()

    def _check(self, job: str, *, lived: bool) -> None:
        check = self.tally.check
        reasons = [attempt["reason"] for attempt in self.daemon.history(job)]
        state = self.daemon.state_of(job)
        check("a job whose worker died runs to its end", lost=[] if state == "completed" else [f"{job} is {state}"])
        fine = reasons[-1] == "exited" and set(reasons[:-1]) <= (set() if lived else {"lost", "interrupted"})
        check("a death costs an attempt at most", doubled=[] if fine else [f"{job}: {reasons}"])
        check("output is complete", lost=[] if self.daemon.output(job) == b"said\n" else [job])
        check("attempts do not overlap", doubled=self.witness.overlaps())
        check("no attempt and no token begins twice", doubled=self.witness.repeated())
        left = [one for one in processes.of(self.daemon.home) if "while :;" in one.command]
        check("no process is left", left_over=left)


def _idle(wire: Wire) -> int | None:
    workers = wire.call("worker_list")["workers"]
    return next((int(one["pid"]) for one in workers if one["phase"] == "idle"), None)


def attack(tally: Tally, kinds: Iterable[str], rounds: int, seed: int) -> None:
    """Let workers die at up to `rounds` calls of each of these kinds, of `BESIDE` and `ALONE`."""
    luck = random.Random(seed)
    with home() as place, LiveDaemon(place, **CONFIG) as daemon:
        daemon.start()
        all_ = Rounds(daemon, tally)
        for kind in kinds:
            alone = kind in ALONE
            calls = ALONE[kind] if alone else BESIDE[kind]
            file = place / f"calls-{kind}"
            all_.survives(counting(calls, file), alone=alone)
            for number in numbers(counted(file), rounds, luck):
                if not all_.survives(killing(calls, number), alone=alone):
                    tally.fault(f"worker at {kind}")
        tally.runs += sum(line.what == "start" for line in all_.witness.lines())


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Let workers die at up to so many calls of each kind."""
    attack(tally, [*BESIDE, *ALONE], rounds, seed)


SUITE: Final = Suite(
    "worker-crash-points",
    "a worker is killed at its N-th message, spawn, write, and while it writes down an outcome without a daemon",
    run,
    rounds=10_000,
    unit="calls of each kind, or as many as there are",
    hindrance=needs_strace,
)
