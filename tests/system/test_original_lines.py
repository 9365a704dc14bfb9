"""Every command line of the queue that this one grew out of works word for word."""

from __future__ import annotations

import json

from tests.system.livedaemon import LiveDaemon


def test_the_first_example(daemon: LiveDaemon) -> None:
    lines = [
        ("enqueue", '{"id":"job1","command":"echo hello"}'),
        ("enqueue", '{"id":"job2","command":"echo success"}'),
        ("enqueue", '{"id":"job3","command":"wrongcmd","max_retries":1,"backoff_base":0.1}'),
        ("worker", "--count", "1"),
        ("list",),
        ("dlq",),
    ]

    for words in lines:
        done = daemon.cli(*words)
        assert done.code == 0, (words, done)
    daemon.wait_for_counts(completed=2, dead=1)

    assert daemon.cli("logs", "job1").out == "hello\n"
    assert daemon.cli("logs", "job2").out == "success\n"
    listed = daemon.cli("list").out
    assert all(job in listed for job in ("job1", "job2", "job3"))
    dead = daemon.cli("dlq").out
    assert "job3" in dead
    assert "job1" not in dead
    assert daemon.cli("dlq", "retry", "job3").code == 0


def test_the_classic_commands(daemon: LiveDaemon) -> None:
    assert daemon.cli("worker", "stop").code == 0
    assert daemon.cli("enqueue", '{"id":"job1","command":"sleep 0.1"}').code == 0
    pending = daemon.cli("list", "--state", "pending")
    assert "job1" in pending.out
    started = daemon.cli("worker", "start", "--count", "3")
    assert started.code == 0, started
    daemon.wait_for_counts(completed=1)
    status = daemon.cli("status")
    assert status.code == 0, status
    assert "completed" in status.out
    assert daemon.cli("config", "set", "max-retries", "3").code == 0
    assert "max_retries" in daemon.cli("config", "get").out.replace("max-retries", "max_retries")
    assert daemon.cli("config", "get", "max-retries").out.strip() == "3"
    assert daemon.cli("dlq", "list").code == 0


def test_a_list_in_json_is_one_array_and_nothing_else(daemon: LiveDaemon) -> None:
    empty = daemon.cli("list", "--state", "pending", "--json")
    daemon.cli("worker", "stop")
    for name in ("a", "b", "c"):
        daemon.cli("enqueue", "--id", name, "true")
    full = daemon.cli("list", "--state", "pending", "--json")

    assert (empty.code, json.loads(empty.out), empty.err) == (0, [], "")
    assert [job["id"] for job in json.loads(full.out)] == ["a", "b", "c"]
    assert full.err == ""


PROMISED = """id command argv state reason attempts max_retries retries_left queue priority owner tags created_at
    updated_at run_at started_at ended_at duration exit_code signal error waiting"""


def test_a_job_in_json_has_what_is_promised(daemon: LiveDaemon) -> None:
    daemon.cli("enqueue", "--id", "a", "--tag", "k=v", "true")
    daemon.wait_for_state("a", "completed")

    [job] = json.loads(daemon.cli("list", "--json").out)

    assert set(PROMISED.split()) <= set(job)
    assert job["tags"] == {"k": "v"}
    assert job["created_at"].endswith("Z")
    [shown] = json.loads(daemon.cli("show", "--json", "a").out)
    assert [attempt["exit_code"] for attempt in shown["history"]] == [0]
