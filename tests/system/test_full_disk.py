"""A disk that is really full: a tiny file system holds the state directory. Nothing is restarted to get over it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire

# Of something else, which a person removes in the end.
BALLAST = b"\0" * 1024 * 1024


@pytest.fixture
def state(home: Path, mount_small: Callable[[Path, str], Path]) -> Path:
    """The state directory of the daemon of this test, on a file system of 32 MiB."""
    return mount_small(home / "state", "32m")


@pytest.fixture
def daemon(state: Path, new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    del state
    return new_daemon().start()


def refusal_of(wire: Wire, stdin: str = "") -> str | None:
    """Ask for a job that waits for an hour; return the code if it is refused."""
    try:
        wire.enqueue("true", delay=3600, stdin=stdin)
    except RefusedError as refusal:
        return refusal.code
    return None


def enqueue_until_refused(wire: Wire) -> str:
    """Store large jobs; return with which code the first one is refused."""
    for _ in range(1000):
        if (code := refusal_of(wire, os.urandom(30_000).hex())) is not None:
            return code
    raise AssertionError("the disk does not get full")


def test_on_a_full_disk_jobs_are_refused_and_questions_answered(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        code = enqueue_until_refused(wire)

        assert code == "disk_full"
        assert wire.counts() == {"pending": len(wire.ids())}
        assert wire.state("@last") == "pending"


def fill(state: Path, wire: Wire) -> Path:
    """Let something else take the rest of the disk until jobs are refused; return the file."""
    ballast = state / "ballast"
    with ballast.open("ab", buffering=0) as file:
        take_all(file)
        wait_for(lambda: refusal_of(wire) == "disk_full", "jobs are refused")
        # What the daemon gave up of its reserve is for the daemon.
    return ballast


def take_all(file: IO[bytes]) -> None:
    with suppress(OSError):
        while file.write(BALLAST):
            pass


def test_what_is_under_way_comes_to_its_end_on_a_full_disk_and_new_jobs_are_taken_when_there_is_space(
    daemon: LiveDaemon, state: Path, gate: Gate
) -> None:
    with daemon.wire() as wire:
        jobs = [wire.enqueue(f"{gate.wait()}; exit {code}", max_retries=0) for code in (0, 7)]
        more = [wire.enqueue("echo more") for _ in range(200)]
        victim = wire.enqueue("true", delay=3600)
        wait_for(lambda: all(wire.history(job)[-1:] for job in jobs), "the jobs run")
        pid = daemon.pid
        ballast = fill(state, wire)

        gate.open()

        assert daemon.wait_for_state(jobs[0], "completed")["exit_code"] == 0
        assert daemon.wait_for_state(jobs[1], "dead")["exit_code"] == 7
        wait_for(lambda: {wire.state(job) for job in more} == {"completed"}, "all that was stored has run")
        assert wire.call("cancel", select={"ids": [victim]})["jobs"] == [victim]
        assert wire.call("retry", select={"ids": [jobs[1]]})["jobs"] == [jobs[1]]
        assert daemon.wait_for_state(jobs[1], "dead")["attempts"] == 2
        assert refusal_of(wire) == "disk_full"
        (problem,) = [text for text in wire.call("status")["problems"] if "disk" in text]
        assert str(state) in problem

        ballast.unlink()

        wait_for(lambda: refusal_of(wire) is None, "jobs are taken again")
        assert not [text for text in wire.call("status")["problems"] if "disk" in text]
        assert (state / "reserve").stat().st_blocks * 512 == 4 * 1024 * 1024
    assert daemon.pid == pid
    assert daemon.stop() == 0
    events = [line["event"] for line in daemon.log_lines()]
    assert (events.count("store.full"), events.count("store.space")) == (1, 1)


def test_when_nothing_at_all_can_be_written_a_result_waits_until_there_is_space(
    daemon: LiveDaemon, home: Path, state: Path, gate: Gate
) -> None:
    with daemon.wire() as wire:
        job = wire.enqueue(f"{gate.wait()}; touch {home / 'over'}; exit 7", max_retries=0)
        wait_for(lambda: wire.history(job)[-1:], "the job runs")
        pid = daemon.pid
        ballast = fill(state, wire)
        with ballast.open("ab", buffering=0) as file:
            # Somebody else is faster than the daemon, whatever it gives up.
            (state / "reserve").write_bytes(b"")
            take_all(file)
            gate.open()
            wait_for((home / "over").exists, "the command has ended")
            assert refusal_of(wire) == "disk_full"

        ballast.unlink()

        assert daemon.wait_for_state(job, "dead")["exit_code"] == 7
        assert wire.history(job)[-1]["number"] == 1
        wait_for(lambda: refusal_of(wire) is None, "jobs are taken again")
    assert daemon.pid == pid
    assert daemon.stop() == 0


def test_a_daemon_starts_on_a_full_disk_and_records_what_ended_meanwhile(
    daemon: LiveDaemon, home: Path, state: Path, gate: Gate
) -> None:
    with daemon.wire() as wire:
        job = wire.enqueue(f"{gate.wait()}; touch {home / 'over'}; exit 7", max_retries=0)
        wait_for(lambda: wire.history(job)[-1:], "the job runs")
        ballast = fill(state, wire)
        with ballast.open("ab", buffering=0) as file:
            take_all(file)
    daemon.kill()
    gate.open()
    wait_for((home / "over").exists, "the command has ended")

    daemon.start()

    assert daemon.wait_for_state(job, "dead")["exit_code"] == 7
    with daemon.wire() as wire:
        assert refusal_of(wire) == "disk_full"
        ballast.unlink()
        wait_for(lambda: refusal_of(wire) is None, "jobs are taken again")


def test_a_daemon_that_is_killed_comes_back_on_a_full_disk_with_all_that_it_acknowledged(
    daemon: LiveDaemon,
) -> None:
    with daemon.wire() as wire:
        enqueue_until_refused(wire)
        taken = wire.ids()

    daemon.again()

    with daemon.wire() as wire:
        assert wire.ids() == taken
