"""A job that waits for another one lends its worker: with one worker only, jobs that start jobs never lock up."""

from __future__ import annotations

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for


@pytest.fixture
def daemon(new_daemon) -> LiveDaemon:
    return new_daemon(workers=1).start()


def test_jobs_that_run_jobs_that_run_jobs_need_one_worker(daemon: LiveDaemon) -> None:
    done = daemon.cli("run", "queuectl run 'queuectl run \"echo deep; exit 7\"'", deadline=30)

    assert (done.code, done.out) == (7, "deep\n")
    wait_for(lambda: len(daemon.workers()) == 1, "the workers that were lent have ended")


def test_a_job_that_waits_for_another_one_needs_no_second_worker(daemon: LiveDaemon) -> None:
    done = daemon.cli("run", "queuectl enqueue --id other --max-retries 0 'exit 3' && queuectl wait other", deadline=30)

    assert done.code == 3


def test_two_jobs_that_wait_at_the_same_time_leave_no_more_than_one_running_beside_them(daemon: LiveDaemon) -> None:
    place = daemon.home / "inner"
    inner = f"mkdir {place} || exit 99; sleep 0.1; rmdir {place}"
    with daemon.wire() as wire:
        wire.call(
            "enqueue",
            jobs=[
                {"id": f"outer{n}", "argv": ["queuectl", "run", inner], "env": daemon.env, "max_retries": 0}
                for n in range(2)
            ],
        )

    for n in range(2):
        assert daemon.wait_for_state(f"outer{n}", "completed", "dead")["exit_code"] == 0


def test_a_job_goes_on_waiting_for_a_running_one_across_daemons(daemon: LiveDaemon, gate: Gate) -> None:
    run = daemon.spawn_cli("run", "--id", "outer", f"queuectl run --id inner '{gate.wait()}; exit 7'")
    daemon.wait_for_state("inner", "processing")

    daemon.again()
    gate.open()

    run.communicate(timeout=30)
    assert run.returncode == 7
    assert [daemon.wait_for_state(name, "dead")["attempts"] for name in ("outer", "inner")] == [1, 1]


def test_a_job_that_waits_for_one_that_has_not_begun_lends_its_worker_to_the_next_daemon(daemon: LiveDaemon) -> None:
    run = daemon.spawn_cli("run", "--id", "outer", "queuectl run --in 1s --id inner 'exit 7'")
    daemon.wait_for_state("inner", "pending")

    daemon.again()

    run.communicate(timeout=30)
    assert run.returncode == 7
    assert daemon.wait_for_state("inner", "dead")["attempts"] == 1
