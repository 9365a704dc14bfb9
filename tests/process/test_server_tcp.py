"""Clients over TCP: what they have to show, and what a crowd of them can do."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import threading
import time
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queuectld.errors import BadConfigError
from queuectld.server import entrance
from queuectld.server.budget import Budget, Share
from queuectld.server.crowd import Crowd
from queuectld.server.throttle import FREE
from tests.certificates import Authority
from tests.process.server_rig import Client, Rig
from tests.system.waiting import wait_for

TOKEN = "a-token-of-more-than-16-characters"
OTHER = "another-token-of-enough-characters"
HELLO = b'{"id":1,"op":"hello","token":"%s"}\n' % TOKEN.encode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority):
    return authority.sign("server")


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def settings_of(token_file, pair):
    def made(*, tls=True, **others):
        environ = {"TCP": "127.0.0.1:0", "TOKEN_FILE": token_file, **others}
        if tls:
            environ |= {"TLS_CERT": pair.cert, "TLS_KEY": pair.key}
        return {f"QUEUECTLD_{name}": str(value) for name, value in environ.items()}

    return made


@pytest.fixture
def plain(tmp_path, settings_of):
    with Rig(tmp_path, environ=settings_of(tls=False), hello_timeout=20) as rig:
        yield rig


@pytest.fixture
def rig(tmp_path, settings_of):
    with Rig(tmp_path, environ=settings_of(), hello_timeout=20) as rig:
        yield rig


@pytest.fixture
def hasty(tmp_path, settings_of):
    with Rig(tmp_path, environ=settings_of(), hello_timeout=0.5) as rig:
        yield rig


def trusting(authority, **options):
    context = ssl.create_default_context(cafile=str(authority.pair.cert))
    for name, value in options.items():
        setattr(context, name, value)
    return context


def dial(rig, context):
    """Connect, encrypted, and return a client that was greeted."""
    sock = socket.create_connection(rig.tcp_address(), timeout=20)
    try:
        sock = context.wrap_socket(sock, server_hostname="localhost")
        client = Client(sock)
        client.greeting = client.receive()
    except BaseException:
        sock.close()
        raise
    return client


def admitted(rig, context, token=TOKEN):
    client = dial(rig, context)
    client.ok(op="hello", token=token)
    return client


def gone(client):
    """Whether the other end has closed."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while client.file.read(65536):
            pass
    return True


# Tokens.


def test_a_token_says_who_is_there(tmp_path, plain, token_file):
    token_file.write_text(f"{TOKEN}\n{OTHER} root user\n")
    plain.reload()

    with contextlib.closing(plain.connect_tcp()) as client:
        client.receive()

        assert client.ok(op="hello", token=OTHER)["user"] == "root"


def test_new_tokens_hold_at_once_and_who_came_by_one_that_is_gone_has_to_go(plain, token_file):
    token_file.write_text(f"{TOKEN}\n{OTHER} root\n")
    plain.reload()
    stays, goes = plain.connect_tcp(), plain.connect_tcp()
    for client, token in ((stays, TOKEN), (goes, OTHER)):
        client.receive()
        client.ok(op="hello", token=token)

    token_file.write_text(f"{TOKEN}\n")
    plain.reload()

    assert gone(goes)
    assert stays.ok(op="ping")
    with contextlib.closing(plain.connect_tcp()) as late:
        late.receive()
        assert late.error(op="hello", token=OTHER)["code"] == "unauthenticated"
    stays.close()
    goes.close()


def test_a_bad_file_of_tokens_changes_nothing(plain, token_file):
    token_file.write_text("short\n")
    with pytest.raises(BadConfigError, match="at least 16 characters"):
        plain.reload()

    with contextlib.closing(plain.connect_tcp()) as client:
        client.receive()
        assert client.ok(op="hello", token=TOKEN)


