"""A daemon that goes away: how long it is waited for, what is said meanwhile, and where those who waited go on."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from queuectl_cli import reconnect
from queuectl_cli.client import dial
from queuectl_cli.errors import UnreachableError
from queuectl_cli.target import parse_url
from queuectld.protocol.where import places
from tests.cli.scripted import EVENT, HANG_UP, NOW, FakeDaemon, finished, job, output
from tests.system.waiting import wait_for

OVER = {"ok": {"jobs": [finished()], "stopped": False}}
STOPPED = {"ok": {"jobs": [finished(state="pending", exit_code=None)], "stopped": True}}
FOLLOWERS = ["run true", "wait job1", "logs -f job1", "events -f"]
FAMILY = 125


@pytest.fixture
def goes(daemon: FakeDaemon):
    """Have the daemon go away when it is asked for a stream: `clean`, or killed."""

    def goes(*, clean: bool) -> None:
        def go(_request) -> list[Any]:
            daemon.go(clean=clean)
            return [HANG_UP]

        for op in ("logs", "wait", "events"):
            daemon.answers[op] = go
        # `events -f` asks for the next number first.
        daemon.answers["events"] = lambda request: go(request) if request.get("follow") else {"ok": {"next": 5}}

    return goes


@pytest.fixture
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(reconnect, "KILLED_PATIENCE", 0.0)
    monkeypatch.setattr(reconnect, "STOPPED_PATIENCE", 0.0)


@pytest.mark.parametrize("line", FOLLOWERS)
@pytest.mark.parametrize(
    ("clean", "patience", "what"),
    [(True, "STOPPED_PATIENCE", "was stopped"), (False, "KILLED_PATIENCE", "went away")],
)
def test_one_that_stays_away_is_given_up_with_what_to_do(line, clean, patience, what, goes, call, monkeypatch) -> None:
    # The other one has nothing to do with it.
    monkeypatch.setattr(reconnect, "KILLED_PATIENCE", 60.0)
    monkeypatch.setattr(reconnect, "STOPPED_PATIENCE", 60.0)
    monkeypatch.setattr(reconnect, patience, 0.0)
    goes(clean=clean)
    begin = time.monotonic()

    called = call(*line.split())

    assert called.status == (FAMILY if line.startswith(("run", "wait")) else 69)
    assert time.monotonic() - begin < 30
    assert what in called.err
    assert "queuectl daemon start" in called.err
    assert ("queuectl wait gen0" in called.err) == line.startswith("run")


def test_one_that_was_stopped_is_waited_for_less_long_than_one_that_was_killed() -> None:
    assert 0 < reconnect.STOPPED_PATIENCE < reconnect.KILLED_PATIENCE < reconnect.LONGEST


def test_what_takes_longer_is_told_once_and_that_it_is_over_too(daemon, call, monkeypatch) -> None:
    monkeypatch.setattr(reconnect, "TELL_AFTER", 0.0)
    tries = iter(range(3))

    def answer(_request) -> list[Any]:
        # The connections after the first end before the greeting, and the last one is whole.
        daemon.budget, daemon.comes_back = 0, False
        return [HANG_UP]

    def sleep(_seconds: float) -> None:
        if next(tries, None) is None:
            daemon.answers["wait"] = OVER
            daemon.budget = None

    daemon.answers["wait"] = answer
    monkeypatch.setattr("queuectl_cli.waiting.time.sleep", sleep)

    called = call("wait", "job1")

    assert called.status == 0
    told = [line.split(" at ")[0] for line in called.err.splitlines()]
    assert told == ["queuectl: waiting for queuectld", "queuectl: queuectld is back"]


@pytest.mark.parametrize("line", ["run --wait-for 0.2 true", "wait --wait-for 0.2 job1"])
def test_patience_runs_out_while_the_daemon_is_away_too(line, goes, call) -> None:
    goes(clean=False)
    begin = time.monotonic()

    called = call(*line.split())

    assert called.status == 75, called.err
    assert time.monotonic() - begin < 5


def test_one_that_holds_its_state_directory_is_starting_and_waited_for(
    daemon, goes, call, monkeypatch, at_once
) -> None:
    goes(clean=True)
    left = iter(range(5))

    def holder(_target) -> int | None:
        if next(left, None) is None:
            daemon.answers["wait"] = OVER
            daemon.start()
        return 4711

    monkeypatch.setattr(reconnect, "holder", holder)

    assert call("wait", "job1").status == 0


def test_who_holds_the_state_directory_is_seen_without_asking_for_the_lock(tmp_path) -> None:
    place = tmp_path / "lock"
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT)
    assert reconnect.holder_of(str(tmp_path)) is None

    fcntl.flock(descriptor, fcntl.LOCK_EX)

    assert reconnect.holder_of(str(tmp_path)) == os.getpid()
    os.close(descriptor)
    assert reconnect.holder_of(str(tmp_path)) is None


def test_another_queue_in_its_place_is_an_error(daemon, call) -> None:
    def answer(_request) -> list[Any]:
        daemon.greeting["store"] = "other"
        return [HANG_UP]

    daemon.answers["wait"] = answer

    called = call("wait", "job1")

    assert called.status == FAMILY
    assert "another queue" in called.err


def test_another_protocol_in_its_place_is_exit_76(daemon, call) -> None:
    def answer(_request) -> list[Any]:
        daemon.greeting["protocol"] = [7]
        return [HANG_UP]

    daemon.answers["logs"] = answer

    assert call("logs", "-f", "job1").status == 76


def test_run_starts_a_daemon_that_was_killed_where_nobody_else_does(daemon, goes, call, monkeypatch) -> None:
    goes(clean=False)
    monkeypatch.delenv("QUEUECTL_AUTOSTART")
    monkeypatch.setattr(reconnect, "TELL_AFTER", 0.0)

    def start(app, target) -> Any:
        daemon.answers["logs"] = OVER
        daemon.start()
        return app.open(target), True

    monkeypatch.setattr("queuectl_cli.launch.start", start)

    called = call("run", "true")

    assert called.status == 0
    assert "Started queuectld" in called.err


@pytest.mark.parametrize(("line", "clean"), [("wait job1", False), ("logs -f job1", False), ("run true", True)])
def test_who_only_looks_starts_none_and_nobody_does_after_a_stop(line, clean, goes, call, monkeypatch) -> None:
    goes(clean=clean)
    monkeypatch.delenv("QUEUECTL_AUTOSTART")
    monkeypatch.setattr(reconnect, "TELL_AFTER", 0.0)
    monkeypatch.setattr(reconnect, "KILLED_PATIENCE", 0.1)
    monkeypatch.setattr(reconnect, "STOPPED_PATIENCE", 0.1)
    monkeypatch.setattr("queuectl_cli.launch.start", lambda *_: pytest.fail("it was started"))

    assert call(*line.split()).status in {69, FAMILY}


# Where they go on.


def test_a_stream_that_the_daemon_ends_because_it_stops_is_no_end(daemon, call) -> None:
    ends = {
        "logs": iter([[{"event": output("a")}, STOPPED], [{"event": output("b", offset=1)}, OVER]]),
        "wait": iter([[STOPPED], [{"event": finished()}, OVER]]),
        "events": iter([[{"ok": {"next": 5, "stopped": True}}], [{"event": EVENT}, {"ok": {"next": 6}}]]),
    }
    for op, answers in ends.items():
        daemon.answers[op] = lambda _request, answers=answers: next(answers)

    assert call("logs", "-f", "job1").out == "ab"
    assert call("wait", "job1").status == 0
    assert call("events", "-f", "--from", "5", "--json").out.count('"number": 5') == 1
    assert [request["start"] for request in daemon.of("events")] == [5, 5]


def test_several_jobs_go_on_each_from_its_place_by_their_whole_ids(daemon, call) -> None:
    mark = {"job": "job20", "attempt": 2, "stream": "stdout", "offset": 9, "at": NOW}
    answers = iter([[{"event": output("abc")}, {"event": mark}, HANG_UP], [OVER]])
    daemon.answers["logs"] = lambda _request: next(answers)

    called = call("logs", "-f", "-n", "0", "job1", "job2", "jobx")

    first, second = daemon.of("logs")
    assert (first["marks"], "places" in first) == (True, False)
    assert second["jobs"] == ["job1", "job20", "jobx"]
    assert second["places"] == [
        {"job": "job1", "attempt": 1, "offset": 3},
        {"job": "job20", "attempt": 2, "offset": 9},
    ]
    assert called.out == "job1 | abc\n"


def test_a_mark_is_not_shown_in_json_and_a_gap_is_told_once(daemon, call) -> None:
    mark = {"job": "job1", "attempt": 1, "stream": "stdout", "offset": 0, "at": NOW}
    gap = {"event": output("tail", offset=100, missing=96)}
    answers = iter([[{"event": mark}, gap, HANG_UP], [OVER]] * 2)
    daemon.answers["logs"] = lambda _request: next(answers)

    as_json, for_people = call("logs", "-f", "job1", "--json"), call("logs", "-f", "job1")

    assert as_json.out.count("\n") == 1
    assert for_people.err.count("96 bytes of output are missing") == 1


def test_the_jobs_that_were_meant_at_first_are_waited_for_to_the_end(daemon, call) -> None:
    daemon.answers["list"] = {"ok": {"jobs": [job("a"), job("b")], "next": None}}
    ends = [[{"event": finished("a")}, HANG_UP], [{"event": finished("a")}, {"event": finished("b")}, OVER]]
    answers = iter(ends * 2)
    daemon.answers["wait"] = lambda _request: next(answers)

    by_state, by_queue = call("wait", "--state", "pending", "--json"), call("wait", "--queue", "q", "--json")

    assert [row["id"] for row in by_state.json] == ["job1", "a", "b"]
    assert [row["id"] for row in by_queue.json] == ["job1", "a", "b"]
    one, two, three, four = (request["select"] for request in daemon.of("wait"))
    assert one == two == {"ids": ["a", "b"]}
    assert three == {"queue": ["q"]}
    assert (four["queue"], abs(four["until"] - time.time()) < 60) == (["q"], True)


def test_to_wait_for_none_of_a_state_is_not_to_wait_for_all(daemon, call) -> None:
    daemon.answers["list"] = {"ok": {"jobs": [], "next": None}}
    daemon.answers["count"] = {"ok": {"total": 0, "states": {}}}

    assert call("wait", "--state", "pending").status == 0
    assert daemon.of("wait") == []


def test_more_jobs_in_a_state_than_can_be_named_are_not_mixed_up_with_later_ones(daemon, call) -> None:
    daemon.answers["count"] = {"ok": {"total": 10_001, "states": {}}}
    daemon.answers["wait"] = [HANG_UP]

    called = call("wait", "--state", "pending")

    assert called.status == FAMILY
    assert "cannot be told from those that came later" in called.err
    assert len(daemon.of("wait")) == 1


def test_what_a_wait_for_a_state_has_told_stays_told(daemon, call) -> None:
    ends = [[{"event": finished(state="processing")}, HANG_UP], [{"event": finished(state="dead")}, OVER]]
    answers = iter(ends)
    daemon.answers["wait"] = lambda _request: next(answers)

    assert call("wait", "job1", "--for", "processing").status == 0


# A signal while nobody is there to take it on.


@pytest.fixture
def attached(daemon: FakeDaemon):
    """A `run` that has shown what its job said; its daemon then goes away as one that is killed."""
    follows = {}

    def logs(request) -> list[Any]:
        follows["id"] = request["id"]
        return [] if request.get("places") else [{"event": output("ready\n")}]

    def cancelled(_request) -> list[Any]:
        ended = finished(state="cancelled", reason="cancelled", exit_code=None, signal=15)
        return [{"ok": {"jobs": ["job1"]}}, {"id": follows["id"], "ok": {"jobs": [ended], "stopped": False}}]

    daemon.answers |= {"logs": logs, "cancel": cancelled}
    process = subprocess.Popen(
        [sys.executable, "-m", "queuectl_cli.main", "run", "--id", "job1", "sleep 9"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"ready\n"
    with process:
        yield process
        process.kill()


def told(process) -> bytes:
    """Return the next thing that it says, but for how long all this takes."""
    return next(line for line in process.stderr if not line.startswith(b"queuectl: waiting for "))


def test_signals_wait_for_the_daemon_and_the_second_interrupt_cancels(daemon, attached) -> None:
    daemon.go(clean=False)
    attached.send_signal(signal.SIGINT)
    assert told(attached) == b"queuectl: SIGINT goes to job job1, as soon as queuectld is back\n"
    attached.send_signal(signal.SIGINT)
    assert told(attached).startswith(b"queuectl: cancelling job job1, as soon as queuectld is back")

    daemon.start()

    assert attached.wait(10) == 143
    assert [request["number"] for request in daemon.of("signal")] == [signal.SIGINT]
    assert len(daemon.of("cancel")) == 1


def test_the_third_interrupt_leaves_the_job_in_its_queue(daemon, attached) -> None:
    daemon.go(clean=False)
    for _ in range(2):
        attached.send_signal(signal.SIGINT)
        assert b"as soon as queuectld is back" in told(attached)
    attached.send_signal(signal.SIGINT)

    assert attached.wait(10) == 130
    assert b"job job1 stays in its queue" in attached.stderr.read()


def test_a_signal_that_was_not_answered_is_passed_on_again(daemon, attached) -> None:
    lost = iter([[HANG_UP]])
    daemon.answers["signal"] = lambda _request: next(lost, {"ok": {}})

    attached.send_signal(signal.SIGTERM)

    wait_for(lambda: len(daemon.of("signal")) == 2, "it was passed on again")
    attached.send_signal(signal.SIGINT)
    wait_for(lambda: len(daemon.of("signal")) == 3, "the next one goes at once")
    assert [request["number"] for request in daemon.of("signal")] == [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]


def test_how_a_job_ended_is_returned_though_nobody_is_left_to_be_told_that_it_was_seen(daemon, call, at_once) -> None:
    daemon.answers["logs"] = {"ok": {"jobs": [finished(state="dead", exit_code=7)], "stopped": False}}

    def wait(_request) -> list[Any]:
        daemon.go(clean=False)
        return [HANG_UP]

    daemon.answers["wait"] = wait

    assert call("run", "false").status == 7


def test_an_interrupt_ends_the_wait_for_a_daemon_that_has_not_got_the_job_yet(daemon) -> None:
    def gone(_request) -> list[Any]:
        daemon.go(clean=False)
        return [HANG_UP]

    daemon.answers["enqueue"] = gone
    with subprocess.Popen(
        [sys.executable, "-m", "queuectl_cli.main", "run", "true"], stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: daemon.of("enqueue"))
        process.send_signal(signal.SIGINT)

        assert process.wait(10) == 130


def test_a_crowd_at_the_door_of_the_daemon_is_waited_for(tmp_path) -> None:
    path = tmp_path / "s"
    target = parse_url(f"unix://{path}", places({}, os.getuid(), None, os.path.isdir))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        crowd = [dial(target)]

        def let_in() -> None:
            crowd.append(listening.accept()[0])

        letting = threading.Timer(0.2, let_in)
        letting.start()
        crowd.append(dial(target, 20.0))
        letting.join()

        with pytest.raises(UnreachableError, match="no answer"):
            dial(target, 0.1)
    for connection in crowd:
        connection.close()
