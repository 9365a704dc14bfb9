"""The daemon dies at the N-th call of each kind that matters, start and recovery included; the next one puts all right.

Every crash point of the design lies between two of these calls: before and after a commit (`fdatasync`), between a
commit and its message (`sendto`), at the start of a worker (`vfork`), at the removal of an outcome file (`unlink`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.system import processes
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
    "connect": "accept4,pidfd_open",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600 if os.environ.get("QUEUECTL_TESTS_EVERY_CALL") else 300),
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]


def growing() -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 9, 13, 19, …: every early call, and some of the many alike that follow.

    With ``QUEUECTL_TESTS_EVERY_CALL=1`` it is each of them: `tests/run tests/system/test_crash_points.py`, in an hour.
    """
    number = 1
    while True:
        yield number
        number += 1 if os.environ.get("QUEUECTL_TESTS_EVERY_CALL") else max(1, number // 2)


def strace(calls: str, number: int) -> tuple[str, ...]:
    """Return what kills a program at its `number`-th call, and lets go of the programs that it starts."""
    inject = f"inject={calls}:signal=SIGKILL:when={number}"
    return ("strace", "-f", "-b", "execve", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject)


class Rounds:
    """One state directory through many deaths. Each round adds four jobs and sees them to their ends."""

    def __init__(self, daemon: LiveDaemon, witness: Witness) -> None:
        self.daemon, self.witness = daemon, witness
        self.acknowledged: dict[str, str] = {}

    def survives(self, calls: str, number: int) -> bool:
        """Do a round with a daemon that dies at that call; return whether it came through."""
        gate = Gate(self.daemon.home / f"gate-{number}")
        self.daemon.launch(*strace(calls, number))
        lived = self._work(gate, number)
        gate.open()
        if lived:
            lived = self._finish()
        self._bury()
        self.daemon.start()
        self._check()
        self.daemon.kill()
        return lived

    def _work(self, gate: Gate, number: int) -> bool:
        jobs = {
            "good": ("completed", self.witness.command("echo said")),
            "bad": ("dead", self.witness.command("(exit 7)")),
            "wobbly": ("completed", self.witness.command("[ $QUEUECTL_ATTEMPT -gt 1 ]")),
            "long": ("completed", self.witness.command(gate.wait())),
        }
        try:
            with self._connected() as wire:
                for name, (state, command) in jobs.items():
                    retries = {"good": 0, "bad": 0, "wobbly": 1, "long": 0}[name]
                    wire.enqueue(command, id=f"{name}-{number}", max_retries=retries, backoff_base=0.05)
                    self.acknowledged[f"{name}-{number}"] = state
                wait_for(lambda: not {"pending", "failed"} & wire.counts().keys(), "all but one are over")
        except OSError:
            return False
        return True

    def _finish(self) -> bool:
        try:
            with self._connected() as wire:
                wait_for(lambda: wire.counts().keys() <= {"completed", "dead"}, "all are over")
        except OSError:
            return False
        return True

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
            with contextlib.suppress(OSError, RefusedError):
                processes.kill(self.daemon.pid)
        self.daemon.process.wait(20)

    def _check(self) -> None:
        with self.daemon.wire() as wire:
            wait_for(lambda: wire.counts().keys() <= {"completed", "dead"}, f"all are over: {wire.counts()}")
            states = {job: wire.state(job) for job in wire.ids()}
            # What was never acknowledged may be stored all the same; then it ended too.
            assert self.acknowledged.items() <= states.items()
            exited = {
                job: [attempt["number"] for attempt in wire.history(job) if attempt["reason"] == "exited"]
                for job in wire.ids()
            }
        assert self.witness.overlaps() == []
        assert self.witness.repeated() == []
        # No worker died and none was told to stop: what began came to its end and was recorded. An attempt whose
        # command was never sent is in the history, and began nothing.
        told = self.witness.runs()
        for job, numbers in exited.items():
            assert told[job] == [f"{number} {what}" for number in numbers for what in ("start", "end")], job


@pytest.mark.parametrize("kind", CALLS)
def test_a_daemon_that_dies_at_its_nth_call_loses_nothing_and_runs_nothing_twice(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, kind: str
) -> None:
    rounds = Rounds(new_daemon(workers=2), witness)

    deaths = 0
    for number in growing():
        if rounds.survives(CALLS[kind], number):
            break
        deaths += 1

    assert deaths > 0
    print(f"{deaths} deaths at {CALLS[kind]}, the last round came through")


WORKER_CALLS: Final = {
    "spawn": "vfork,clone,clone3",
    "message": "sendto,sendmsg,write",
    "watch": "pidfd_open,waitid,wait4",
}


@pytest.mark.parametrize("kind", WORKER_CALLS)
def test_a_worker_that_dies_at_its_nth_call_costs_an_attempt_and_no_job(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, kind: str
) -> None:
    daemon = new_daemon(workers=1).start()
    job, died = "", True

    for number in growing():
        with daemon.wire() as wire:
            wire.call("worker_start", count=1)
            worker = wait_for(lambda: _idle(wire), "a worker is idle")
            trace = attach(daemon, worker, WORKER_CALLS[kind], number)
            job = wire.enqueue(witness.command("echo said"), id=f"n{number}", max_retries=0)
            daemon.wait_for_state(job, "completed")
            died = not processes.alive(worker)
            if not died:
                processes.kill(worker)
            trace.wait(20)
            reasons = [attempt["reason"] for attempt in wire.history(job)]
            assert reasons[-1] == "exited"
            assert set(reasons[:-1]) <= {"lost", "interrupted"}
            assert wire.output(job) == b"said\n"
        if not died:
            break

    assert number > 1, "no worker ever died at such a call"
    assert witness.overlaps() == []
    assert witness.repeated() == []


def _idle(wire: Wire) -> int | None:
    workers = wire.call("worker_list")["workers"]
    return next((int(one["pid"]) for one in workers if one["phase"] == "idle"), None)


def attach(daemon: LiveDaemon, pid: int, calls: str, number: int) -> subprocess.Popen[bytes]:
    """Attach strace to a process, so that it dies at its `number`-th call from now on; wait until it is attached."""
    tracer = subprocess.Popen([*strace(calls, number), "-p", str(pid)], env=daemon.env)
    status = Path(f"/proc/{pid}/status")
    wait_for(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text(), "strace is attached")
    return tracer