def test_a_token_by_which_too_many_have_come_lets_no_more_in(plain, token_file, monkeypatch):
    token_file.write_text(f"{TOKEN}\n{OTHER} nobody user\n")
    monkeypatch.setattr(plain.server, "_sessions", Crowd(4))
    plain.connect().ok(op="reload")
    crowd = [plain.connect_tcp() for _ in range(3)]
    for client in crowd:
        client.receive()

    for client in crowd[:2]:
        assert client.ok(op="hello", token=OTHER)
    assert crowd[2].error(op="hello", token=OTHER)["code"] == "too_many_clients"

    assert crowd[2].sock.recv(1) == b""
    for client in crowd:
        client.close()


def test_after_some_wrong_tokens_the_next_are_not_looked_at(plain):
    now = [1000.0]
    plain.server._door._clock = lambda: now[0]

    def answer(token):
        with contextlib.closing(plain.connect_tcp()) as client:
            client.receive()
            return client.ask(op="hello", token=token)

    codes = [answer(f"wrong-{number}")["error"]["code"] for number in range(FREE + 2)]
    refused = answer(TOKEN)["error"]

    assert codes == ["unauthenticated"] * FREE + ["too_many_attempts"] * 2
    assert refused["code"] == "too_many_attempts"
    assert "127.0.0.1" in refused["message"]
    now[0] += 1
    assert answer("wrong")["error"]["code"] == "unauthenticated"
    assert answer(TOKEN)["error"]["code"] == "too_many_attempts"
    now[0] += 2
    assert "ok" in answer(TOKEN)
    assert answer("wrong")["error"]["code"] == "unauthenticated"
    # Known as right from there by now.
    assert "ok" in answer(TOKEN)


def test_nothing_is_served_where_others_reach_it_without_tls(tmp_path, token_file):
    with socket.create_server(("0.0.0.0", 0)) as open_to_all, Rig(tmp_path) as rig:
        environ = {"QUEUECTLD_TOKEN_FILE": str(token_file)}
        rig._environ = environ
        rig.reload()

        with pytest.raises(BadConfigError, match="can be reached from elsewhere, which needs TLS"):
            rig.call(lambda: rig.server._let_in(open_to_all.dup(), "passed"))


# Encrypted.


def test_inside_tls_everything_is_as_without(rig, authority):
    with contextlib.closing(admitted(rig, trusting(authority))) as client:
        assert client.sock.version() == "TLSv1.3"
        job = client.add("echo " + "x" * 500_000)
        assert client.ok(op="get", job=job)["job"]["id"] == job


def test_half_a_megabyte_of_answers_waits_for_a_client_that_does_not_read(rig, authority):
    with contextlib.closing(admitted(rig, trusting(authority))) as client:
        for number in range(40):
            client.add("echo " + "x" * 200_000, id=f"job{number}")

        for _ in range(8):
            client.send(op="list", limit=1000)
        client.send(op="ping")

        for _ in range(8):
            assert len(client.receive()["ok"]["jobs"]) == 40
        assert client.receive()["ok"]["version"]


def test_what_belongs_to_an_authority_that_nobody_knows_is_seen_by_clients(rig, tmp_path):
    stranger = Authority(tmp_path, "stranger")

    with pytest.raises(ssl.SSLCertVerificationError):
        dial(rig, trusting(stranger))
    assert rig.connect().ok(op="ping")


def test_a_version_of_the_last_century_is_refused(rig, authority):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(str(authority.pair.cert))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")

    with pytest.raises((ssl.SSLError, ConnectionError)):
        dial(rig, old)


def test_a_client_without_the_certificate_that_is_wanted_does_not_get_in(tmp_path, settings_of, authority):
    mine = authority.sign("client")
    with Rig(tmp_path, environ=settings_of(TLS_CLIENT_CA=authority.pair.cert), hello_timeout=20) as rig:
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            dial(rig, trusting(authority))
        context = trusting(authority)
        context.load_cert_chain(mine.cert, mine.key)
        with contextlib.closing(admitted(rig, context)) as client:
            assert client.ok(op="ping")


