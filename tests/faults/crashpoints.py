"""The daemon dies at the N-th call of each kind that matters, start and recovery included; the next one puts all right.

Every crash point of the design lies between two of these calls: before and after a commit (`fdatasync`), between a
commit and its message (`sendto`), at the start of a worker (`vfork`), at the removal of an outcome file (`unlink`).
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.faults.suite import Suite, Tally, broken, home, needs_strace
from tests.faults.tracing import counted, counting, killing
from tests.system import processes
from tests.system.conftest import SURPRISES
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire
from tests.system.witness import Witness

# Calls with the same effect, of which a library picks one.
CALLS: Final = {
    "commit": "fsync,fdatasync",
    "write": "pwrite64",
    "message": "sendto,sendmsg",
    "spawn": "vfork,clone,clone3",
    "remove": "unlink,unlinkat",
    "rename": "rename,renameat,renameat2",
    "connect": "accept4,pidfd_open",
    "group": "mkdir,mkdirat,rmdir",
}
_OVER: Final = frozenset({"completed", "dead", "cancelled"})
_LASTING: Final = "while :; do sleep 0.05; done"
CONFIG: Final[dict[str, Any]] = {"workers": 4, "shutdown_grace": 0.1}


class Job(NamedTuple):
    """What is asked for, and how it ends."""

    command: str
    state: str
    fields: dict[str, Any]


class Rounds:
    """One state directory through many deaths. Each round adds jobs and sees them to their ends.

    Between two rounds there is no daemon. Then one job runs on, and another one has left a file that says how it ended.
    """

    def __init__(self, daemon: LiveDaemon, tally: Tally) -> None:
        self.daemon, self.tally = daemon, tally
        self.witness = Witness(daemon.home / "witness")
        self.acknowledged: dict[str, str] = {}
        # Jobs that do not end before they are cancelled, and that nobody has been told are.
        self._undying: set[str] = set()
        # Files that were put into the spool, by the tag of their jobs.
        self._spooled: list[str] = []
        self._gate = Gate(daemon.home / "gate-0")
        self._number = 0

    def begin(self) -> None:
        """Make the state that the first round meets."""
        self.daemon.start()
        wait_for((self._spool / "taken").is_dir, "the spool is there")
        self._leave()

    @property
    def _spool(self) -> Path:
        return self.daemon.state / "spool"

    def _drop(self) -> None:
        """Put a file into the spool, with a job that has no name by which it would be known if it came again."""
        name = secrets.token_hex(8)
        self._spooled.append(name)
        draft = self._spool / "tmp" / name
        draft.write_text(json.dumps({"command": self.witness.command(), "tags": {"spooled": name}}))
        draft.rename(self._spool / "new" / name)

    def survives(self, prefix: Sequence[str]) -> bool:
        """Do a round with a daemon that dies as `prefix` has it; return whether it came through."""
        self._number += 1
        self.daemon.launch(*prefix)
        lived = True
        try:
            with self._connected() as wire:
                self._work(wire)
                self._gate.open()
                wait_for(lambda: wire.counts().keys() <= _OVER, "all are over")
        except (OSError, ValueError, RefusedError):
            lived = False
        self._gate.open()
        self._bury()
        self.daemon.start()
        self._check()
        self._leave()
        return lived

    def _jobs(self) -> dict[str, Job]:
        say = self.witness.command
        return {
            "good": Job(say("echo said"), "completed", {}),
            "bad": Job(say("(exit 7)"), "dead", {"max_retries": 0}),
            "wobbly": Job(say("[ $QUEUECTL_ATTEMPT -gt 1 ]"), "completed", {"max_retries": 1, "backoff_base": 0.05}),
            "long": Job(say(self._gate.wait()), "completed", {}),
            "input": Job(say("cat >/dev/null"), "completed", {"stdin": "something"}),
            "unwanted": Job(say(), "cancelled", {"delay": 3600}),
            "stopped": Job(say(_LASTING), "cancelled", {"kill_after": 1}),
        }

    def _work(self, wire: Wire) -> None:
        """Enqueue, run, fail, retry, bury, cancel what waits and what runs, bring back what is dead."""
        self._drop()
        for name, job in self._jobs().items():
            self._enqueue(wire, f"{name}-{self._number}", job)
        stopped = f"stopped-{self._number}"
        wait_for(lambda: wire.history(stopped)[-1:] and wire.history(stopped)[-1]["pid"], "it runs")
        for name in ("unwanted", "stopped"):
            self._cancel(wire, f"{name}-{self._number}")
        bad = f"bad-{self._number}"
        wait_for(lambda: wire.state(bad) == "dead", "the bad one is dead")
        wire.call("retry", select={"ids": [bad]})
        wait_for(lambda: wire.job(bad)["attempts"] > 1 and wire.state(bad) == "dead", "the bad one is dead again")

    def _enqueue(self, wire: Wire, name: str, job: Job) -> None:
        if job.state == "cancelled":
            self._undying.add(name)
        wire.enqueue(job.command, id=name, **job.fields)
        self.acknowledged[name] = job.state

    def _cancel(self, wire: Wire, name: str) -> None:
        wire.call("cancel", select={"ids": [name]})
        self._undying.discard(name)

    def _connected(self) -> Wire:
        assert self.daemon.process is not None
        process = self.daemon.process

        def connect() -> Wire | None:
            if process.poll() is not None:
                raise ConnectionError("the daemon is dead")
            try:
                return self.daemon.wire()
            except OSError:
                return None

        return wait_for(connect, "the daemon answers or is dead")

    def _bury(self) -> None:
        """Kill the daemon if it lives, and wait for the end of strace, which ends with it."""
        assert self.daemon.process is not None
        if self.daemon.process.poll() is None:
            # It may be dying at this moment, or dead while strace has not noticed.
            with contextlib.suppress(OSError, RefusedError, ValueError):
                processes.kill(self.daemon.pid)
        self.daemon.process.wait(20)

    def _leave(self) -> None:
        """Leave a job that runs and the outcome of another one, without a daemon."""
        self._gate = Gate(self.daemon.home / f"gate-{self._number + 1}")
        first = Gate(self.daemon.home / f"gate-{self._number + 1}-first")
        filed, running = f"filed-{self._number + 1}", f"running-{self._number + 1}"
        with self.daemon.wire() as wire:
            for name, gate in ((filed, first), (running, self._gate)):
                self._enqueue(wire, name, Job(self.witness.command(gate.wait()), "completed", {}))
                wait_for(lambda name=name: self.witness.started(name), f"{name} runs")
        self.daemon.kill()
        self._drop()
        first.open()
        wait_for(self._outcomes, "the outcome is written down")

    def _outcomes(self) -> list[str]:
        return [file.name for file in (self.daemon.state / "outcomes").iterdir() if not file.name.startswith(".")]

    def _files_in_spool(self) -> list[str]:
        return [file.name for place in ("tmp", "new", "taken", "failed") for file in (self._spool / place).iterdir()]

    def _check_spool(self, wire: Wire) -> None:
        counts = {name: wire.call("count", select={"tags": [f"spooled={name}"]})["total"] for name in self._spooled}
        wrong = [f"file {name}: {count} jobs" for name, count in counts.items() if count != 1]
        self.tally.check("each file of the spool was taken once", doubled=wrong)
        self._spooled.clear()

    def _check(self) -> None:
        check = self.tally.check
        wait_for(lambda: not self._files_in_spool(), "all files of the spool are taken")
        with self.daemon.wire() as wire:
            for name in sorted(self._undying & set(wire.ids("pending", "processing"))):
                self._cancel(wire, name)
            self._undying.clear()
            wait_for(lambda: wire.counts().keys() <= _OVER, f"all are over: {wire.counts()}")
            self._check_spool(wire)
            states = {job: wire.state(job) for job in wire.ids()}
            histories = {job: wire.history(job) for job in states}
            workers = [worker["pid"] for worker in wire.call("worker_list")["workers"]]
        # What was never acknowledged may be stored all the same; then it ended too.
        wrong = [
            f"{job}: {state}, {states.get(job)}" for job, state in self.acknowledged.items() if states.get(job) != state
        ]
        check("acknowledged jobs end as they should", lost=wrong)
        check("attempts do not overlap", doubled=self.witness.overlaps())
        check("no attempt and no token begins twice", doubled=self.witness.repeated())
        # No worker died: what began came to its end and was recorded, and nothing ran again that had ended. An attempt
        # whose command was never sent is in the history, and began nothing.
        told = self.witness.runs()
        exited = {
            job: [one["number"] for one in history if one["reason"] == "exited"] for job, history in histories.items()
        }
        check(
            "what ran is recorded, and runs no second time",
            doubled=[
                f"{job}: {told.get(job)}, {numbers}"
                for job, numbers in exited.items()
                if states[job] != "cancelled"
                and told.get(job, []) != [f"{number} {what}" for number in numbers for what in ("start", "end")]
            ],
        )
        mine = {*workers, self.daemon.pid}
        left = [one for one in processes.of(self.daemon.home) if one.pid not in mine and "queuectld" not in one.command]
        check("no process is left", left_over=left)
        check("no file is left", left_over=self._outcomes())

    def end(self) -> None:
        """Count what ran, and look at what the daemons logged."""
        self.tally.runs += sum(line.what == "start" for line in self.witness.lines())
        surprises = [line for line in self.daemon.log_lines() if line["event"] in SURPRISES]
        self.tally.check("nothing surprises the daemon", other=surprises[:5])


def numbers(total: int, rounds: int, luck: random.Random) -> Iterable[int]:
    """Return which calls it dies at: all, or so many of them."""
    return range(1, total + 1) if rounds >= total else sorted(luck.sample(range(1, total + 1), rounds))


def attack(tally: Tally, kinds: Iterable[str], rounds: int, seed: int, mutant: str | None = None) -> None:
    """Let the daemon die at up to `rounds` calls of each of these kinds."""
    luck = random.Random(seed)
    for kind in kinds:
        with home() as place, LiveDaemon(place, **CONFIG) as daemon:
            daemon.env |= broken(mutant)
            all_ = Rounds(daemon, tally)
            all_.begin()
            calls = place / "calls"
            if not all_.survives(counting(CALLS[kind], calls)):
                tally.blame("other", f"{kind}: the daemon died without a reason")
            for number in numbers(counted(calls), rounds, luck):
                if not all_.survives(killing(CALLS[kind], number)):
                    tally.fault(f"daemon at {kind}")
            all_.end()


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Let it die at up to so many calls of each kind."""
    attack(tally, CALLS, rounds, seed)


SUITE: Final = Suite(
    "crash-points",
    "the daemon is killed at its N-th commit, write, message, start of a process, removal of a file, …",
    run,
    rounds=10_000,
    unit="calls of each kind, or as many as there are",
    hindrance=needs_strace,
)
