from __future__ import annotations

import base64
import time

import pytest

from queuectld.protocol.output import head_size
from queuectld.service.output_files import output_base
from queuectld.worker.output import Output
from tests.process.server_rig import Rig
from tests.system.waiting import wait_for


class Running:
    """A job that runs, as far as the server can tell, and what its worker keeps of its output."""

    def __init__(self, rig: Rig, client, *, limit: int = 1 << 20, **fields):
        self.rig = rig
        self.id = client.add(limits={"output": limit}, **fields)
        self.limit = limit
        self.begin()

    def begin(self):
        claimed = self.rig.start_job()
        self.token, self.seq, self.number = claimed.attempt.token, claimed.job.seq, claimed.attempt.number
        base = output_base(self.rig.state / "output", self.seq, self.number)
        base.parent.mkdir(parents=True, exist_ok=True)
        self.output = Output(str(base), self.limit)

    def write(self, data: bytes, stream: int = 1, at: float | None = None):
        self.output.take(data, stream, time.time() if at is None else at)
        grown = self.rig.control.listeners.get(self.token)
        if grown is not None:
            self.rig.call(grown)

    def end(self, **outcome):
        self.output.finish(time.time())
        told = {"output_bytes": self.output.size, "output_missing": self.output.missing} | outcome
        self.rig.end_job(self.token, **told)


def collect(client, stream):
    """Return the events of a stream, and its end."""
    events = []
    while True:
        answer = client.receive()
        assert answer["id"] == stream, answer
        if "event" not in answer:
            return events, answer
        events.append(answer["event"])


def text(events):
    return b"".join(base64.b64decode(one["b64"]) if "b64" in one else one["data"].encode() for one in events)


def logs(client, **request):
    events, end = collect(client, client.send(op="logs", **request))
    return events, end["ok"]


def test_the_output_of_a_finished_job_comes_in_the_order_written(rig, client):
    job = Running(rig, client)
    job.write(b"one\n")
    job.write(b"oops\n", 2)
    job.write(b"two\n")
    job.end()

    events, end = logs(client, jobs=[job.id])

    assert [(one["stream"], one["data"], one["offset"]) for one in events] == [
        ("stdout", "one\n", 0),
        ("stderr", "oops\n", 4),
        ("stdout", "two\n", 9),
    ]
    assert (end["jobs"][0]["state"], end["jobs"][0]["exit_code"], end["stopped"]) == ("completed", 0, False)


def test_a_job_without_output_has_none(rig, client):
    job = Running(rig, client)
    job.end()

    events, end = logs(client, jobs=[job.id])

    assert events == []
    assert end["jobs"][0]["state"] == "completed"


def test_a_follower_sees_what_a_running_job_writes_until_it_is_over(rig, client):
    job = Running(rig, client)
    job.write(b"first\n")
    stream = client.send(op="logs", jobs=[job.id], follow=True)
    assert client.receive()["event"]["data"] == "first\n"
    wait_for(lambda: job.token in rig.control.listeners)

    job.write(b"second\n")
    assert client.receive()["event"]["data"] == "second\n"
    job.write(b"last\n")
    job.end()

    events, end = collect(client, stream)
    assert text(events) == b"last\n"
    assert end["ok"]["jobs"][0]["state"] == "completed"
    assert rig.control.listeners == {}


def test_a_follower_stays_across_retries(rig, client):
    job = Running(rig, client, max_retries=1, backoff_base=0)
    stream = client.send(op="logs", jobs=[job.id], follow=True)
    job.write(b"try 1\n")
    job.end(exit_code=1)
    wait_for(lambda: client_sees(rig, job.id) == "failed")
    job.begin()
    job.write(b"try 2\n")
    job.end()

    events, end = collect(client, stream)

    assert [(one["attempt"], one["data"]) for one in events] == [(1, "try 1\n"), (2, "try 2\n")]
    assert end["ok"]["jobs"][0] | {"error": None} == {
        "id": job.id,
        "state": "completed",
        "reason": "exited",
        "exit_code": 0,
        "signal": None,
        "attempts": 2,
        "error": None,
        "ran": True,
    }


def client_sees(rig, job_id):
    return rig.do(lambda store: store.get(job_id).state.value)


def test_a_job_that_has_not_begun_is_followed_from_its_beginning(rig, client):
    job_id = client.add()
    stream = client.send(op="logs", jobs=[job_id], follow=True)
    client.send(op="ping")
    assert client.receive()["ok"]["pid"]
    rig.connect().ok(op="cancel", select={"ids": [job_id]})

    events, end = collect(client, stream)

    assert events == []
    assert end["ok"]["jobs"][0]["state"] == "cancelled"
    assert end["ok"]["jobs"][0]["ran"] is False


