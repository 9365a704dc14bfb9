"""Every change that is asked for is accounted for, and no request gets lost in the account."""

from __future__ import annotations

import threading
import time

import pytest

from queuectld.protocol.messages import REQUESTS
from queuectld.server import audit
from queuectld.server.who import Role
from tests.process.server_rig import Rig
from tests.process.test_server_rights import ALICE, BOB, EVERYBODY, OLGA, ROOT, all_of, request


class Book:
    """Keeps the lines of the account."""

    def __init__(self):
        self.lines = []
        self._grown = threading.Condition()

    def _write(self, level, message, **fields):
        with self._grown:
            self.lines.append({"level": level, "message": message} | {k: v for k, v in fields.items() if v is not None})
            self._grown.notify_all()

    def info(self, message, **fields):
        self._write("info", message, **fields)

    def warning(self, message, **fields):
        self._write("warning", message, **fields)

    def wait(self, condition):
        with self._grown:
            assert self._grown.wait_for(lambda: condition(self.lines), 20), self.lines
            return list(self.lines)

    def of(self, op):
        return self.wait(lambda lines: any(line["op"] == op for line in lines))[-1]


@pytest.fixture
def book(monkeypatch):
    book = Book()
    monkeypatch.setattr(audit, "log", book)
    return book


@pytest.fixture
def rig(tmp_path, book):
    with Rig(tmp_path, uid=0) as rig:
        yield rig


CHANGES = [op for op, form in REQUESTS.items() if form.changes or op == "shutdown"]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("op", CHANGES)
def test_who_asked_for_a_change_and_what_became_of_it_is_on_record(rig, book, op, role):
    peer = EVERYBODY[role]
    rig.connect(peer=BOB).add(id="bobs")
    book.wait(lambda lines: [line["user"] for line in lines] == ["bob"])

    answer = all_of(rig.connect(peer=peer), **request(op, "bobs"))[-1]

    line = book.of(op)
    assert (line["user"], line["peer_uid"], line["role"], line["origin"]) == (peer.user, peer.uid, role, peer.origin)
    assert line["event_name"] == "audit.request"
    assert line["result"] == answer.get("error", {"code": "ok"})["code"]
    assert line["level"] == ("info" if line["result"] == "ok" else "warning")
    assert line["requests"] == 1
    if op in {"signal", "cancel", "retry", "discard", "undelete"}:
        assert line["jobs"] == ["bobs"]
    assert line.get("keys", []) == (["max_retries"] if op.startswith("config") else [])
    assert line.get("mode") == ("leave" if op == "shutdown" else None)


@pytest.mark.parametrize("op", ["ping", "list", "status", "events", "worker_list", "config_list", "count"])
def test_looking_is_not_on_record(rig, book, op):
    alice = rig.connect(peer=ALICE)
    all_of(alice, **request(op, "none"))
    all_of(alice, op="enqueue", jobs=[{"command": "true"}], dry_run=True)
    alice.add(id="last")

    assert [line["jobs"] for line in book.wait(lambda lines: lines)] == [["last"]]


@pytest.mark.parametrize("op", ["get", "logs", "wait"])
def test_to_ask_for_what_is_not_yours_is(rig, book, op):
    rig.connect(peer=BOB).add(id="bobs")

    all_of(rig.connect(peer=ALICE), **request(op, "bobs"))

    line = book.of(op)
    assert (line["level"], line["result"], line["user"]) == ("warning", "forbidden", "alice")
    assert line["jobs"] == ["bobs"]


def test_of_many_jobs_some_are_named_and_all_are_counted(rig, book):
    alice = rig.connect(peer=ALICE)
    rig.connect(peer=BOB).add(id="bobs")
    alice.ok(op="enqueue", jobs=[*({"command": "true", "id": f"j{n}"} for n in range(50)), {"command": ""}])

    line = book.of("enqueue")
    assert line["jobs"] == [f"j{n}" for n in range(audit.NAMED)]
    assert (line["count"], line["refused"], line["result"], line["level"]) == (50, 1, "ok", "warning")

    alice.ok(op="cancel", select={"ids": ["bobs", "j1", "nope"]})

    line = book.of("cancel")
    assert (line["jobs"], line["count"], line["refused"], line["level"]) == (["j1"], 1, 2, "warning")


