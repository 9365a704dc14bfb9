from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import stat
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from queuectld.errors import BadConfigError, DiskFullError, StoreLockedError
from queuectld.protocol.words import INFLIGHT_LIMIT
from queuectld.server import handlers
from queuectld.server.budget import Budget, Share
from queuectld.server.crowd import Crowd
from queuectld.server.server import Server
from queuectld.server.under_way import UnderWay
from queuectld.server.who import Peer, Role
from queuectld.service import submit
from tests.process.server_rig import Client, Rig
from tests.system.waiting import wait_for

TOKEN = "a-token-of-more-than-16-characters"


@pytest.fixture
def tcp(tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    with Rig(tmp_path, environ={"QUEUECTLD_TCP": "127.0.0.1:0", "QUEUECTLD_TOKEN_FILE": str(token_file)}) as rig:
        yield rig


@pytest.mark.parametrize(
    ("line", "code", "number"),
    [
        (b"hello", "bad_json", None),
        (b'{"id":1,"op":"ping"', "bad_json", 1),
        (b"[]", "bad_request", None),
        (b'{"op":"ping"}', "bad_request", None),
        (b'{"id":1.5,"op":"ping"}', "bad_request", None),
        (b'{"id":1}', "unknown_op", 1),
        (b'{"id":"x","op":"frobnicate"}', "unknown_op", "x"),
        (b'{"id":1,"op":"ping","extra":1}', "bad_request", 1),
        (b'{"id":1,"op":"list","limit":0}', "bad_request", 1),
        (b'{"id":1,"op":"list","limit":1e400}', "bad_request", 1),
        (b'{"id":1,"op":"list","limit":NaN}', "bad_json", 1),
        (b'{"id":1,"op":"get","job":"\xff\xfe"}', "bad_json", 1),
        (b"\x00\x01\x02\xff", "bad_json", None),
        (b'{"id":1,"op":"ping","x":' + b"[" * 5000 + b"]" * 5000 + b"}", "bad_json", 1),
        (b'{"id":' + b"9" * 5000 + b',"op":"ping"}', "bad_request", None),
    ],
)
def test_a_line_that_is_no_request_is_answered_and_harms_nothing(client, line, code, number):
    client.send_raw(line + b"\n")

    answer = client.receive()

    assert answer["error"]["code"] == code
    assert answer["id"] == number
    assert "None" not in answer["error"]["message"]
    assert client.ok(op="ping")


def test_a_line_over_the_limit_is_answered_and_skipped(client):
    writer = threading.Thread(target=client.send_raw, args=(b"x" * 2_000_000 + b"\n",))
    writer.start()

    answer = client.receive()

    writer.join()
    assert answer["error"]["code"] == "line_too_long"
    assert client.ok(op="ping")


def test_half_a_line_and_then_silence_harms_nobody(rig, client):
    client.send_raw(b'{"id":1,"op":"pi')

    assert rig.connect().ok(op="ping")
    client.send_raw(b'ng"}\n')

    assert client.receive()["id"] == 1


def test_bytes_may_come_one_by_one(client):
    for byte in b'{"id":7,"op":"ping"}\n':
        client.send_raw(bytes([byte]))

    assert client.receive()["id"] == 7


def test_answers_come_in_the_order_of_the_requests(client):
    requests = []
    for number in range(200):
        requests.append({"id": 3 * number, "op": "enqueue", "jobs": [{"command": "true", "id": f"j{number}"}]})
        requests.append({"id": 3 * number + 1, "op": "get", "job": f"j{number}"})
        requests.append({"id": 3 * number + 2, "op": "nonsense"})
    sender = threading.Thread(
        target=client.send_raw, args=(b"".join(json.dumps(one).encode() + b"\n" for one in requests),)
    )
    sender.start()

    answers = [client.receive() for _ in requests]

    sender.join()
    assert [answer["id"] for answer in answers] == [one["id"] for one in requests]
    # A read sees what the same connection asked to be written before.
    assert all("ok" in answer for answer in answers[1::3])


def test_streams_do_not_hold_up_short_requests(client):
    stream = client.send(op="events", follow=True)

    client.send(op="ping")
    assert client.receive()["ok"]["version"]
    stop = client.send(op="stop", stream=stream)

    assert client.receive() == {"id": stream, "ok": {"next": 1, "stopped": True}}
    assert client.receive() == {"id": stop, "ok": {"stopped": True}}


def test_only_an_open_stream_can_be_stopped(client):
    assert client.error(op="stop", stream=99)["code"] == "no_such_stream"


def test_two_streams_cannot_share_a_number(client):
    client.send(id=5, op="events", follow=True)
    client.send(id=5, op="events", follow=True)

    assert client.receive()["error"]["path"] == "$.id"


def test_streams_leave_room_for_the_request_that_stops_one(client):
    for number in range(100, 100 + INFLIGHT_LIMIT):
        client.send(id=number, op="events", follow=True)
    refused = client.receive()
    client.send(id=1, op="stop", stream=100)

    assert refused["error"]["code"] == "bad_request"
    assert client.receive()["id"] == 100
    assert client.receive()["id"] == 1


def send_until_full(sock):
    sent = 0
    while sent < 64 * 1024 * 1024:
        try:
            sent += sock.send(b'{"id":1,"op":"ping"}\n' * 1000)
        except BlockingIOError:
            break
    return sent


def test_at_the_limit_of_open_requests_the_server_stops_reading(rig, client):
    rig.connect().ok(op="enqueue", jobs=[{"command": "true", "id": f"j{n}"} for n in range(INFLIGHT_LIMIT)])
    for _ in range(INFLIGHT_LIMIT):
        rig.start_job()
    for number in range(INFLIGHT_LIMIT):
        client.send(op="cancel", select={"ids": [f"j{number}"]})
    wait_for(lambda: len([one for one in rig.control.asked if one[0] == "cancel"]) == INFLIGHT_LIMIT)
    client.sock.setblocking(False)

    sent = send_until_full(client.sock)

    # What the kernel holds, and one read of the server.
    assert sent < 4 * 1024 * 1024
    assert rig.connect().ok(op="ping")


def test_a_client_that_does_not_read_costs_no_memory(rig, client):
    rig.connect().ok(op="enqueue", jobs=[{"command": "x" * 1000} for _ in range(800)])
    for number in range(60):
        client.send(id=number, op="list", limit=800)
    wait_for(lambda: any(not one.room.is_set() for one in rig.call(lambda: list(rig.server._sessions))))

    held = max(one._transport.get_write_buffer_size() for one in rig.call(lambda: list(rig.server._sessions)))

    assert held < 4 * 1024 * 1024
    # And it gets all of it once it reads.
    assert [len(client.receive()["ok"]["jobs"]) for _ in range(60)] == [800] * 60


def test_a_slow_follower_gets_every_event_and_is_not_waited_for(rig, client):
    client.send(id=1, op="events", start=1, follow=True)
    other = rig.connect()
    for _ in range(10):
        other.ok(op="enqueue", jobs=[{"command": "true"} for _ in range(1000)])

    numbers = [client.receive()["event"]["number"] for _ in range(10_000)]

    assert numbers == list(range(1, 10_001))


def test_what_was_asked_before_the_end_of_the_input_is_answered(client):
    client.send(op="enqueue", jobs=[{"command": "true", "id": "a"}])
    client.send(op="get", job="a")
    client.send(op="events", start=1, follow=True)
    client.sock.shutdown(socket.SHUT_WR)

    assert client.receive()["ok"]["jobs"][0]["id"] == "a"
    rest = [client.receive() for _ in range(3)]
    assert {answer["id"] for answer in rest} == {2, 3}
    assert client.file.readline() == b""


def test_a_connection_that_goes_away_in_the_middle_leaves_nothing(rig):
    client = rig.connect()
    job = client.add(delay=3600)
    client.send(op="events", follow=True)
    client.send(op="wait", select={"ids": [job]})
    client.ok(op="ping")

    client.close()

    wait_for(lambda: not rig.server._sessions)
    wait_for(lambda: not rig.hub._listeners)


def test_a_thousand_idle_connections_disturb_nobody(rig):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        crowd = [rig.connect(greeted=False) for _ in range(1000)]

        began = time.monotonic()
        assert rig.connect().ok(op="status")["connections"] == 1001
        assert time.monotonic() - began < 2
        assert crowd[0].receive()["protocol"] == [1]
    finally:
        for client in crowd:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_user_who_takes_all_connections_keeps_nobody_else_out(rig, monkeypatch):
    monkeypatch.setattr(rig.server, "_sessions", Crowd(4))
    ann, bob = (Peer(uid, str(uid), Role.USER, "pid 1") for uid in (1000, 1001))
    crowd = [rig.connect(peer=ann) for _ in range(2)]

    assert rig.connect(peer=ann).greeting["error"]["code"] == "too_many_clients"
    assert rig.connect(peer=bob).ok(op="ping")
    crowd[0].close()
    wait_for(lambda: rig.call(lambda: len(rig.server._sessions)) == 2, "it is gone")
    assert rig.connect(peer=ann).ok(op="ping")


def test_a_user_who_comes_and_goes_at_the_bound_does_not_fill_the_log(rig, monkeypatch):
    monkeypatch.setattr(rig.server, "_sessions", Crowd(2))
    ann = Peer(1000, "ann", Role.USER, "pid 1")

    with capture_logs() as lines:
        for _ in range(50):
            client = rig.connect(peer=ann)
            assert "error" in rig.connect(peer=ann).greeting
            client.close()
            wait_for(lambda: rig.call(lambda: len(rig.server._sessions)) == 0, "it is gone")

    told = [line["count"] for line in lines if line["event"] == "Too many clients"]
    assert 0 < len(told) < 30


def test_an_error_of_ours_is_internal_and_the_connection_lives(rig, client, monkeypatch):
    monkeypatch.setattr("queuectld.service.jobs.listing", lambda *_a, **_k: 1 / 0)

    assert client.error(op="list")["code"] == "internal"

    assert client.ok(op="ping")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["id", "op", "jobs", "command", "select", "stream"]), inner, max_size=4
                )
            ),
        ).map(lambda value: json.dumps(value).encode()),
        st.tuples(
            st.sampled_from(["enqueue", "list", "get", "logs", "wait", "stop", "stage", "retry", "count"]),
            st.dictionaries(
                st.sampled_from(["jobs", "job", "select", "limit", "stream", "key", "data", "after"]),
                st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=5), max_size=2),
            ),
        ).map(lambda pair: json.dumps({"id": 1, "op": pair[0]} | pair[1]).encode()),
    )
)
def test_no_line_kills_the_connection(rig, data):
    client = rig.connect()

    client.send_raw(data.replace(b"\n", b" ") + b'\n{"id":"end","op":"ping"}\n')

    while client.receive().get("id") != "end":
        pass
    client.close()