def test_attempts_can_be_chosen(rig, client):
    job = Running(rig, client, max_retries=1, backoff_base=0)
    job.write(b"try 1\n")
    job.end(exit_code=1)
    job.begin()
    job.write(b"try 2\n")
    job.end()

    assert text(logs(client, jobs=[job.id])[0]) == b"try 2\n"
    assert text(logs(client, jobs=[job.id], attempt=1)[0]) == b"try 1\n"
    assert text(logs(client, jobs=[job.id], attempt="all")[0]) == b"try 1\ntry 2\n"
    assert client.error(op="logs", jobs=[job.id], attempt=3)["code"] == "no_such_attempt"


def test_streams_offsets_lines_and_times_narrow_the_output(rig, client):
    job = Running(rig, client)
    now = time.time()
    job.write(b"a\nb\n", at=now - 100)
    job.write(b"error\n", 2, at=now - 50)
    job.write(b"c\nd\n", at=now - 10)
    job.end()

    assert text(logs(client, jobs=[job.id], stream="stderr")[0]) == b"error\n"
    assert text(logs(client, jobs=[job.id], lines=3)[0]) == b"error\nc\nd\n"
    assert text(logs(client, jobs=[job.id], lines=3, stream="stdout")[0]) == b"b\nc\nd\n"
    assert text(logs(client, jobs=[job.id], lines=0)[0]) == b""
    assert text(logs(client, jobs=[job.id], offset=6)[0]) == b"ror\nc\nd\n"
    assert text(logs(client, jobs=[job.id], since=now - 55)[0]) == b"error\nc\nd\n"


def test_output_that_is_no_text_travels_whole(rig, client):
    data = bytes(range(256)) * 10
    job = Running(rig, client)
    job.write(data)
    job.end()

    events, _ = logs(client, jobs=[job.id])

    assert text(events) == data
    assert "b64" in events[0]


def test_characters_are_not_torn_apart(rig, client):
    job = Running(rig, client)
    data = ("€" * 50_000).encode()
    for start in range(0, len(data), 1000):
        job.write(data[start : start + 1000], at=time.time() + start)
    stream = client.send(op="logs", jobs=[job.id], follow=True)
    job.end()

    events, _ = collect(client, stream)

    assert all("data" in one for one in events)
    assert text(events) == data


def test_half_a_character_waits_for_its_rest(rig, client):
    job = Running(rig, client)
    job.write(b"a\xe2\x82")
    stream = client.send(op="logs", jobs=[job.id], follow=True)
    assert client.receive()["event"]["data"] == "a"
    wait_for(lambda: job.token in rig.control.listeners)

    job.write(b"\xac")
    assert client.receive()["event"]["data"] == "€"
    job.write(b"\xe2")
    job.end()

    events, _ = collect(client, stream)
    assert [one["b64"] for one in events] == [base64.b64encode(b"\xe2").decode()]


def test_what_was_not_kept_is_told(rig, client):
    job = Running(rig, client, limit=1000)
    data = b"".join(b"%07d\n" % number for number in range(500))
    for start in range(0, len(data), 100):
        job.write(data[start : start + 100], at=time.time() + start)
    job.end()

    events, _ = logs(client, jobs=[job.id])

    front, back = head_size(1000), 500
    assert text(events) == data[:front] + data[-back:]
    assert sum(one.get("missing", 0) for one in events) == len(data) - 1000
    seam = next(one for one in events if one.get("missing"))
    assert seam["offset"] == len(data) - back


def test_a_follower_past_the_limit_gets_a_true_copy_with_its_gaps(rig, client):
    job = Running(rig, client, limit=4000)
    stream = client.send(op="logs", jobs=[job.id], follow=True)
    wait_for(lambda: job.token in rig.control.listeners)
    data = b"".join(b"%07d\n" % number for number in range(4000))
    for start in range(0, len(data), 80):
        job.write(data[start : start + 80], at=time.time() + start)
    job.end()

    events, _ = collect(client, stream)

    position = 0
    for one in events:
        assert one["offset"] == position + one.get("missing", 0)
        assert one["data"].encode() == data[one["offset"] : one["offset"] + len(one["data"])]
        position = one["offset"] + len(one["data"])
    assert position == len(data)


def test_removed_output_is_told_as_missing(rig, client):
    job = Running(rig, client)
    job.write(b"gone\n")
    job.end()
    for suffix in (".log", ".idx"):
        output_base(rig.state / "output", job.seq, 1).with_name(f"{job.seq}.1{suffix}").unlink()

    events, _ = logs(client, jobs=[job.id])

    assert [(one["data"], one["missing"]) for one in events] == [("", 5)]


