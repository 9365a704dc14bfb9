"""A disk that is really full: a tiny file system holds the state directory. Nothing is restarted to get over it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire

SIZE = 8 * 1024 * 1024
# Of something else, which a person removes in the end.
BALLAST = b"\0" * 1024 * 1024


@pytest.fixture
def state(home: Path) -> Iterator[Path]:
    """The state directory of the daemon of this test, on a file system of 8 MiB."""
    state = home / "state"
    state.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "none", str(state)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount file systems here")
    yield state
    subprocess.run(["umount", str(state)], check=True)


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


def test_a_job_that_ends_while_the_disk_is_full_is_recorded_when_there_is_space(
    daemon: LiveDaemon, home: Path, state: Path, gate: Gate
) -> None:
    ballast = state / "ballast"
    ballast.write_bytes(BALLAST)
    with daemon.wire() as wire:
        over = [home / "over-0", home / "over-7"]
        commands = [f"{gate.wait()}; touch {file}; exit {file.name[-1]}" for file in over]
        jobs = [wire.enqueue(command, max_retries=0) for command in commands]
        wait_for(lambda: all(wire.history(job)[-1:] for job in jobs), "the jobs run")
        pid = daemon.pid
        enqueue_until_refused(wire)
        wait_for(lambda: refusal_of(wire) == "disk_full", "small jobs are refused, too")
        gate.open()
        # As long as nothing can be written the daemon lives, answers, and takes no job.
        wait_for(lambda: all(file.exists() for file in over), "the commands have ended")
        assert refusal_of(wire) == "disk_full"
        assert wire.call("status")["pid"] == pid

        ballast.unlink()

        assert daemon.wait_for_state(jobs[0], "completed")["exit_code"] == 0
        assert daemon.wait_for_state(jobs[1], "dead")["exit_code"] == 7
        assert [len(wire.history(job)) for job in jobs] == [1, 1]
        wait_for(lambda: refusal_of(wire) is None, "jobs are taken again")
    assert daemon.pid == pid
    assert daemon.stop() == 0


def test_a_daemon_that_is_killed_comes_back_on_a_full_disk_with_all_that_it_acknowledged(
    daemon: LiveDaemon,
) -> None:
    with daemon.wire() as wire:
        enqueue_until_refused(wire)
        taken = wire.ids()

    daemon.again()

    with daemon.wire() as wire:
        assert wire.ids() == taken