# Over TCP.


def test_over_tcp_nothing_is_answered_before_the_token(tcp):
    client = tcp.connect_tcp()
    assert client.receive()["authenticate"] is True

    assert client.error(op="status")["code"] == "unauthenticated"

    assert client.file.readline() == b""
    client.close()


def test_a_wrong_token_is_refused_and_the_connection_ends(tcp):
    client = tcp.connect_tcp()
    client.receive()

    assert client.error(op="hello", token="wrong")["code"] == "unauthenticated"

    assert client.file.readline() == b""
    client.close()


def test_the_right_token_opens_everything(tcp):
    client = tcp.connect_tcp()
    client.receive()

    assert client.ok(op="hello", token=TOKEN)["user"]

    assert client.add()
    client.close()


def test_who_shows_no_token_in_time_is_sent_away(tcp):
    client = tcp.connect_tcp()
    client.receive()

    with pytest.raises((EOFError, ConnectionResetError)):
        client.receive()
    client.close()


def test_a_token_that_everybody_can_read_is_refused(tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o644)

    with (
        pytest.raises(BadConfigError, match="read by everybody"),
        Rig(tmp_path, environ={"QUEUECTLD_TCP": "127.0.0.1:0", "QUEUECTLD_TOKEN_FILE": str(token_file)}),
    ):
        pass


