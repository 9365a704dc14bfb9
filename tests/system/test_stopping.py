"""SIGTERM: nothing new starts, short jobs end, long ones go back to their queue at no cost, and nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.witness import Witness


def test_short_jobs_end_and_long_ones_are_pending_again_with_no_retry_spent(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, gate: Gate
) -> None:
    daemon = new_daemon(workers=2, shutdown_grace=2).start()
    with daemon.wire() as wire:
        wire.enqueue(witness.command("sleep 1; echo said"), id="short")
        wire.enqueue(witness.command(gate.wait()), id="long")
        wire.enqueue(witness.command(), id="next")
    for name in ("short", "long"):
        wait_for(lambda name=name: witness.started(name), f"{name} has started")

    asked = time.monotonic()
    code = daemon.stop()
    took = time.monotonic() - asked

    assert code == 0
    assert took < 2 + 5 + 1
    # Of the interrupted one only the shell testified that it started; it was ended by TERM.
    assert witness.runs() == {"short": ["1 start", "1 end"], "long": ["1 start"]}
    assert processes.of(daemon.home) == []
    daemon.start()
    gate.open()
    daemon.wait_for_counts(completed=3)
    with daemon.wire() as wire:
        long = wire.job("long")
        assert [attempt["reason"] for attempt in wire.history("long")] == ["interrupted", "exited"]
        assert (long["attempts"], long["retries_left"]) == (2, long["max_retries"])
        assert [attempt["reason"] for attempt in wire.history("short")] == ["exited"]


def test_a_second_term_skips_the_grace(new_daemon: Callable[..., LiveDaemon], witness: Witness) -> None:
    daemon = new_daemon(shutdown_grace=3600).start()
    with daemon.wire() as wire:
        wire.enqueue(witness.command("sleep 1000"), id="long")
    wait_for(lambda: witness.started("long"), "the command has started")
    assert daemon.process is not None

    daemon.process.send_signal(signal.SIGTERM)
    with daemon.wire() as wire:
        wait_for(lambda: wire.call("status")["phase"] == "draining", "the daemon is stopping")
    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.process.wait(20) == 0
    assert processes.of(daemon.home) == []


def test_a_job_that_ignores_term_is_killed_with_all_its_processes(
    new_daemon: Callable[..., LiveDaemon], witness: Witness
) -> None:
    daemon = new_daemon(shutdown_grace=0.1, kill_after=0.3).start()
    stubborn = (
        "(cd /; setsid env -i sh -c 'trap \"\" TERM; echo $$ >{0}; while :; do sleep 0.1; done' &) ; trap '' TERM"
    )
    pid = daemon.home / "pid"
    with daemon.wire() as wire:
        wire.enqueue(witness.command(f"{stubborn.format(pid)}; while :; do sleep 0.1; done"), id="stubborn")
    escaped = int(wait_for(lambda: pid.exists() and pid.read_text().strip(), "the command has started"))

    code = daemon.stop()

    assert code == 0
    assert not processes.alive(escaped)
    assert processes.of(daemon.home) == []


@pytest.mark.parametrize("how", ["the daemon stops", "it is cancelled", "it is cancelled, with a span"])
def test_a_job_that_says_how_long_it_may_take_to_end_is_asked_to_end(
    new_daemon: Callable[..., LiveDaemon], how: str
) -> None:
    daemon = new_daemon(shutdown_grace=0.1).start()
    begun, asked = daemon.home / "begun", daemon.home / "asked"
    command = f"trap 'touch {asked}; exit 0' TERM; touch {begun}; while :; do sleep 0.05; done"
    with daemon.wire() as wire:
        name = wire.enqueue(command, kill_after="5s")
        wait_for(begun.exists, "the command has started")

        if how == "the daemon stops":
            daemon.stop()
        else:
            wire.call("cancel", select={"ids": [name]}, **({} if how == "it is cancelled" else {"kill_after": "4s"}))

    assert asked.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once(daemon: LiveDaemon, number: signal.Signals) -> None:
    with daemon.wire() as wire:
        wire.enqueue("true", id="one")
    daemon.wait_for_state("one", "completed")
    assert daemon.process is not None

    daemon.process.send_signal(number)

    assert daemon.process.wait(5) == 0
    assert processes.of(daemon.home) == []
    assert not daemon.socket.exists()


def test_while_it_stops_a_daemon_answers_questions_and_takes_nothing_new(
    new_daemon: Callable[..., LiveDaemon], gate: Gate
) -> None:
    daemon = new_daemon(shutdown_grace=30).start()
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="long")
    daemon.worker_of("long")
    assert daemon.process is not None

    daemon.process.send_signal(signal.SIGTERM)
    with daemon.wire() as wire:
        wait_for(lambda: wire.call("status")["phase"] == "draining", "the daemon is stopping")
    refused = daemon.cli("enqueue", "true")
    listed = daemon.cli("list", "-q")

    assert refused.code == 75, refused
    assert (listed.code, listed.out) == (0, "long\n")
    gate.open()
    assert daemon.process.wait(20) == 0
    daemon.start()
    assert daemon.state_of("long") == "completed"


def test_daemon_stop_leaves_nothing_running(daemon: LiveDaemon, witness: Witness) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command("sleep 1000"), id="long")
    wait_for(lambda: witness.started("long"), "the command has started")

    done = daemon.cli("daemon", "stop", "--now")

    assert done.code == 0, done
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0
    assert processes.of(daemon.home) == []


def test_worker_stop_lets_running_jobs_end_and_starts_none(daemon: LiveDaemon, gate: Gate) -> None:
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="long")
    daemon.worker_of("long")

    stopped = daemon.cli("worker", "stop")
    daemon.cli("enqueue", "--id", "later", "true")
    gate.open()

    assert stopped.code == 0, stopped
    daemon.wait_for_state("long", "completed")
    wait_for(lambda: daemon.workers() == [], "no worker is left")
    assert daemon.state_of("later") == "pending"
    assert daemon.cli("worker", "start", "--count", "1").code == 0
    daemon.wait_for_state("later", "completed")


def wait_mode(daemon: LiveDaemon) -> None:
    """Ask for the end, once the running jobs have ended, however long that takes."""
    with daemon.wire() as wire:
        wire.call("shutdown", mode="wait")


def lent(daemon: LiveDaemon, job: str, other: str) -> None:
    """Start a job that waits for another one, and wait until it does."""
    with daemon.wire() as wire:
        wire.enqueue(f"echo begun; queuectl wait {other}", id=job, env=daemon.env)
        wait_for(lambda: b"begun" in daemon.output(job), "it has begun")
        # Beside our own connection there is that of the command, which has asked what it wants to know.
        wait_for(lambda: wire.call("status")["connections"] == 2, "it waits")


def test_who_waits_for_running_jobs_does_not_wait_for_one_that_waits_for_a_job_which_will_not_start(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon(workers=2, shutdown_grace=0.5).start()
    with daemon.wire() as wire:
        wire.enqueue("true", id="tomorrow", delay=86_400)
    lent(daemon, "waiting", "tomorrow")

    wait_mode(daemon)

    assert daemon.process is not None
    assert daemon.process.wait(20) == 0
    assert processes.of(daemon.home) == []
    daemon.start()
    assert daemon.history("waiting")[0]["reason"] == "interrupted"
    assert daemon.state_of("tomorrow") == "pending"


def test_who_waits_for_running_jobs_waits_for_one_that_waits_for_another_that_runs(
    new_daemon: Callable[..., LiveDaemon], gate: Gate
) -> None:
    daemon = new_daemon(workers=2, shutdown_grace=0.1).start()
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="long")
    daemon.worker_of("long")
    lent(daemon, "waiting", "long")

    wait_mode(daemon)
    with daemon.wire() as wire:
        wait_for(lambda: wire.call("status")["phase"] == "draining", "the daemon is stopping")
    gate.open()

    assert daemon.process is not None
    assert daemon.process.wait(20) == 0
    daemon.start()
    assert [daemon.state_of(job) for job in ("long", "waiting")] == ["completed", "completed"]


def test_a_term_ends_the_patience_of_who_waits_for_running_jobs_and_the_next_one_the_grace(
    new_daemon: Callable[..., LiveDaemon], witness: Witness
) -> None:
    daemon = new_daemon(shutdown_grace=3600).start()
    with daemon.wire() as wire:
        wire.enqueue(witness.command("sleep 1000"), id="long")
    wait_for(lambda: witness.started("long"), "the command has started")
    assert daemon.process is not None
    wait_mode(daemon)

    for mode in ("drain", "now"):
        daemon.process.send_signal(signal.SIGTERM)
        wait_for(lambda mode=mode: f'"mode":"{mode}"' in daemon.log_tail(), f"it stops by {mode}")

    assert daemon.process.wait(20) == 0
    assert processes.of(daemon.home) == []
