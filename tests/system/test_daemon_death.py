"""The daemon is killed: commands go on undisturbed, and the next daemon knows how they ended."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError
from tests.system.witness import Witness


def test_a_command_runs_on_while_its_daemon_is_killed_and_the_next_one_adopts_it(
    daemon: LiveDaemon, witness: Witness, gate: Gate
) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command(f"{gate.wait()}; echo said"), id="long")
    start = wait_for(lambda: witness.started("long"), "the command has started")
    worker = daemon.worker_of("long")

    daemon.again()

    adopted = wait_for(lambda: [one for one in daemon.workers() if one["job"] == "long"], "the worker is adopted")
    assert (adopted[0]["pid"], adopted[0]["phase"]) == (worker, "running")
    assert processes.alive(start.pid)
    gate.open()
    job = daemon.wait_for_state("long", "completed")
    assert witness.runs() == {"long": ["1 start", "1 end"]}
    assert (job["attempts"], job["exit_code"], daemon.output("long")) == (1, 0, b"said\n")


@pytest.mark.parametrize("code", [0, 7])
def test_a_command_that_ends_while_there_is_no_daemon_is_recorded_by_the_next(
    daemon: LiveDaemon, witness: Witness, gate: Gate, code: int
) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command(f"{gate.wait()}; echo said; (exit {code})"), id="long", max_retries=0)
    wait_for(lambda: witness.started("long"), "the command has started")

    daemon.kill()
    gate.open()
    wait_for(lambda: list((daemon.state / "outcomes").iterdir()), "the worker has written down how it ended")
    daemon.start()

    job = daemon.wait_for_state("long", "completed" if code == 0 else "dead")
    assert witness.runs() == {"long": ["1 start", "1 end"]}
    assert (job["attempts"], job["exit_code"], daemon.output("long")) == (1, code, b"said\n")
    wait_for(lambda: not list((daemon.state / "outcomes").iterdir()), "what is recorded has been removed")


def test_a_worker_that_dies_while_there_is_no_daemon_is_found_by_the_next(
    daemon: LiveDaemon, witness: Witness, gate: Gate
) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command(gate.wait()), id="long")
    start = wait_for(lambda: witness.started("long"), "the command has started")
    worker = daemon.worker_of("long")

    daemon.kill()
    processes.kill(worker)
    daemon.start()

    wait_for(lambda: witness.started("long", 2), "the job runs again")
    assert not processes.alive(start.pid)
    gate.open()
    daemon.wait_for_state("long", "completed")
    assert witness.runs()["long"] == ["1 start", "2 start", "2 end"]
    assert [attempt["reason"] for attempt in daemon.history("long")] == ["lost", "exited"]


def test_a_cancel_that_was_stored_is_carried_out_by_the_next_daemon(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        # Does not hear TERM, so that the first daemon cannot be through with it.
        wire.enqueue("trap '' TERM; while :; do sleep 0.05; done", id="stubborn", kill_after=1)
        daemon.worker_of("stubborn")
        wire.call("cancel", select={"ids": ["stubborn"]}, no_wait=True)

    daemon.again()

    job = daemon.wait_for_state("stubborn", "cancelled")
    assert (job["attempts"], job["reason"]) == (1, "cancelled")


def test_a_timeout_is_kept_by_the_worker_whatever_becomes_of_daemons(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("exec sleep 1000", id="slow", timeout=1, max_retries=0)
    daemon.worker_of("slow")

    daemon.again().again()

    assert daemon.wait_for_state("slow", "dead")["reason"] == "timeout"


def test_a_worker_that_does_not_come_back_to_the_next_daemon_is_ended_and_its_job_rescued(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, gate: Gate
) -> None:
    daemon = new_daemon(adopt_timeout=0.3).start()
    with daemon.wire() as wire:
        wire.enqueue(witness.command(gate.wait()), id="long")
    start = wait_for(lambda: witness.started("long"), "the command has started")
    worker = daemon.worker_of("long")

    processes.kill(worker, signal.SIGSTOP)
    daemon.again()

    wait_for(lambda: witness.started("long", 2), "the job runs again")
    assert not processes.alive(worker)
    assert not processes.alive(start.pid)
    gate.open()
    daemon.wait_for_state("long", "completed")
    assert [attempt["reason"] for attempt in daemon.history("long")] == ["lost", "exited"]


def test_each_attempt_reads_its_whole_input_also_after_worker_and_daemon_died(daemon: LiveDaemon) -> None:
    begun = daemon.home / "begun"
    text = "line\n" * 20_000
    with daemon.wire() as wire:
        wire.enqueue(
            f"head -n 1 >/dev/null; echo >>{begun}; [ $QUEUECTL_ATTEMPT = 3 ] || exec sleep 1000; cat | wc -c",
            id="reader",
            stdin=text,
        )
    for attempt in (1, 2):
        wait_for(lambda n=attempt: begun.exists() and len(begun.read_text()) == n, f"attempt {attempt} reads")
        worker = daemon.worker_of("reader")
        if attempt == 2:
            daemon.kill()
        processes.kill(worker)
    daemon.start()

    daemon.wait_for_state("reader", "completed")

    # `head` has taken a block of it.
    assert 0 < int(daemon.output("reader")) < len(text)
    assert list((daemon.state / "input").iterdir()) == []


def test_idle_workers_end_when_no_daemon_comes_back(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(orphan_timeout=0.5).start()
    with daemon.wire() as wire:
        wire.enqueue("true", id="one")
    daemon.wait_for_state("one", "completed")
    workers = [worker["pid"] for worker in daemon.workers()]

    daemon.kill()

    assert workers
    wait_for(lambda: not any(processes.alive(pid) for pid in workers), "the workers have ended")


def test_a_second_daemon_on_the_same_state_is_refused_with_75_and_harms_nothing(daemon: LiveDaemon) -> None:
    first = daemon.process

    daemon.launch()
    assert daemon.process is not None
    code = daemon.process.wait(20)
    daemon.process = first

    assert code == 75
    assert daemon.answers()


def test_a_socket_left_by_a_killed_daemon_is_replaced(daemon: LiveDaemon) -> None:
    daemon.kill()
    assert daemon.socket.exists()

    daemon.start()

    assert daemon.counts() == {}


def test_a_request_that_is_sent_again_to_the_next_daemon_makes_no_second_job(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        first = wire.call("enqueue", jobs=[{"command": "true"}], request="key-1")

    daemon.again()

    with daemon.wire() as wire:
        again = wire.call("enqueue", jobs=[{"command": "true"}], request="key-1")
        assert [job["id"] for job in again["jobs"]] == [job["id"] for job in first["jobs"]]
        assert [job["created"] for job in again["jobs"]] == [False]
        assert len(wire.ids()) == 1


@pytest.mark.parametrize("parts", [1, 3])
def test_many_jobs_whose_daemon_is_killed_between_them_are_completed_by_the_same_request(
    daemon: LiveDaemon, parts: int
) -> None:
    jobs = [{"id": f"j{number}", "command": "true", "delay": 3600} for number in range(20_000)]
    with daemon.wire() as wire, daemon.wire() as other:
        wire.send("enqueue", jobs=jobs, request="key-1")
        wait_for(lambda: sum(other.counts().values()) >= parts * 2000, "some are stored")
        daemon.kill()
    daemon.start()
    with daemon.wire() as wire:
        stored = sum(wire.counts().values())

        again = wire.call("enqueue", jobs=jobs, request="key-1")

        assert stored % 2000 == 0
        assert [job["id"] for job in again["jobs"]] == [job["id"] for job in jobs]
        assert [job["created"] for job in again["jobs"]] == [False] * stored + [True] * (20_000 - stored)
        assert sum(wire.counts().values()) == 20_000


def test_a_restart_asked_for_is_noticed_by_no_job(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command(f"{gate.wait()}; echo said"), id="long")
    start = wait_for(lambda: witness.started("long"), "the command has started")
    old = daemon.pid

    done = daemon.cli("daemon", "restart")

    assert done.code == 0, done
    assert daemon.process is not None
    daemon.process.wait(20)
    wait_for(lambda: _answers(daemon) and daemon.pid != old, "another daemon answers")
    assert processes.alive(start.pid)
    gate.open()
    assert daemon.wait_for_state("long", "completed")["attempts"] == 1
    assert witness.runs() == {"long": ["1 start", "1 end"]}


def _answers(daemon: LiveDaemon) -> bool:
    try:
        return bool(daemon.pid)
    except (OSError, RefusedError):
        return False