def test_a_new_certificate_is_shown_from_the_next_connection_on(tmp_path, settings_of, authority):
    cert, key = tmp_path / "cert", tmp_path / "key"

    def put(pair):
        cert.write_bytes(pair.cert.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    key.touch(mode=0o600)
    put(authority.sign("one"))
    environ = settings_of(tls=False, TLS_CERT=cert, TLS_KEY=key)
    with Rig(tmp_path, environ=environ, hello_timeout=20) as rig, ExitStack() as stack:

        def shown():
            client = admitted(rig, trusting(authority))
            stack.callback(client.close)
            return client, client.sock.getpeercert()["subject"]

        before, first = shown()
        put(authority.sign("two"))
        rig.reload()
        _, second = shown()
        cert.write_text("nothing of the kind")
        with pytest.raises(BadConfigError, match="not a certificate"):
            rig.reload()
        _, third = shown()

        assert first == ((("commonName", "one"),),)
        assert second == third == ((("commonName", "two"),),)
        assert before.ok(op="ping")


def test_a_client_that_closes_takes_no_connection_along(rig, authority):
    before = rig.connect().ok(op="status")["connections"]
    for end in (lambda sock: sock.unwrap(), lambda sock: sock.close()):
        client = admitted(rig, trusting(authority))
        client.send(op="events", follow=True)
        with contextlib.suppress(ssl.SSLError, OSError):
            end(client.sock)
        client.close()

    watcher = rig.connect()
    wait_for(lambda: watcher.ok(op="status")["connections"] <= before + 1, "they are gone")


def test_the_server_goes_while_clients_are_there(tmp_path, settings_of, authority):
    with Rig(tmp_path, environ=settings_of(), hello_timeout=20) as rig:
        client = admitted(rig, trusting(authority))
        follower = admitted(rig, trusting(authority))
        follower.send(op="events", follow=True)
        silent = socket.create_connection(rig.tcp_address(), timeout=20)
    assert gone(client)
    assert gone(follower)
    assert silent.recv(1) == b""
    for one in (client, follower, silent):
        one.close()


def test_a_client_over_tls_that_has_too_much_kept_for_it_is_told_and_goes(rig, authority, monkeypatch):
    monkeypatch.setattr(rig.server, "_traffic", Budget(Share(user=300_000, everybody=1_000_000)))
    with contextlib.closing(admitted(rig, trusting(authority))) as greedy:
        greedy.send_raw(b"x" * 400_000)

        answer = greedy.receive()
        assert (answer["id"], answer["error"]["code"]) == (None, "too_much_held")
        assert gone(greedy)
    assert rig.connect().ok(op="ping")


def test_answers_that_nobody_reads_end_a_connection_over_tls_too(rig, authority, monkeypatch):
    monkeypatch.setattr(rig.server, "_traffic", Budget(Share(user=600_000, everybody=600_000)))
    reader = rig.connect()
    for _ in range(20):
        reader.add(note="x" * 4000)
    with ExitStack() as stack:
        deaf = [stack.enter_context(contextlib.closing(admitted(rig, trusting(authority)))) for _ in range(4)]

        for client in deaf:
            client.sock.setblocking(False)
            with contextlib.suppress(ssl.SSLWantWriteError, OSError):
                while client.sock.send(b'{"id":1,"op":"list","limit":1000}\n' * 100):
                    pass

        wait_for(lambda: rig.call(lambda: len(rig.server._sessions)) < 5, "one has gone")
        assert rig.call(lambda: rig.server._traffic.total) <= 600_000
        assert "ok" in reader.ask(op="ping")


def test_where_no_more_can_be_opened_clients_wait_until_it_can(rig, authority, monkeypatch):
    monkeypatch.setattr(entrance, "_REST", 0.05)
    entry = rig.server._entrance

    class Exhausted:
        """A socket on a host without descriptors."""

        def __init__(self, sock):
            self.times = 0
            self.fileno, self.close, self._accept = sock.fileno, sock.close, sock.accept

        def accept(self):
            self.times += 1
            if self.times <= 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return self._accept()

    rig.call(lambda: setattr(entry, "sock", Exhausted(entry.sock)))

    with contextlib.closing(admitted(rig, trusting(authority))) as client:
        assert client.ok(op="ping")
    assert entry.sock.times == 4


# What does not get on.


def answer_in_the_clear(rig, data):
    with socket.create_connection(rig.tcp_address(), timeout=20) as sock:
        sock.sendall(data)
        with sock.makefile("rb") as file, contextlib.suppress(ConnectionError):
            return file.read()
    return None


@pytest.mark.parametrize("data", [HELLO, b"{", b"\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_client_that_speaks_in_the_clear_is_told_so(rig, data):
    assert b'"tls_required"' in answer_in_the_clear(rig, data)


def test_a_client_that_waits_for_a_greeting_is_told_so(hasty):
    assert b'"tls_required"' in answer_in_the_clear(hasty, b"")


def test_a_handshake_that_does_not_get_on_ends_in_time_from_the_connection_on(hasty):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()

    begin = time.monotonic()
    with socket.create_connection(hasty.tcp_address(), timeout=20) as sock, contextlib.suppress(OSError):
        for byte in hello:
            sock.sendall(bytes([byte]))
            time.sleep(0.02)
    with socket.create_connection(hasty.tcp_address(), timeout=20) as sock:
        # All of it, and then nothing more.
        sock.sendall(hello)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass

    assert time.monotonic() - begin < 10
    wait_for(lambda: len(hasty.server._entrance._lobby) == 0, "nothing of it is left")


def test_after_the_handshake_the_token_has_to_come_in_what_is_left_of_the_time(hasty, authority):
    # On a busy machine there may be nothing left.
    with contextlib.suppress(OSError, EOFError), contextlib.closing(dial(hasty, trusting(authority))) as client:
        assert gone(client)

    wait_for(lambda: not (len(hasty.server._entrance._lobby) or hasty.server._sessions), "it has been ended")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_harm_a_port_that_speaks_tls(hasty, data, handshake):
    with socket.create_connection(hasty.tcp_address(), timeout=20) as sock:
        sock.sendall((b"\x16\x03\x01" if handshake else b"") + data)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass

    assert hasty.connect().ok(op="ping")


@pytest.mark.parametrize("tls", [True, False])
def test_a_crowd_that_says_nothing_keeps_nobody_out(tmp_path, settings_of, authority, tls):
    with Rig(tmp_path, environ=settings_of(tls=tls), hello_timeout=60) as rig, ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(rig.tcp_address(), timeout=20)) for _ in range(200)]
        wait_for(lambda: len(rig.server._entrance._lobby) == 128, "the first ones had to go")

        if tls:
            client = admitted(rig, trusting(authority))
        else:
            client = rig.connect_tcp()
            client.receive()
            client.ok(op="hello", token=TOKEN)
        stack.callback(client.close)

        assert client.ok(op="ping")
        # Whoever has shown who it is has no place in the lobby any more, so the crowd cannot end it.
        crowd += [stack.enter_context(socket.create_connection(rig.tcp_address(), timeout=20)) for _ in range(200)]
        assert client.ok(op="ping")
        assert rig.connect().ok(op="ping")


def test_a_crowd_of_handshakes_keeps_nobody_out(rig, authority):
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(rig.tcp_address(), timeout=20) as sock,
            ):
                sock.sendall(b"\x16\x03\x01\x02\x00\x01")

    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with contextlib.closing(admitted(rig, trusting(authority))) as client:
                assert client.ok(op="ping")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    wait_for(lambda: len(rig.server._entrance._lobby) == 0, "nothing of it is left")
