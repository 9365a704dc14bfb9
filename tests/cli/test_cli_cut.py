"""The daemon dies in the middle of what it says: of each command line, after any byte of all that is sent to it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

import pytest

from queuectl_cli import reconnect
from tests.cli.scripted import EVENT, FakeDaemon, finished, output
from tests.cli.test_cli_requests import COMMAND_LINES

# Else the ends of lines, the bytes beside them, and a sample of the others.
EVERY = bool(os.environ.get("QUEUECTL_TESTS_EVERY_CALL"))
SAMPLE = 97

# What two jobs wrote, attempt by attempt: pieces with their streams.
WRITTEN = {
    "job1": [[("stdout", "one\n"), ("stderr", "oops\n")], [("stdout", "two "), ("stdout", "three\n")]],
    "job2": [[("stdout", "alpha\nbe"), ("stdout", "ta\n")]],
}


def read_on(request) -> list[dict]:
    """Answer `logs` as the daemon does: each job from its place."""
    places = {place["job"]: (place["attempt"], place["offset"]) for place in request.get("places", [])}
    told = []
    for job in request["jobs"]:
        begin = places.get(job, (0, 0))
        for number, pieces in enumerate(WRITTEN.get(job, WRITTEN["job1"]), 1):
            offset = 0
            for stream, data in pieces:
                if (number, offset) >= begin or begin == (0, 0):
                    told.append({"event": output(data, job=job, attempt=number, offset=offset, stream=stream)})
                offset += len(data)
    ends = [finished(job, state="dead", exit_code=7, attempts=2) for job in request["jobs"]]
    return [*told, {"ok": {"jobs": ends, "stopped": False}}]


def tell(request) -> list[dict]:
    """Answer `events` as the daemon does: from a number on."""
    numbers = range(max(5, request.get("start") or 5), 9)
    limit = request.get("limit") or len(numbers)
    told = [{"event": {**EVENT, "number": number, "event": "job.seen"}} for number in numbers[:limit]]
    return [*told, {"ok": {"next": 9, "stopped": False}}]


def told_of(request) -> list[dict]:
    jobs = [finished(name, state="dead", exit_code=7) for name in request["select"].get("ids", ["job1", "job2"])]
    return [*({"event": job} for job in jobs), {"ok": {"jobs": jobs, "stopped": False}}]


@pytest.fixture
def daemon(daemon: FakeDaemon) -> FakeDaemon:
    daemon.answers |= {"logs": read_on, "events": tell, "wait": told_of}
    return daemon


@pytest.fixture(autouse=True)
def _no_check(monkeypatch) -> None:
    # What the program of the daemon says takes half a second, and is none of this.
    monkeypatch.setattr("queuectl_cli.doctor.place.examine", lambda *_: (0, []))


def cuts(daemon: FakeDaemon, begin: int = 0) -> Iterator[int]:
    """Yield after how many bytes to cut, now that the daemon has said all it had to say."""
    daemon.settle()
    ends = list(daemon.ends)
    beside = {end + way for end in [0, *ends] for way in (-2, -1, 0, 1)}
    for at in range(begin, ends[-1]):
        if EVERY or at in beside or at % SAMPLE == 0:
            yield at
            daemon.settle()
            daemon.budget = None


FOLLOWERS = [
    "run --id job1 true",
    "run --id job1 --max-retries 1 true",
    "logs -f job1",
    "logs -f job1 job2",
    "logs -f job1 job2 --json",
    "events -f --from 5 --limit 3",
    "wait job1",
    "wait --queue q --json",
    "wait --state pending",
    "enqueue true",
    "enqueue -",
    "enqueue --atomic -",
]


@pytest.mark.parametrize("line", FOLLOWERS)
def test_who_waits_sees_each_thing_once_wherever_the_daemon_dies(line, daemon, call, stdin) -> None:
    def run():
        stdin(b'{"id":"a","command":"x"}\n{"id":"b","command":"y"}\n')
        return call(*shlex.split(line))

    whole = run()
    # One that dies before it has greeted was not there.
    for at in cuts(daemon, begin=daemon.ends[0]):
        daemon.budget, daemon.requests = at, []
        cut = run()

        assert (cut.status, cut.out) == (whole.status, whole.out), (at, cut.err)
        assert "Error" not in cut.err, at
        if line.startswith("run"):
            assert any(request.get("mark_seen") for request in daemon.of("wait")), at


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_daemon_that_dies_and_stays_away_is_an_error_with_its_exit_code(line, daemon, call, monkeypatch) -> None:
    monkeypatch.setattr(reconnect, "KILLED_PATIENCE", 0.0)
    words = shlex.split(line)
    whole = call(*words)
    ours = 125 if words[0] in {"run", "wait"} or "--exit-status" in words else 69
    daemon.comes_back = False
    for at in cuts(daemon):
        daemon.budget = at
        cut = call(*words)

        if cut.status == whole.status and cut.out == whole.out:
            # All that was needed had come.
            continue
        assert cut.status == expected(words, ours), (at, cut.err)
        assert "fault of queuectl" not in cut.err, (at, cut.err)
        assert words[0] in {"doctor", "version"} or "Error: " in cut.err or '{"error": ' in cut.err, (at, cut.err)


def expected(words: list[str], ours: int) -> int:
    # They tell of a daemon that does not answer.
    return {"doctor": 1, "version": 0}.get(words[0], ours)
