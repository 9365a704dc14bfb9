"""Requests that are sent without waiting for answers: each sees what those before it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.wire import Wire

JOBS = [{"command": "true", "delay": 3600}] * 500


@pytest.fixture
def daemon(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    return new_daemon(workers=0).start()


def answers(wire: Wire, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Send all, then return their answers by the order of the requests."""
    numbers = [wire.send(**request) for request in requests]
    found = {}
    while len(found) < len(numbers):
        line = wire.line()
        if "event" not in line:
            found[line["id"]] = line
    return [found[number] for number in numbers]


@pytest.mark.parametrize("verb", [{"op": "cancel", "select": {}}, {"op": "cancel", "select": {}, "no_wait": True}])
def test_a_change_of_many_meets_the_jobs_that_were_stored_right_before_it(
    daemon: LiveDaemon, verb: dict[str, Any]
) -> None:
    enqueue = {"op": "enqueue", "jobs": JOBS}
    with daemon.wire() as wire:
        for _ in range(10):
            stored, changed, counted = answers(wire, enqueue, verb, {"op": "count", "select": {"state": ["pending"]}})

            assert len(stored["ok"]["jobs"]) == len(JOBS)
            assert changed["ok"]["count"] == len(JOBS)
            assert counted["ok"]["total"] == 0


def test_a_question_sees_all_changes_in_front_of_it(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        for number in range(20):
            name = f"job{number}"
            _, job, listed, events = answers(
                wire,
                {"op": "enqueue", "jobs": [{"command": "true", "id": name}]},
                {"op": "get", "job": name},
                {"op": "list", "select": {"ids": [name]}},
                {"op": "events", "job": name, "start": 1},
            )

            assert job["ok"]["job"]["id"] == name
            assert len(listed["ok"]["jobs"]) == 1
            assert events["ok"]["next"] == number + 2
