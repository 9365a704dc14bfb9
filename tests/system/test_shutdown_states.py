"""Asked to end in every state that a daemon can be in: in time, nothing left running, nothing lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from queuectld.domain.job import Job
from queuectld.store.reader import open_reader
from tests.system import processes
from tests.system.gate import Gate
from tests.system.installation import Installation
from tests.system.livedaemon import LiveDaemon
from tests.system.slowness import needs_strace, slow
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire
from tests.system.witness import Witness

GRACE = 1.0
KILL_AFTER = 0.2
# The second that is promised is one of a machine that does not run other tests meanwhile.
BUSY = 2.0
# What a daemon may need in the end: to record, to end its workers, to close the database.
MARGIN = 1.0 + BUSY
BOUND = GRACE + KILL_AFTER + MARGIN


@pytest.fixture
def daemon(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    """A daemon with two workers, not started."""
    return new_daemon(workers=2, shutdown_grace=GRACE, kill_after=KILL_AFTER)


def end(daemon: LiveDaemon, within: float = BOUND) -> None:
    """Send TERM; the daemon ends well, in time, and nothing of it is left."""
    since = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    code = daemon.process.wait(30)
    took = time.monotonic() - since
    assert code == 0
    assert took < within
    assert processes.of(daemon.home) == []


def run_long(daemon: LiveDaemon, witness: Witness, gate: Gate, name: str = "job") -> int:
    """Have a job run until the gate is opened; return the process of its worker."""
    with daemon.wire() as wire:
        wire.enqueue(witness.command(gate.wait()), id=name)
    wait_for(lambda: witness.started(name), "the job has started")
    return wait_for(lambda: [one["pid"] for one in daemon.workers() if one["job"] == name], "its worker is known")[0]


def stored(daemon: LiveDaemon, name: str = "job") -> Job:
    return open_reader(daemon.state / "queue.db").get(name)


def test_at_the_very_beginning(daemon: LiveDaemon) -> None:
    daemon.launch()
    wait_for(lambda: "daemon.starting" in daemon.log_tail(), "it begins")

    end(daemon)


def test_before_it_has_begun(daemon: LiveDaemon) -> None:
    daemon.launch()

    daemon.process.send_signal(signal.SIGTERM)

    # As any program that does not expect signals yet, which for a service manager is a clean end.
    assert daemon.process.wait(20) in {0, -signal.SIGTERM}
    assert processes.of(daemon.home) == []


def test_while_a_job_of_the_daemon_before_is_expected_back(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    worker = run_long(daemon.start(), witness, gate)
    processes.kill(worker, signal.SIGSTOP)
    daemon.again()
    wait_for(lambda: "awaited" in {one["phase"] for one in daemon.workers()}, "the worker is expected")

    end(daemon)

    assert stored(daemon).retries_spent == 0
    assert witness.runs() == {"job": ["1 start"]}


def test_while_a_lost_job_is_rescued(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    worker = run_long(daemon.start(), witness, gate)
    daemon.kill()
    processes.kill(worker)
    daemon.launch()
    wait_for(lambda: daemon.log_tail(50_000).count('"event":"daemon.starting"') == 2, "it begins")

    # It has to begin before it can end.
    end(daemon, BOUND + 1.0)

    assert stored(daemon).state in {"pending", "failed", "processing"}


def test_while_the_next_program_checks_itself(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    installation = Installation(daemon)
    run_long(daemon.start(), witness, gate)
    installation.install(f"if checking: Path({str(installation.arrived)!r}).touch(); time.sleep(1000)")
    with daemon.wire() as wire:
        wire.send("reexec")
        wait_for(installation.arrived.exists, "the check has begun")

        end(daemon)

    assert (stored(daemon).state, stored(daemon).reason) == ("pending", "interrupted")


@pytest.mark.parametrize("running", [True, False], ids=["with a job", "idle"])
def test_while_workers_are_suspended(daemon: LiveDaemon, witness: Witness, gate: Gate, *, running: bool) -> None:
    daemon.start()
    if running:
        run_long(daemon, witness, gate)
    workers = wait_for(daemon.workers, "there are workers")
    for worker in workers:
        processes.kill(worker["pid"], signal.SIGSTOP)

    end(daemon)

    if running:
        assert (stored(daemon).state, stored(daemon).retries_spent) == ("pending", 0)


@needs_strace
def test_while_the_disk_is_slow(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    daemon.start()
    run_long(daemon, witness, gate)
    with slow(daemon, "fdatasync,fsync", 0.1):
        # The end of the attempt has to be on disk, and the log to be emptied.
        end(daemon, BOUND + 0.5)

    assert (stored(daemon).state, stored(daemon).reason) == ("pending", "interrupted")


@needs_strace
def test_while_the_disk_takes_nothing_any_more(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    daemon.start()
    run_long(daemon, witness, gate)
    with slow(daemon, "fdatasync,fsync", 60.0), daemon.wire() as wire:
        wire.send("enqueue", jobs=[{"command": "true"}])
        since = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        # Like a thread that waits for a disk, one that is held up keeps the dead process in the table.
        wait_for(lambda: not processes.alive(daemon.process.pid), "it has ended", deadline=30)
        # What was asked is answered for a moment, then the disk is waited for.
        assert time.monotonic() - since < BOUND + 0.5 + 1.0
    assert daemon.process.wait(30) == 74
    wait_for(lambda: not processes.of(daemon.home), "the workers end")
    daemon.start()
    gate.open()
    daemon.wait_for_state("job", "completed")


@needs_strace
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_the_store_is_closed_for_the_next_program(
    daemon: LiveDaemon, witness: Witness, gate: Gate, number: signal.Signals
) -> None:
    # Long enough for the worker to notice that there is a daemon again.
    daemon.configure(workers=2, shutdown_grace=4, kill_after=KILL_AFTER)
    daemon.start()
    run_long(daemon, witness, gate)
    with slow(daemon, "fdatasync,fsync", 1.0, once=True), daemon.wire() as wire:
        wire.call("reexec")

        daemon.process.send_signal(number)

        assert daemon.process.wait(20) == 0
    assert daemon.log_tail(50_000).count('"event":"daemon.starting"') == 2
    assert processes.of(daemon.home) == []
    assert (stored(daemon).state, stored(daemon).retries_spent) == ("pending", 0)


class TestOnAFullDisk:
    @pytest.fixture
    def daemon(
        self, home: Path, mount_small: Callable[[Path, str], Path], new_daemon: Callable[..., LiveDaemon]
    ) -> LiveDaemon:
        mount_small(home / "state", "8m")
        return new_daemon(workers=2, shutdown_grace=GRACE, kill_after=KILL_AFTER)

    def test_what_ran_is_taken_up_when_there_is_space(self, daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
        daemon.start()
        run_long(daemon, witness, gate)
        with daemon.wire() as wire:
            fill(wire)

        since = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        code = daemon.process.wait(30)
        took = time.monotonic() - since

        assert code == 0
        assert took < BOUND
        # A worker may still hold an end that has no place on the disk, but no command runs any more.
        assert {line.pid for line in witness.of("job") if processes.alive(line.pid)} == set()


def fill(wire: Wire) -> None:
    """Enqueue until jobs are refused, whatever their size."""
    for size in (30_000, 3_000, 0):
        for _ in range(1000):
            try:
                wire.enqueue("true", delay=3600, stdin=os.urandom(size).hex())
            except RefusedError as error:
                assert error.code == "disk_full"  # noqa: PT017  (a refusal is what is waited for)
                break


def test_while_clients_follow_ask_and_do_not_read(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    daemon.start()
    run_long(daemon, witness, gate)
    with daemon.wire() as wire:
        wire.enqueue(f"seq 1000000; {gate.wait()}", id="chatty")
    wait_for(lambda: len(daemon.output("chatty")) > 1_000_000, "there is output")
    with ExitStack() as stack:
        follower, waiter, deaf, half, canceller = (stack.enter_context(daemon.wire()) for _ in range(5))
        follower.send("logs", jobs=["job"], follow=True)
        waiter.send("wait", select={"ids": ["job", "chatty"]})
        deaf.send("logs", jobs=["chatty"], follow=True)
        half.raw(b'{"id":1,"op":"pi')
        canceller.send("events", follow=True)
        wait_for(lambda: status(daemon)["connections"] == 6, "all are there")

        end(daemon)

        assert follower.line()["ok"]["stopped"]
        *told, last = lines(waiter)
        assert last["ok"]["stopped"] or len(told) == 2
        assert lines(canceller)[-1]["ok"]["stopped"]


def status(daemon: LiveDaemon) -> dict[str, Any]:
    with daemon.wire() as wire:
        return wire.call("status")


def lines(wire: Wire) -> list[dict[str, Any]]:
    """Return all lines until the end of the connection."""
    found: list[dict[str, Any]] = []
    try:
        while True:
            found.append(wire.line())
    except ConnectionError:
        return found