# The socket.


def test_the_socket_has_its_mode_from_the_beginning(tmp_path):
    with Rig(tmp_path, environ={"QUEUECTLD_SOCKET_MODE": "0640"}) as rig:
        assert stat.S_IMODE(rig.socket.stat().st_mode) == 0o640
        assert [path.name for path in tmp_path.iterdir()] == ["queuectl.sock"]
    assert not rig.socket.exists()


def test_what_a_dead_daemon_left_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "queuectl.sock"))

    with Rig(tmp_path) as rig:
        assert rig.connect().ok(op="ping")


def test_a_living_daemon_is_not_pushed_aside(tmp_path):
    with Rig(tmp_path) as rig:
        with pytest.raises(StoreLockedError), Rig(tmp_path):
            pass

        assert rig.connect().ok(op="ping")


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    (tmp_path / "queuectl.sock").write_text("precious")

    with pytest.raises(BadConfigError), Rig(tmp_path):
        pass

    assert (tmp_path / "queuectl.sock").read_text() == "precious"


def test_the_path_may_be_longer_than_a_socket_address(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with Rig(deep):
        descriptor = os.open(deep, os.O_PATH)
        client = Client.unix(f"/proc/self/fd/{descriptor}/queuectl.sock")
        os.close(descriptor)

        assert client.receive()["protocol"] == [1]
        client.close()


def ended(client):
    """Whether the server has hung up."""
    try:
        client.receive()
    except EOFError:
        return True
    return False


def hold_up_the_store(rig):
    """Keep the store busy until what is returned is set."""
    gate = threading.Event()
    rig.call(lambda: rig.desk.ledger.submit(lambda _store: gate.wait(20), lambda _result: None))
    return gate


def test_a_change_that_is_under_way_when_the_server_ends_is_answered(rig, client):
    gate = hold_up_the_store(rig)
    number = client.send(op="enqueue", jobs=[{"command": "true"}])
    wait_for(lambda: rig.call(lambda: rig.desk.ledger.progress[0]) == 2, "the change is under way")

    stopping = asyncio.run_coroutine_threadsafe(rig.server.stop(), rig.loop)
    gate.set()

    assert client.receive()["id"] == number
    assert ended(client)
    stopping.result(10)


def test_who_waits_for_what_takes_long_does_not_hold_the_server_up(rig, client):
    job = client.add("sleep 1000")
    rig.start_job()
    client.send(op="cancel", select={"ids": [job]})
    wait_for(lambda: rig.control.asked, "the command is being ended")

    asyncio.run_coroutine_threadsafe(rig.server.stop(), rig.loop).result(10)

    assert ended(client)


def test_a_server_that_is_handed_over_leaves_the_door_to_the_next_one(rig, client):
    handed = rig.call(rig.server.hand_over)
    assert ended(client)

    late = Client.unix(str(rig.socket))
    late.send(op="ping")
    rig.server = Server(rig.desk, clients=10)
    asyncio.run_coroutine_threadsafe(rig.server.start(handed), rig.loop).result(10)

    assert "queuectld" in late.receive()
    assert late.receive()["ok"]
    late.close()
    assert rig.socket.stat().st_ino == handed.unix.inode


def test_half_lines_of_many_connections_end_with_the_one_that_holds_most(rig, monkeypatch):
    monkeypatch.setattr(rig.server, "_traffic", Budget(Share(user=300_000, everybody=1_000_000)))
    modest, greedy, *others = (rig.connect() for _ in range(4))
    modest.send_raw(b'{"id":1,"op":"pi')
    greedy.send_raw(b"x" * 150_000)
    wait_for(lambda: rig.call(lambda: rig.server._traffic.total) > 150_000, "it is taken down")

    for other in others:
        other.send_raw(b"x" * 80_000)

    answer = greedy.receive()
    assert (answer["id"], answer["error"]["code"]) == (None, "too_much_held")
    assert greedy.sock.recv(1) == b""
    modest.send_raw(b'ng"}\n')
    assert "ok" in modest.receive()
    for other in others:
        other.send_raw(b"\n")
        assert other.receive()["error"]["code"] == "bad_json"
    assert rig.call(lambda: rig.server._traffic.total) == 0


def test_answers_that_many_do_not_read_end_with_the_connection_that_holds_most(rig, monkeypatch):
    monkeypatch.setattr(rig.server, "_traffic", Budget(Share(user=600_000, everybody=600_000)))
    reader = rig.connect()
    for _ in range(20):
        reader.add(note="x" * 4000)
    deaf = [rig.connect() for _ in range(4)]

    for client in deaf:
        client.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while client.sock.send(b'{"id":1,"op":"list","limit":1000}\n' * 100):
                pass

    wait_for(lambda: rig.call(lambda: len(rig.server._sessions)) < 5, "one has gone")
    assert rig.call(lambda: rig.server._traffic.total) <= 600_000
    assert "ok" in reader.ask(op="ping")


def test_what_is_staged_is_bounded_over_all_connections_and_freed_with_each(rig, monkeypatch):
    monkeypatch.setattr(rig.server, "_staged", Budget(Share(user=1_000_000, everybody=1_000_000)))
    first, second = rig.connect(), rig.connect()
    first.ok(op="stage", key="a", data="x" * 700_000)

    refusal = second.error(op="stage", key="a", data="x" * 700_000)

    assert (refusal["code"], refusal["path"]) == ("too_much_held", "$.key")
    assert "enqueue what is staged" in refusal["message"]
    first.close()
    wait_for(lambda: "ok" in second.ask(op="stage", key="a", data="x" * 700_000), "there is room again")
    second.add(stdin={"staged": "a"})
    assert rig.connect().ok(op="stage", key="a", data="x" * 700_000)


def test_what_is_staged_and_taken_up_counts_until_it_is_stored_though_its_client_leaves(rig, client):
    gate = hold_up_the_store(rig)
    client.ok(op="stage", key="a", jobs=[{"command": "true"}] * 600)
    client.send(op="enqueue", staged="a")
    wait_for(lambda: rig.call(lambda: rig.desk.ledger.progress[0]) == 2, "it is under way")

    rig.call(lambda: next(iter(rig.server._sessions)).abort())
    wait_for(lambda: not rig.call(lambda: rig.server._sessions), "it is gone")

    assert rig.call(lambda: rig.server._staged.total) > 600 * 18
    gate.set()
    wait_for(lambda: rig.call(lambda: rig.server._staged.total) == 0, "nothing is in use")


def test_what_was_staged_for_a_request_that_could_not_begin_is_forgotten_with_its_connection(rig, client):
    gate = hold_up_the_store(rig)
    client.ok(op="stage", key="a", jobs=[{"command": "true"}] * 2500)
    client.send(op="enqueue", jobs=[{"command": "true"}])
    client.send(op="enqueue", staged="a")
    session = next(iter(rig.call(lambda: set(rig.server._sessions))))
    wait_for(lambda: rig.call(lambda: session._held) is not None, "it waits for the one before")

    client.close()
    gate.set()

    wait_for(lambda: rig.call(lambda: rig.server._staged.total) == 0, "nothing is in use")


def test_large_requests_of_many_connections_wait_for_one_another_and_none_is_lost(rig, monkeypatch):
    monkeypatch.setattr(rig.server, "_under_way", UnderWay(Share(user=50_000, everybody=50_000)))
    gate = hold_up_the_store(rig)
    clients = [rig.connect() for _ in range(4)]
    large = [{"command": "true", "note": "x" * 1000}] * 10

    for client in clients:
        for _ in range(3):
            client.send(op="enqueue", jobs=large)
    wait_for(lambda: rig.call(lambda: [one._crowded for one in rig.server._sessions].count(True)) >= 3, "others wait")

    # Of 10,000 bytes each, behind what holds the store up.
    assert rig.call(lambda: rig.desk.ledger.progress[0]) == 1 + 4
    assert "ok" in rig.connect().ask(op="ping")
    gate.set()
    for client in clients:
        assert all(len(client.receive()["ok"]["jobs"]) == 10 for _ in range(3))


def test_a_long_request_for_a_stream_counts_for_as_long_as_the_stream_lasts(rig, client):
    job = client.add("sleep 1000", delay=3600)
    number = client.send(op="wait", select={"ids": [job] * 4000})

    wait_for(lambda: rig.call(lambda: rig.server._traffic.total) > 4000 * len(job), "it is taken down")
    client.ok(op="ping")
    client.send(op="stop", stream=number)
    for _ in range(2):
        client.receive()

    wait_for(lambda: client.ok(op="ping") and rig.call(lambda: rig.server._traffic.total) == 0, "it is forgotten")


def test_others_are_served_between_the_parts_of_many_jobs(rig, client):
    other = rig.connect()
    gate = hold_up_the_store(rig)
    number = client.send(op="enqueue", jobs=[{"command": "true"}] * 9000)
    wait_for(lambda: rig.call(lambda: rig.desk.ledger.progress[0]) == 2, "the first part is under way")
    other.send(op="enqueue", jobs=[{"id": "little", "command": "true"}])
    wait_for(lambda: rig.call(lambda: rig.desk.ledger.progress[0]) == 3, "somebody else asks for little")

    gate.set()
    reply = client.receive()

    assert reply["id"] == number
    assert len({one["id"] for one in reply["ok"]["jobs"]}) == 9000
    assert "ok" in other.receive()
    assert rig.do(lambda store: store.get("little")).seq <= 2001


@pytest.mark.parametrize("key", [None, "key-1"])
def test_of_many_jobs_those_are_told_that_did_not_fit_on_the_disk_and_the_same_request_goes_on(rig, client, key):
    write, calls = rig.desk.ledger.write, []

    async def full_for_a_while(work, *, sheds=False, **options):
        calls.extend([work] * sheds)
        if sheds and len(calls) in (3, 4):
            raise DiskFullError
        return await write(work, sheds=sheds, **options)

    rig.desk.ledger.write = full_for_a_while
    jobs = [{"command": "true"}] * 7000

    reply = client.ok(op="enqueue", jobs=jobs, request=key)

    assert len(reply["jobs"]) == 4000
    assert [one["index"] for one in reply["refused"]] == list(range(4000, 7000))
    assert {one["code"] for one in reply["refused"]} == {"disk_full"}
    assert client.ok(op="count", select={})["total"] == 4000
    if key is None:
        # Nothing of it was stored: it is refused as a whole.
        assert client.error(op="enqueue", jobs=jobs)["code"] == "disk_full"
        return
    calls.append(None)
    again = client.ok(op="enqueue", jobs=jobs, request=key)
    assert [one["created"] for one in again["jobs"]] == [False] * 4000 + [True] * 3000
    assert [one["id"] for one in again["jobs"]][:4000] == [one["id"] for one in reply["jobs"]]
    assert again["refused"] == []
    assert client.ok(op="count", select={})["total"] == 7000


def test_a_request_whose_first_copy_was_kept_in_smaller_parts_is_completed(rig, client, monkeypatch):
    jobs = [{"id": f"j{number}", "command": "true"} for number in range(10)]
    monkeypatch.setattr(submit, "PART", 4)
    write, calls = rig.desk.ledger.write, []

    async def once(work, *, sheds=False, **options):
        calls.extend([work] * sheds)
        if len(calls) > 1:
            raise DiskFullError
        return await write(work, sheds=sheds, **options)

    monkeypatch.setattr(handlers, "PART", 4)
    rig.desk.ledger.write = once
    assert len(client.ok(op="enqueue", jobs=jobs, request="key-1")["jobs"]) == 4
    monkeypatch.undo()
    rig.desk.ledger.write = write

    again = client.ok(op="enqueue", jobs=jobs, request="key-1")

    assert [job["id"] for job in again["jobs"]] == [job["id"] for job in jobs]
    assert [job["created"] for job in again["jobs"]] == [False] * 4 + [True] * 6
