"""What becomes of a command that fails: tried again, later and later, then dead until a person decides."""

from __future__ import annotations

import itertools
import json
from datetime import datetime
from typing import Any

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.witness import Witness


def seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def pauses(history: list[dict[str, Any]]) -> list[float]:
    """Return the seconds between the end of each attempt and the start of the next."""
    return [seconds(after["started_at"]) - seconds(before["ended_at"]) for before, after in itertools.pairwise(history)]


def check_dead_after_four_attempts(daemon: LiveDaemon, delays: tuple[float, float, float], slack: float) -> None:
    with daemon.wire() as wire:
        job, history = wire.job("doomed"), wire.history("doomed")
        outputs = [wire.output("doomed", attempt=number) for number in (1, 2, 3, 4)]
    assert (job["state"], job["attempts"], job["retries_left"]) == ("dead", 4, 0)
    assert [(attempt["number"], attempt["reason"], attempt["exit_code"]) for attempt in history] == [
        (number, "exited", 10 + number) for number in (1, 2, 3, 4)
    ]
    assert outputs == [f"try {number}\n".encode() for number in (1, 2, 3, 4)]
    for waited, asked in zip(pauses(history), delays, strict=True):
        assert asked <= waited < asked + slack


FAILING = "echo try $QUEUECTL_ATTEMPT; exit $((10 + QUEUECTL_ATTEMPT))"


@pytest.mark.slow
def test_three_retries_start_2_4_and_8_seconds_after_the_failure_before_them_then_the_job_is_dead(daemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue(FAILING, id="doomed", max_retries=3, backoff_base=2)

    daemon.wait_for_state("doomed", "dead", deadline=40)

    check_dead_after_four_attempts(daemon, (2, 4, 8), slack=1)


def test_the_base_of_the_back_off_is_the_jobs_own(daemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue(FAILING, id="doomed", max_retries=3, backoff_base=0.5)

    daemon.wait_for_state("doomed", "dead")

    check_dead_after_four_attempts(daemon, (0.5, 0.25, 0.125), slack=0.6)


def test_while_it_waits_for_its_retry_a_job_is_failed_and_takes_no_worker(new_daemon) -> None:
    daemon: LiveDaemon = new_daemon(workers=1).start()
    with daemon.wire() as wire:
        wire.enqueue("exit 3", id="waits", backoff_base=3600)
        waiting = daemon.wait_for_state("waits", "failed")
        wire.enqueue("true", id="other")

        daemon.wait_for_state("other", "completed")

        assert (waiting["exit_code"], waiting["retries_left"], waiting["waiting"]) == (3, 2, "retry_wait")
        assert seconds(waiting["run_at"]) - seconds(waiting["ended_at"]) == pytest.approx(3600, abs=5)


def test_a_retry_that_waits_keeps_its_time_through_a_crash(daemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("exit 3", id="waits", backoff_base=3600)
    before = daemon.wait_for_state("waits", "failed")

    daemon.again()

    with daemon.wire() as wire:
        assert wire.job("waits") == before


def test_a_command_that_does_not_exist_is_tried_again_and_ends_dead_with_127(daemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("no-such-program-anywhere --now", id="shell", max_retries=1, backoff_base=0.1)
        wire.call("enqueue", jobs=[{"id": "argv", "argv": ["/no/such/program"], "max_retries": 1, "backoff_base": 0.1}])

        for name, reason in (("shell", "exited"), ("argv", "not_started")):
            daemon.wait_for_state(name, "dead")

            assert [(attempt["exit_code"], attempt["reason"]) for attempt in wire.history(name)] == [(127, reason)] * 2
        assert "not found" in wire.output("shell").decode()
        assert "/no/such/program" in wire.job("argv")["error"]


def test_a_program_that_may_not_be_executed_ends_with_126(daemon) -> None:
    (daemon.home / "plain").write_text("no program")
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"id": "plain", "argv": [str(daemon.home / "plain")], "max_retries": 0}])

    job = daemon.wait_for_state("plain", "dead")

    assert (job["exit_code"], job["reason"]) == (126, "not_started")


def test_a_directory_that_is_gone_is_a_failure_of_the_job(new_daemon, gate: Gate) -> None:
    daemon: LiveDaemon = new_daemon(workers=1).start()
    place = daemon.home / "gone"
    place.mkdir()
    daemon.cli("enqueue", gate.wait())
    daemon.cli("enqueue", "--id", "late", "--max-retries", "0", "pwd", cwd=place)

    place.rmdir()
    gate.open()

    job = daemon.wait_for_state("late", "dead")
    assert (job["exit_code"], job["reason"]) == (127, "not_started")
    assert str(place) in job["error"]


def test_a_retry_by_a_person_gives_a_fresh_budget_and_keeps_the_history(daemon, witness: Witness) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command("[ -e mended ]"), id="job3", max_retries=1, backoff_base=0.1, cwd=str(daemon.home))
        daemon.wait_for_state("job3", "dead")
        (daemon.home / "mended").touch()

        done = daemon.cli("dlq", "retry", "job3")

        assert done.code == 0, done
        job = daemon.wait_for_state("job3", "completed")
        assert (job["attempts"], job["retries_left"]) == (3, 1)
        assert [attempt["exit_code"] for attempt in wire.history("job3")] == [1, 1, 0]
        assert daemon.cli("dlq", "list", "--json").out.strip() == "[]"


def test_a_retry_that_waits_can_be_hurried_and_costs_no_more_than_it_would_have(daemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("exit 3", id="waits", max_retries=1, backoff_base=3600)
    daemon.wait_for_state("waits", "failed")

    done = daemon.cli("retry", "waits")

    assert done.code == 0, done
    assert daemon.wait_for_state("waits", "dead")["attempts"] == 2


def test_a_dead_job_can_be_discarded(daemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("exit 1", id="letter", max_retries=0)
    daemon.wait_for_state("letter", "dead")
    listed = [job["id"] for job in json.loads(daemon.cli("dlq", "list", "--json").out)]

    done = daemon.cli("dlq", "discard", "letter")

    assert listed == ["letter"]
    assert done.code == 0, done
    assert json.loads(daemon.cli("dlq", "list", "--json").out) == []


def test_a_changed_configuration_decides_later_retries_and_survives_a_restart(daemon) -> None:
    assert daemon.cli("config", "set", "max-retries", "0").code == 0
    with daemon.wire() as wire:
        wire.enqueue("exit 1", id="first")
        daemon.wait_for_state("first", "dead")

    daemon.again()

    with daemon.wire() as wire:
        wire.enqueue("exit 1", id="second")
        assert daemon.wait_for_state("second", "dead")["attempts"] == 1
    shown = json.loads(daemon.cli("config", "list", "--show-origin", "--json").out)
    assert [(one["value"], one["origin"]) for one in shown if one["key"] == "max_retries"] == [(0, "override")]
