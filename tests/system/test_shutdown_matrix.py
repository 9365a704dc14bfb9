"""Every way to ask for the end, of the daemon or of a worker, whatever just runs: in time, and nothing is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from queuectld.domain.job import Job
from queuectld.store.reader import open_reader
from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.witness import Witness

GRACE = 1.0
KILL_AFTER = 0.2
# The second that is promised is one of a machine that does not run other tests meanwhile.
BUSY = 2.0
# What a daemon may need in the end: to record, to end its workers, to close the database.
MARGIN = 1.0 + BUSY

ASKED = {
    "TERM": [signal.SIGTERM],
    "INT": [signal.SIGINT],
    "TERM twice": [signal.SIGTERM, signal.SIGTERM],
    "TERM then KILL": [signal.SIGTERM, signal.SIGKILL],
}
# `{gate}` is a loop that waits for it, which the test opens if the command should end.
RUNNING = {
    "idle": None,
    "a short job": "sleep 0.2",
    "a long job": "{gate}",
    "a job that ignores TERM": "trap '' TERM; {gate}",
    "grandchildren in their own session": "setsid sh -c 'trap \"\" TERM; {gate}' & {gate}; wait",
}

matrix = [pytest.mark.parametrize("asked", ASKED), pytest.mark.parametrize("running", RUNNING)]


@pytest.fixture
def begin(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, gate: Gate
) -> Callable[[str], tuple[LiveDaemon, int]]:
    """Start a daemon that has one worker, which runs this; return it and the worker's number."""

    def begin(running: str) -> tuple[LiveDaemon, int]:
        daemon = new_daemon(workers=1, shutdown_grace=GRACE, kill_after=KILL_AFTER).start()
        command = RUNNING[running]
        if command is None:
            return daemon, wait_for(lambda: [w["pid"] for w in daemon.workers() if w["phase"] == "idle"], "it idles")[0]
        with daemon.wire() as wire:
            wire.enqueue(witness.command(f"( {command.replace('{gate}', gate.wait())} )"), id="job")
        wait_for(lambda: witness.started("job"), "the job has started")
        return daemon, wait_for(lambda: [w["pid"] for w in daemon.workers() if w["job"]], "its worker is known")[0]

    return begin


def ask(pid: int, asked: str) -> None:
    for number in ASKED[asked]:
        processes.kill(pid, number)
        # Two of a kind that come at once are one for the kernel.
        time.sleep(0.05)


def stored(daemon: LiveDaemon) -> Job:
    return open_reader(daemon.state / "queue.db").get("job")


@pytest.mark.parametrize("running", RUNNING)
@pytest.mark.parametrize("asked", ["TERM", "INT", "TERM twice"])
def test_a_daemon_that_is_asked_to_end_does_so_in_time_and_leaves_nothing(
    begin: Any, witness: Witness, asked: str, running: str
) -> None:
    daemon, _ = begin(running)
    since = time.monotonic()

    ask(daemon.process.pid, asked)
    code = daemon.process.wait(30)

    took = time.monotonic() - since
    assert code == 0
    assert took < (0 if asked == "TERM twice" else GRACE) + KILL_AFTER + MARGIN
    assert processes.of(daemon.home) == []
    if running == "idle":
        return
    job = stored(daemon)
    assert job.retries_spent == 0
    if "end" in witness.runs()["job"][-1] and running == "a short job":
        assert (job.state, job.exit_code) == ("completed", 0)
    else:
        assert (job.state, job.reason) == ("pending", "interrupted")
    assert running != "a short job" or asked == "TERM twice" or job.state == "completed"


@pytest.mark.parametrize("running", RUNNING)
def test_a_daemon_that_is_killed_while_it_ends_leaves_the_rest_to_the_next(
    begin: Any, witness: Witness, gate: Gate, running: str
) -> None:
    daemon, _ = begin(running)

    ask(daemon.process.pid, "TERM then KILL")
    daemon.process.wait()
    gate.open()
    daemon.start()

    if running != "idle":
        assert daemon.wait_for_state("job", "completed")["retries_left"] == 3
        assert witness.overlaps() == []
        assert witness.repeated() == []
    assert daemon.stop() == 0
    assert processes.of(daemon.home) == []


@pytest.mark.parametrize("running", RUNNING)
@pytest.mark.parametrize("asked", ["TERM", "INT", "TERM twice"])
def test_a_worker_that_is_asked_to_end_does_so_after_its_job(
    begin: Any, witness: Witness, gate: Gate, asked: str, running: str
) -> None:
    daemon, worker = begin(running)

    ask(worker, asked)
    gate.open()

    if running != "idle":
        assert daemon.wait_for_state("job", "completed")["attempts"] == 1
        assert witness.runs() == {"job": ["1 start", "1 end"]}
    if asked == "INT":
        # That is for programs at a terminal.
        assert processes.alive(worker)
    else:
        wait_for(lambda: not processes.alive(worker), "the worker has ended")
        wait_for(lambda: [one["phase"] for one in daemon.workers()] == ["idle"], "another one is there")


@pytest.mark.parametrize("running", RUNNING)
def test_a_worker_that_is_killed_while_it_ends_loses_its_job_which_runs_again(
    begin: Any, witness: Witness, gate: Gate, running: str
) -> None:
    daemon, worker = begin(running)
    before = {process.pid for process in processes.of(daemon.home)} - {daemon.process.pid}

    ask(worker, "TERM then KILL")

    if running != "idle":
        wait_for(lambda: witness.started("job", 2) or daemon.state_of("job") == "completed", "it runs again")
        assert not [pid for pid in before if processes.alive(pid)]
        gate.open()
        daemon.wait_for_state("job", "completed")
        assert witness.overlaps() == []
    wait_for(lambda: [one["phase"] for one in daemon.workers()] == ["idle"], "another one is there")
    assert not processes.alive(worker)