def test_several_jobs_are_followed_at_once(rig, client):
    one, two = Running(rig, client), Running(rig, client)
    stream = client.send(op="logs", jobs=[one.id, two.id], follow=True)
    two.write(b"two\n")
    one.write(b"one\n")
    one.end()
    two.end()

    events, end = collect(client, stream)

    assert {(event["job"], event["data"]) for event in events} == {(one.id, "one\n"), (two.id, "two\n")}
    assert [job["id"] for job in end["ok"]["jobs"]] == [one.id, two.id]


def test_a_stopped_follower_says_so(rig, client):
    job = Running(rig, client)
    stream = client.send(op="logs", jobs=[job.id], follow=True)
    wait_for(lambda: job.token in rig.control.listeners)

    client.send(op="stop", stream=stream)

    _, end = collect(client, stream)
    assert end["ok"]["stopped"] is True
    assert end["ok"]["jobs"][0]["state"] == "processing"


def test_the_last_lines_are_shown_with_the_job(rig, client):
    job = Running(rig, client)
    job.write(b"".join(b"line %d\n" % number for number in range(20)))

    assert client.ok(op="get", job=job.id, tail=2)["output_tail"] == "line 18\nline 19\n"


# wait


def test_a_wait_ends_when_all_have_come_to_rest(rig, client):
    one, two = Running(rig, client), Running(rig, client, max_retries=0)
    stream = client.send(op="wait", select={"ids": [one.id, two.id]})
    two.end(exit_code=3)
    assert client.receive()["event"]["id"] == two.id
    one.end()

    events, end = collect(client, stream)

    assert [event["id"] for event in events] == [one.id]
    assert [(job["id"], job["state"], job["exit_code"]) for job in end["ok"]["jobs"]] == [
        (two.id, "dead", 3),
        (one.id, "completed", 0),
    ]


def test_what_is_over_already_is_told_at_once(rig, client):
    job = Running(rig, client)
    job.end()

    events, end = collect(client, client.send(op="wait", select={"ids": [job.id]}))

    assert [event["state"] for event in events] == ["completed"]
    assert end["ok"]["stopped"] is False


def test_waiting_for_nothing_is_over_at_once(client):
    end = collect(client, client.send(op="wait", select={}))[1]

    assert end["ok"] == {"jobs": [], "count": 0, "states": {}, "stopped": False}


def test_the_answer_to_a_wait_for_many_counts_them_and_names_the_first_thousand(client):
    for _ in range(3):
        client.ok(op="enqueue", jobs=[{"command": "true"}] * 400)
    client.ok(op="cancel", select={}, no_wait=True)

    events, end = collect(client, client.send(op="wait", select={}))

    assert len({event["id"] for event in events}) == 1200
    assert [job["id"] for job in end["ok"]["jobs"]] == [event["id"] for event in events[:1000]]
    assert (end["ok"]["count"], end["ok"]["states"]) == (1200, {"cancelled": 1200})


def test_jobs_that_end_while_their_waiter_does_not_look_are_told_in_their_order(rig, client):
    *ids, last = (client.add() for _ in range(1201))
    stream = client.send(op="wait", select={"ids": [*ids, last]})
    other = rig.connect()
    other.ok(op="cancel", select={"ids": [last]}, no_wait=True)
    # By then it knows of all of them.
    assert client.receive()["event"]["id"] == last
    for first in (600, 0):
        other.ok(op="cancel", select={"ids": ids[first : first + 600]}, no_wait=True)

    events, end = collect(client, stream)

    assert [event["id"] for event in events] == ids[600:] + ids[:600]
    assert end["ok"]["stopped"] is False


def test_the_first_one_may_be_enough(rig, client):
    one, two = Running(rig, client), Running(rig, client)
    stream = client.send(op="wait", select={}, any=True)
    two.end()

    events, end = collect(client, stream)

    assert [event["id"] for event in events] == [two.id]
    assert end["ok"]["stopped"] is False
    assert client_sees(rig, one.id) == "processing"


def test_a_failure_may_end_the_wait(rig, client):
    Running(rig, client)
    two = Running(rig, client, max_retries=0)
    stream = client.send(op="wait", select={}, fail_fast=True)
    two.end(exit_code=1)

    assert [event["state"] for event in collect(client, stream)[0]] == ["dead"]


def test_one_can_wait_for_other_states(rig, client):
    job_id = client.add()
    stream = client.send(op="wait", select={"ids": [job_id]}, until=["processing"])
    client.send(op="ping")
    client.receive()
    rig.start_job()

    assert [event["state"] for event in collect(client, stream)[0]] == ["processing"]