def test_where_all_are_refused_the_result_says_why(rig, book):
    rig.connect(peer=BOB).ok(op="enqueue", jobs=[{"command": "true", "id": name} for name in "ab"])

    rig.connect(peer=ALICE).ok(op="cancel", select={"ids": ["a", "b"]})

    line = book.of("cancel")
    assert (line["result"], line["count"], line["refused"]) == ("forbidden", 0, 2)


def test_what_was_asked_for_again_is_no_second_job(rig, book):
    alice = rig.connect(peer=ALICE)
    for _ in range(2):
        alice.ok(op="enqueue", request="k", jobs=[{"command": "true"}])
    alice.close()

    lines = book.wait(lambda lines: sum(line["requests"] for line in lines) == 2)
    assert sum(line["count"] for line in lines) == 1


def test_many_requests_share_lines_and_none_is_lost(rig, book):
    clients = [rig.connect(peer=peer) for peer in (ALICE, BOB)]
    begin = time.monotonic()
    for number in range(300):
        for client in clients:
            client.add(id=f"{number}-{clients.index(client)}")
            client.error(op="signal", job="nope", number=10)
    clients[0].close()

    def told(lines, user, op):
        return sum(line["requests"] for line in lines if (line["user"], line["op"]) == (user, op))

    lines = book.wait(
        lambda lines: all(told(lines, user, op) == 300 for user in ("alice", "bob") for op in ("enqueue", "signal"))
    )
    windows = (time.monotonic() - begin) / audit.WINDOW
    assert len(lines) <= 4 * (windows + 2)
    assert sum(line.get("count", 0) for line in lines) == 600
    assert {line["result"] for line in lines if line["op"] == "signal"} == {"no_such_job"}


def test_what_was_not_told_yet_is_told_when_the_connection_ends(rig, book, monkeypatch):
    monkeypatch.setattr(audit, "WINDOW", 3600)
    alice = rig.connect(peer=ALICE)
    for name in "abc":
        alice.add(id=name)
    assert [line["jobs"] for line in book.lines] == [["a"]]

    alice.close()

    assert [line["jobs"] for line in book.wait(lambda lines: len(lines) == 2)] == [["a"], ["b", "c"]]


def test_a_change_that_outlives_its_connection_is_on_record_all_the_same(rig, book):
    rig.connect(peer=BOB).add(id="bobs")
    claimed = rig.start_job()
    root = rig.connect(peer=ROOT)
    asked = threading.Event()
    rig.control.on_cancel = lambda _token: asked.set()
    root.send(op="cancel", select={"ids": ["bobs"]})
    assert asked.wait(20)
    root.close()

    rig.end_job(claimed.attempt.token, reason="signalled", signal=15, exit_code=None)

    assert book.of("cancel")["jobs"] == ["bobs"]


def test_no_command_no_environment_and_no_value_of_a_key_is_on_record(rig, book):
    root = rig.connect(peer=ROOT)
    root.ok(
        op="enqueue",
        jobs=[{"command": "hush", "env": {"hush": "hush"}, "tags": {"hush": "hush"}, "id": "a"}],
        submission={"env": {"hush": "hush"}},
        request="hush",
    )
    root.ok(op="config_set", key="shell", value="/bin/hush")
    root.ok(op="cancel", select={"ids": ["a"], "command": "hush"}, reason="hush")
    root.error(op="config_set", key="no\x1b[31msuch" + "x" * 5000, value="hush")

    lines = book.wait(lambda lines: len(lines) == 4)
    assert "hush" not in str(lines)
    assert len(lines[-1]["keys"][0]) < 200
    assert lines[-1]["keys"][0].isprintable()


def test_a_refusal_while_the_daemon_ends_is_on_record(rig, book):
    alice = rig.connect(peer=ALICE)
    rig.control.draining = True

    alice.error(op="enqueue", jobs=[{"command": "true"}])

    assert (book.of("enqueue")["result"], book.of("enqueue")["level"]) == ("draining", "warning")


def test_observers_are_told_apart_from_users(rig, book):
    rig.connect(peer=OLGA).error(op="enqueue", jobs=[{"command": "true"}])

    assert book.of("enqueue")["role"] is Role.OBSERVER
