"""The small server of figures: what it answers, and how little those get who mean it ill or are just slow."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from queuectld.errors import StoreError
from queuectld.server import metrics_http, monitor, monitoring
from queuectld.server.http import MOST
from queuectld.server.monitor import Monitor
from queuectld.server.monitoring import Monitoring
from tests.process.server_rig import PATIENCE, Rig
from tests.system.scrape import Answer, Figures, free_port, get
from tests.system.waiting import wait_for


class Offered:
    """Figures of a rig, on a port."""

    def __init__(self, rig: Rig, port: int) -> None:
        self.rig = rig
        self.port = port
        self.monitor = Monitor(rig.desk, rig.state / "queue.db", progress=lambda: (7, 5, 0))
        self.monitoring = Monitoring(self.monitor, rig.desk.holder)
        rig.desk.complaints.append(self.monitoring.problems)

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.rig.loop).result(PATIENCE)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def raw(self, data: bytes) -> bytes:
        """Send bytes, say that this is all, and return what comes."""
        with self.connect() as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return received(sock)


def received(sock: socket.socket) -> bytes:
    """All that comes until the other end hangs up, however it does."""
    data = b""
    with suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def offered(tmp_path: Path, port: int) -> Iterator[Offered]:
    with Rig(tmp_path, environ={"QUEUECTLD_METRICS": f"127.0.0.1:{port}"}) as rig:
        offered = Offered(rig, port)
        offered.wait(offered.monitoring.start())
        yield offered
        offered.wait(offered.monitoring.stop())


def statuses(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", data)]


# What is answered.


def test_each_place_has_its_answer(offered: Offered) -> None:
    assert offered.rig.connect().add()

    answer = get(offered.port, "/metrics")
    told = Figures(answer.text)

    assert answer.status == 200
    assert told("jobs", state="pending") == 1
    assert told("requests_total", op="enqueue", result="ok") == 1
    assert told("store_writes_waiting") == 2
    assert told("connections") == 1
    assert get(offered.port, "/healthz") == Answer(200, "ok\n")
    assert get(offered.port, "/readyz?full=1") == Answer(200, "ok\n")
    assert "/metrics" in get(offered.port, "/").text
    assert get(offered.port, "/metrics/").status == 404


def test_prometheus_is_told_which_format_it_is(offered: Offered) -> None:
    answer = offered.raw(b"GET /metrics HTTP/1.1\r\n\r\n")

    assert b"\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in answer


def test_requests_are_counted_by_operation_and_by_what_they_came_to(offered: Offered) -> None:
    client = offered.rig.connect()
    client.ok(op="ping")
    client.error(op="get", job="nope")
    client.error(op="frobnicate")
    client.send_raw(b"garbage\n")
    client.receive()

    told = Figures(get(offered.port, "/metrics").text)

    assert told("requests_total", op="ping", result="ok") == 1
    assert told("requests_total", op="get", result="no_such_job") == 1
    assert told("requests_total", op="(none)", result="unknown_op") == 1
    assert told("requests_total", op="(none)", result="bad_json") == 1


def test_only_reading_is_allowed(offered: Offered) -> None:
    answer = offered.raw(b"POST /metrics HTTP/1.1\r\n\r\nDELETE /healthz HTTP/1.1\r\n\r\nPUT /nope HTTP/1.1\r\n\r\n")

    assert statuses(answer) == [405, 405, 404]
    assert answer.count(b"\r\nAllow: GET, HEAD\r\n") == 2


def test_a_head_is_the_answer_without_its_body(offered: Offered) -> None:
    head, _, body = offered.raw(b"HEAD /metrics HTTP/1.1\r\nConnection: close\r\n\r\n").partition(b"\r\n\r\n")

    assert statuses(head) == [200]
    assert b"Content-Length: 0" not in head
    assert body == b""


def test_many_requests_in_one_go_are_answered_in_their_order(offered: Offered) -> None:
    paths = [b"/healthz", b"/nope", b"/metrics"] * 20

    answer = offered.raw(b"".join(b"GET %s HTTP/1.1\r\n\r\n" % path for path in paths))

    assert statuses(answer) == [200, 404, 200] * 20


def test_a_connection_is_used_again(offered: Offered) -> None:
    with offered.connect() as sock:
        for _ in range(3):
            sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert sock.recv(4096).endswith(b"\r\n\r\nok\n")


def test_what_is_no_request_is_told_so_and_nothing_behind_it_is_heard(offered: Offered) -> None:
    answer = offered.raw(b"\x16\x03\x01garbage\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n")

    assert statuses(answer) == [400]
    assert answer.endswith(b"this is not HTTP\n")


def test_headers_without_end_are_cut_off(offered: Offered) -> None:
    with offered.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * MOST)

        assert statuses(received(sock)) == [431]


# Patience.


def test_who_takes_too_long_to_ask_is_let_go(offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "_PATIENCE", 0.3)
    with offered.connect() as silent, offered.connect() as slow:
        # A byte now and then does not make it last longer.
        with suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\n" * 1000:
                slow.sendall(bytes([byte]))
                slow.settimeout(0.02)
                with suppress(TimeoutError):
                    if not slow.recv(100):
                        break
            else:
                pytest.fail("it may go on for ever")

        assert received(silent) == b""


def test_who_does_not_take_the_answers_is_let_go(offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_http, "_PATIENCE", 0.3)
    visitors = offered.monitoring._visitors
    with offered.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with suppress(ConnectionError, TimeoutError):
            sock.settimeout(0.5)
            while True:
                sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 1000)

        wait_for(lambda: not visitors.connections, "it is let go")


def test_more_connections_than_there_may_be_are_turned_away(offered: Offered) -> None:
    crowd = [offered.connect() for _ in range(metrics_http.MOST_CONNECTIONS)]
    wait_for(lambda: len(offered.monitoring._visitors.connections) == len(crowd), "they are in")

    with offered.connect() as sock:
        assert statuses(received(sock)) == [503]
    for one in crowd:
        one.close()

    wait_for(lambda: not offered.monitoring._visitors.connections, "they are gone")
    assert get(offered.port, "/healthz").status == 200


# A store in trouble.


def test_a_store_that_does_not_answer_is_asked_once_however_many_want_to_know(
    offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_PATIENCE", 0.1)
    hung, asked = Event(), []

    async def read(work: Callable[..., Any]) -> Any:
        asked.append(work)
        await asyncio.to_thread(hung.wait, PATIENCE)
        raise StoreError("it was in vain")

    monkeypatch.setattr(offered.rig.desk.ledger, "read", read)
    told = [Figures(get(offered.port, "/metrics").text) for _ in range(3)]
    hung.set()

    assert [one("store_readable") for one in told] == [0, 0, 0]
    assert not any(name == "queuectl_jobs" for name, _ in told[0].samples)
    assert told[0]("workers_limit") == 2
    assert len(asked) == 1
    wait_for(offered.monitor._looking.done, "it has been told")
    assert Figures(get(offered.port, "/metrics").text)("store_readable") == 0
    assert len(asked) == 2


def test_what_does_not_move_is_told_in_a_line(offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offered.rig.desk.vigil, "stuck", True, raising=False)
    monkeypatch.setattr(offered.rig.desk.vigil, "problems", lambda: ["the store has not answered for 20 s"])

    assert get(offered.port, "/healthz") == Answer(503, "the store has not answered for 20 s\n")
    assert get(offered.port, "/readyz") == Answer(503, "the store has not answered for 20 s\n")


def test_a_reason_is_a_line_whatever_is_in_it(offered: Offered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        offered.rig.desk.ledger, "problems", lambda: ["the disk that holds /odd\r\n\r\nplace is full", "b"]
    )

    answer = offered.raw(b"GET /readyz HTTP/1.0\r\n\r\n")

    assert answer.endswith(b"\r\n\r\nthe disk that holds /odd place is full; b\n")


# A port that cannot be had.


def test_a_port_that_is_taken_is_tried_again(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "_AGAIN", 0.05)
    with Rig(tmp_path, environ={"QUEUECTLD_METRICS": f"127.0.0.1:{port}"}) as rig:
        offered = Offered(rig, port)
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            offered.wait(offered.monitoring.start())
            assert len(rig.call(rig.desk.problems)) == 1

        wait_for(lambda: rig.call(rig.desk.problems) == (), "it is free")
        assert get(port, "/healthz").status == 200
        offered.wait(offered.monitoring.stop())
