"""Nothing polls: what can start does at once, what waits costs nothing, and a due time wakes the daemon by itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for


def seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def test_a_job_starts_when_its_time_has_come_and_not_before(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("true", id="later", delay=0.7)
        job = wire.job("later")
        daemon.wait_for_state("later", "completed")
        begun = seconds(wire.history("later")[0]["started_at"])

    assert job["waiting"] == "not_due"
    assert 0 <= begun - seconds(job["run_at"]) < 1


def test_an_idle_daemon_hardly_ever_wakes_up(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(vitals_interval=3600).start()
    with daemon.wire() as wire:
        wire.enqueue("true", id="one")
        daemon.wait_for_state("one", "completed")
        wire.enqueue("true", id="tomorrow", delay="1d")
    pid = daemon.pid
    before, since = switches(pid), time.monotonic()

    # What must not happen is watched for as long as it would take to happen often.
    wait_for(lambda: time.monotonic() - since > 2, "two seconds are over", every=0.5)

    assert switches(pid) - before <= 10


def switches(pid: int) -> int:
    """Return how often the threads of a process have gone to sleep of their own accord."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        total += int(lines["voluntary_ctxt_switches"])
    return total


def test_every_event_of_a_job_is_told_in_order_and_can_be_read_again_from_any_number(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("[ $QUEUECTL_ATTEMPT = 2 ]", id="wobbly", backoff_base=0.05)
        daemon.wait_for_state("wobbly", "completed")

        events = list(wire.stream("events", start=0, job="wobbly"))
        rest = list(wire.stream("events", start=events[2]["number"], job="wobbly"))

    assert [event.get("state") for event in events] == ["pending", "processing", "failed", "processing", "completed"]
    assert [event["number"] for event in events] == sorted({event["number"] for event in events})
    assert rest == events[2:]


def test_the_daemon_logs_one_json_object_a_line_and_one_line_for_each_attempt_that_ended(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("exit 7", id="logged", max_retries=0, env={"SECRET": "swordfish"})
    daemon.wait_for_state("logged", "dead")
    daemon.stop()

    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]

    ended = [line for line in lines if line["event"] == "job.finished"]
    assert [(line["job_id"], line["attempt"], line["exit_code"]) for line in ended] == [("logged", 1, 7)]
    assert "swordfish" not in daemon.log.read_text()