def test_a_final_failure_that_was_delivered_counts_as_seen(rig, client):
    job = Running(rig, client, max_retries=0)
    stream = client.send(op="wait", select={"ids": [job.id]}, mark_seen=True)
    job.end(exit_code=1)
    collect(client, stream)

    assert client.ok(op="count", select={"seen": True})["total"] == 1


def test_who_waits_within_a_job_lends_its_worker(rig, client):
    job = Running(rig, client)
    stream = client.send(op="wait", select={"ids": [job.id]}, lend=f"{rig.store.uuid}/{job.token}")
    wait_for(lambda: rig.control.lent == [job.token])

    client.send(op="stop", stream=stream)

    collect(client, stream)
    assert rig.control.lent == []
    assert client.receive()["ok"] == {"stopped": True}


# events


def test_events_are_told_from_a_number_on(client):
    client.add(id="a")
    client.add(id="b")
    client.ok(op="cancel", select={"ids": ["a"]})

    events, end = collect(client, client.send(op="events", start=2))

    assert [(one["number"], one["event"], one["job"]) for one in events] == [
        (2, "job.enqueued", "b"),
        (3, "job.cancelled", "a"),
    ]
    assert end["ok"] == {"next": 4, "stopped": False}


def test_events_of_one_job_can_be_followed(rig, client):
    client.add(id="a")
    other = client.add(id="b")
    stream = client.send(op="events", job=other, follow=True, limit=1)
    client.send(op="ping")
    client.receive()
    rig.connect().ok(op="cancel", select={})

    events, end = collect(client, stream)

    assert [(one["event"], one["job"]) for one in events] == [("job.cancelled", "b")]
    assert end["ok"]["stopped"] is False


def test_without_a_number_only_what_comes_is_told(client):
    client.add()

    assert collect(client, client.send(op="events"))[0] == []
    assert collect(client, client.send(op="events", start=1, limit=1))[1]["ok"]["next"] == 2


# Going on after a lost connection.


def test_a_follower_goes_on_from_its_place_in_each_job_and_misses_no_attempt(rig, client):
    one, two, three = (Running(rig, client, max_retries=1, backoff_base=0) for _ in range(3))
    one.write(b"seen unseen ")
    two.write(b"try 1\n")
    two.end(exit_code=1)
    two.begin()
    two.write(b"try 2\n")
    three.write(b"all of it\n")
    places = [{"job": one.id, "attempt": 1, "offset": 5}, {"job": two.id, "attempt": 0, "offset": 0}]

    stream = client.send(op="logs", jobs=[one.id, two.id, three.id], follow=True, lines=1, places=places)
    one.write(b"more\n")
    for running in (one, two, three):
        running.end()
    events, _ = collect(client, stream)

    said = {run.id: text([event for event in events if event["job"] == run.id]) for run in (one, two, three)}
    assert said == {one.id: b"unseen more\n", two.id: b"try 1\ntry 2\n", three.id: b"all of it\n"}


def test_a_mark_tells_the_place_of_a_job_with_nothing_to_show(rig, client):
    waiting = client.add(delay=3600)
    running = Running(rig, client)
    running.write(b"old\n")
    shown = Running(rig, client)
    shown.write(b"end")

    stream = client.send(op="logs", jobs=[waiting, running.id], follow=True, lines=0, marks=True)
    marks = [client.receive()["event"] for _ in range(2)]
    events, _ = logs(client, jobs=[shown.id], marks=True)

    assert [(mark["job"], mark["attempt"], mark["offset"]) for mark in marks] == [(waiting, 0, 0), (running.id, 1, 4)]
    assert not any({"data", "b64", "missing"} & mark.keys() for mark in marks)
    assert text(events) == b"end"
    assert len(events) == 1
    client.send(op="stop", stream=stream)


def test_a_place_in_another_job_is_refused(client):
    job, other = client.add(), client.add()

    error = client.error(op="logs", jobs=[job], places=[{"job": other, "attempt": 1, "offset": 0}])

    assert (error["code"], error["path"]) == ("bad_request", "$.places")


@pytest.mark.parametrize("op", ["events", "logs", "wait"])
def test_a_stream_that_ends_with_the_daemon_says_that_it_ended_before_its_time(rig, client, op):
    job = client.add()
    which = {"events": {"follow": True}, "logs": {"follow": True, "jobs": [job]}, "wait": {"select": {"ids": [job]}}}
    stream = client.send(op=op, **which[op])
    client.send(op="ping")
    assert client.receive()["ok"]["pid"]

    rig.call(rig.server.hand_over)

    events, end = collect(client, stream)
    assert (events, end["ok"]["stopped"]) == ([], True)
