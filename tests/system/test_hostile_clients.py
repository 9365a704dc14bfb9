"""Clients that are broken, or mean harm: each is answered or left alone, the others do not notice, memory stays."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from threading import Thread

import pytest

from tests.system.bystander import LATER, MIB, many_files, memory, others_are_served, served_in_time
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire

needs_files = pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 4096, reason="this host allows too few files"
)
DEEP = "[" * 5000 + "]" * 5000

# A line, and the code of its answer.
LINES = {
    "no UTF-8": (b"\xff\xfe\xfd", "bad_json"),
    "NUL bytes": (b"\0\0\0\0", "bad_json"),
    "binary garbage": (bytes(range(11, 256)), "bad_json"),
    "no UTF-8 in a text": (b'{"id":1,"op":"get","job":"\xff"}', "bad_json"),
    "half a surrogate": (b'{"id":1,"op":"get","job":"\\ud800"}', "bad_json"),
    "half a surrogate in a job": (b'{"id":1,"op":"enqueue","jobs":[{"command":"echo \\udfff"}]}', "bad_json"),
    "no JSON": (b"{'id': 1}", "bad_json"),
    "half an object": (b'{"id":1,"op":"ping"', "bad_json"),
    "two objects": (b'{"id":1,"op":"ping"}{"id":2,"op":"ping"}', "bad_json"),
    "no object": (b'"ping"', "bad_request"),
    "nothing but nesting": (DEEP.encode(), "bad_request"),
    "a nested id": (b'{"id":%s,"op":"ping"}' % DEEP.encode(), "bad_json"),
    "a nested job": (b'{"id":1,"op":"enqueue","jobs":[{"command":"true","env":%s}]}' % DEEP.encode(), "bad_json"),
    "a nested value": (b'{"id":1,"op":"config_set","key":"workers","value":%s}' % DEEP.encode(), "bad_json"),
    "a value nested less": (
        b'{"id":1,"op":"config_set","key":"workers","value":%s}' % (b"[" * 400 + b"]" * 400),
        "bad_config",
    ),
    "not a number": (b'{"id":1,"op":"list","limit":NaN}', "bad_json"),
    "infinity": (b'{"id":1,"op":"enqueue","jobs":[{"command":"true","delay":1e999}]}', "bad_request"),
    "a huge limit": (b'{"id":1,"op":"list","limit":1%s}' % (b"0" * 400), "bad_request"),
    "a huge id": (b'{"id":1%s,"op":"ping"}' % (b"0" * 4000), "bad_request"),
    "a huge priority": (
        b'{"id":1,"op":"enqueue","jobs":[{"command":"true","priority":1%s}]}' % (b"0" * 99),
        "bad_request",
    ),
    "a long id": (b'{"id":"%s","op":"ping"}' % (b"x" * 129), "bad_request"),
    "an operation twice": (b'{"id":1,"op":"ping","op":"frobnicate"}', "unknown_op"),
    "an unknown operation": (b'{"id":1,"op":"%s"}' % (b"x" * 1000), "unknown_op"),
    "an unknown field": (b'{"id":1,"op":"ping","please":true}', "bad_request"),
    "no id": (b'{"op":"ping"}', "bad_request"),
    "an id that is none": (b'{"id":true,"op":"ping"}', "bad_request"),
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_request_is_answered_and_the_connection_lives(daemon: LiveDaemon, line: str) -> None:
    data, code = LINES[line]
    with daemon.wire() as wire:
        wire.raw(data + b"\n")
        answer = wire.line()

        assert answer.get("error", {}).get("code") == code, answer
        assert len(json.dumps(answer)) < 4096
        assert wire.call("ping")["version"]
        assert daemon.counts() == {}


def test_a_field_that_comes_twice_counts_once(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.raw(b'{"id":1,"id":2,"op":"enqueue","jobs":[{"command":"false","command":"true"}]}\n')

        assert len(wire.line()["ok"]["jobs"]) == 1
        assert sum(wire.counts().values()) == 1


def test_a_request_may_come_byte_by_byte(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        for byte in b'{"id":"slow","op":"ping"}\r\n\n':
            wire.raw(bytes([byte]))

        assert wire.line()["id"] == "slow"


def test_half_a_line_keeps_nobody_from_anything(daemon: LiveDaemon) -> None:
    with daemon.wire() as half, daemon.wire() as wire:
        half.raw(b'{"id":1,"op":"enq')

        wire.call("wait", select={"ids": [wire.enqueue("true")]})

    assert daemon.counts() == {"completed": 1}
    assert daemon.stop() == 0


def test_a_line_of_a_hundred_megabytes_costs_no_memory_and_no_time(daemon: LiveDaemon) -> None:
    before = memory(daemon)
    with daemon.wire() as wire, others_are_served(daemon) as took:
        for _ in range(100):
            wire.raw(b"x" * MIB)
        meanwhile = memory(daemon)
        refusal = wire.line()
        wire.raw(b"\n")

        assert wire.call("ping")

    assert refusal["error"]["code"] == "line_too_long"
    assert meanwhile - before < 8
    assert served_in_time(took)


@needs_files
def test_two_thousand_clients_that_say_nothing_are_borne(daemon: LiveDaemon) -> None:
    before = memory(daemon)
    with many_files(), ExitStack() as stack, others_are_served(daemon) as took:
        for _ in range(2000):
            stack.enter_context(daemon.wire())
        with daemon.wire() as wire:
            assert wire.call("status")["connections"] >= 2000
            wire.call("wait", select={"ids": [wire.enqueue("true")]})

        assert memory(daemon) - before < 40
    assert served_in_time(took)
    with daemon.wire() as wire:
        wait_for(lambda: wire.call("status")["connections"] == 1, "all are gone")


def flood(socks: list[socket.socket], data: bytes) -> None:
    """Send this on all connections, as far as they take it."""
    waiting = {sock: memoryview(data) for sock in socks}
    while waiting:
        progress = 0
        for sock, rest in tuple(waiting.items()):
            try:
                sent = sock.send(rest)
            except BlockingIOError:
                continue
            except ConnectionError:
                sent = len(rest)
            progress += sent
            waiting[sock] = rest[sent:]
            if not waiting[sock]:
                del waiting[sock]
        if not progress:
            time.sleep(0.01)


@needs_files
def test_two_thousand_half_lines_of_a_megabyte_are_not_kept(daemon: LiveDaemon) -> None:
    before = memory(daemon)
    with many_files(), ExitStack() as stack, others_are_served(daemon) as took:
        socks = [stack.enter_context(daemon.wire()).socket for _ in range(2000)]
        for sock in socks:
            sock.setblocking(False)
        for first in range(0, 2000, 500):
            flood(socks[first : first + 500], b"x" * (MIB - 1))
        meanwhile = memory(daemon)

    assert meanwhile - before < 160
    assert served_in_time(took)
    assert any(line["event"] == "client.refused" for line in daemon.log_lines())


def test_what_all_connections_stage_is_bounded(daemon: LiveDaemon) -> None:
    before = memory(daemon)
    with ExitStack() as stack, others_are_served(daemon) as took:
        wires = [stack.enter_context(daemon.wire()) for _ in range(40)]
        refused = set()
        for wire in wires:
            for number in range(16):
                try:
                    wire.call("stage", key=f"k{number}", data="x" * (MIB - 200))
                except RefusedError as error:
                    refused.add(error.code)
        meanwhile = memory(daemon)

    assert refused == {"too_much_held"}
    assert meanwhile - before < 220
    assert served_in_time(took)


def test_large_requests_of_many_connections_are_carried_out_a_few_at_a_time(daemon: LiveDaemon) -> None:
    before = memory(daemon)
    job = {"command": "true", "delay": 3600, "stdin": "x" * (MIB - 1000)}
    line = json.dumps({"id": 1, "op": "enqueue", "jobs": [job]}).encode() + b"\n"
    with ExitStack() as stack, others_are_served(daemon) as took:
        wires = [stack.enter_context(daemon.wire()) for _ in range(40)]
        senders = [Thread(target=wire.raw, args=(line * 8,)) for wire in wires]
        for sender in senders:
            sender.start()
        wires[0].line()
        meanwhile = memory(daemon)
        for wire in wires:
            for _ in range(8 - (wire is wires[0])):
                assert "ok" in wire.line()
        for sender in senders:
            sender.join()

    assert meanwhile - before < 130
    assert served_in_time(took)
    wait_for(lambda: memory(daemon) - before < 24, "the memory is given back")


def test_clients_that_stay_cannot_take_the_files_that_the_queue_needs(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start("prlimit", "--nofile=300:300")
    with daemon.wire() as wire, ExitStack() as stack:
        for _ in range(149):
            stack.enter_context(daemon.wire())
        refused = [stack.enter_context(daemon.wire()).greeting for _ in range(200)]

        assert {line["error"]["code"] for line in refused} == {"too_many_clients"}
        wire.call("wait", select={"ids": [wire.enqueue("true")]})
        assert daemon.cli("status").code == 75

    wait_for(lambda: daemon.cli("status").code == 0, "there is room again")
    # As many lines at once as a person would read, not one for each.
    assert 1 <= [line["event"] for line in daemon.log_lines()].count("client.refused") <= 21


def deaf(daemon: LiveDaemon, stack: ExitStack) -> Wire:
    """Return a connection whose client will not read, with as little room between as can be."""
    wire = stack.enter_context(daemon.wire())
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return wire


def test_followers_that_stop_reading_cost_no_memory_and_no_time(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(output_limit=256 * MIB).start()
    with daemon.wire() as wire:
        loud = wire.enqueue("exec cat /dev/zero | tr '\\0' 'x' | fold -w 99 | head -c 200000000")
        for _ in range(10):
            wire.call("enqueue", jobs=LATER * 1000)
        before = memory(daemon)
        with ExitStack() as stack, others_are_served(daemon) as took:
            followers = [deaf(daemon, stack) for _ in range(20)]
            for follower in followers:
                for start in range(20):
                    follower.send("events", start=start, follow=True)
                for _ in range(20):
                    follower.send("logs", jobs=[loud], follow=True)
                follower.send("wait", select={})
            for _ in range(20):
                wire.call("cancel", select={}, no_wait=True, dry_run=True)
            daemon.wait_for_state(loud, "completed", deadline=120)
            after = memory(daemon)

    # Twenty connections, 41 streams each.
    assert after - before < 40
    assert served_in_time(took)


def test_a_client_that_asks_and_does_not_read_is_asked_to_wait(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"command": "true", "note": "x" * 4000, "delay": 60}] * 200)
        before = memory(daemon)
        with ExitStack() as stack, others_are_served(daemon) as took:
            for _ in range(20):
                asker = deaf(daemon, stack)
                asker.socket.setblocking(False)
                with suppress(BlockingIOError):
                    while asker.socket.send(b'{"id":1,"op":"list","limit":1000}\n' * 100):
                        pass
            after = memory(daemon)

    assert after - before < 40
    assert served_in_time(took)


def test_a_daemon_that_has_no_descriptor_for_one_more_client_says_so_once_and_not_a_thousand_times(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon(workers=0).start("prlimit", "--nofile=24")

    def complaints() -> int:
        return sum(line["event"] == "library.message" for line in daemon.log_lines())

    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(daemon.socket))
        wait_for(complaints, "it has none left")

    wait_for(daemon.answers, "it takes clients again")
    assert complaints() < 20
