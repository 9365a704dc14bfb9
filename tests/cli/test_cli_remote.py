"""Daemons on other hosts: addresses, certificates, tokens, and `ssh`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading

import pytest

from queuectl_cli.client import connect, dial
from queuectl_cli.errors import CliError, UnreachableError, UsageError
from queuectl_cli.target import Trust, parse_url
from queuectld.protocol.where import places
from tests.certificates import Authority
from tests.cli.scripted import GREETING

HERE = places({"HOME": "/root"}, 0, None, lambda _: False)


def url(text):
    return parse_url(text, HERE)


# Addresses.


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "name"),
    [
        ("tcp://127.0.0.1:7420", "tcp", "127.0.0.1", 7420, "127.0.0.1:7420"),
        ("tls://example.org:7420/", "tls", "example.org", 7420, "example.org:7420"),
        ("tls://[2001:db8::1]:7420", "tls", "2001:db8::1", 7420, "[2001:db8::1]:7420"),
        ("ssh://example.org", "ssh", "example.org", 0, "ssh://example.org"),
        ("ssh://alice@example.org:2222", "ssh", "example.org", 2222, "ssh://alice@example.org:2222"),
        ("ssh://alice@[::1]:2222/", "ssh", "::1", 2222, "ssh://alice@[::1]:2222"),
        ("ssh://[::1]", "ssh", "::1", 0, "ssh://[::1]"),
    ],
)
def test_an_address_is_understood(text, scheme, host, port, name):
    target = url(text)

    assert (target.scheme, target.host, target.port, target.name) == (scheme, host, port, name)
    assert not target.local
    assert target.explicit


@pytest.mark.parametrize(
    "text",
    [
        "tcp://example.org",
        "tls://example.org:0",
        "tls://example.org:70000",
        "tls://:7420",
        "ssh://",
        "ssh://alice@",
        "ssh://-oProxyCommand=id",
        "ssh://$(id)@example.org",
        "ssh://example.org;id",
        "ssh://-l@example.org",
        "ssh://a b",
        "ssh://example.org:ssh",
        "http://example.org",
    ],
)
def test_what_is_no_address_is_a_usage_error(text):
    with pytest.raises(UsageError):
        url(text)


def test_a_path_and_a_scope_are_told_the_other_end(call, ssh):
    call("-H", "ssh://example.org/run/x y.sock", "ping")
    call("-H", "ssh://example.org", "--system", "ping")

    assert ssh.asked() == ["queuectl -H 'unix:///run/x y.sock' dial-stdio", "queuectl --system dial-stdio"]


def test_what_is_for_tls_alone_is_refused_elsewhere(daemon, call, monkeypatch):
    assert call("--tls-ca", "/x", "ping").status == 2
    assert call("--tls-fingerprint", "x", "-H", "tcp://127.0.0.1:1", "ping").status == 2
    monkeypatch.setenv("QUEUECTL_TLS_CA", "/x")
    assert call("ping").status == 0


# Encrypted.


def line_of(message):
    return json.dumps(message).encode() + b"\n"


class Server:
    """Answers one connection after the other, with a certificate, as a daemon that asks for a token."""

    def __init__(self, pair, *, client_ca=None, says=None):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pair.cert, pair.key)
        if client_ca is not None:
            self.context.load_verify_locations(client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.says = says
        self.heard = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                with contextlib.suppress(OSError):
                    self._answer(connection)
                connection.close()

    def _answer(self, connection):
        if self.says is not None:
            connection.sendall(self.says)
            connection.recv(1000)
            return
        with self.context.wrap_socket(connection, server_side=True) as encrypted:
            encrypted.sendall(line_of(GREETING | {"authenticate": True}))
            with encrypted.makefile("rb") as lines:
                for line in lines:
                    self.heard.append(line)
                    encrypted.sendall(line_of({"id": json.loads(line)["id"], "ok": {"user": "ann"}}))

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def serve(*args, **options):
            server = Server(*args, **options)
            stack.callback(server.close)
            return server

        yield serve


def attempt(server, *, host="localhost", scheme="tls", token="secret", **trust):
    """Connect; return what went wrong."""
    target = url(f"{scheme}://{host}:{server.port}")._replace(trust=Trust(**trust))
    try:
        connect(target, token, 20).close()
    except CliError as error:
        return error
    return None


def test_a_daemon_is_believed_by_its_authority_its_certificate_or_its_fingerprint(serve, authority):
    pair = authority.sign("server")
    server = serve(pair)

    assert attempt(server, ca=str(authority.pair.cert)) is None
    assert attempt(server, ca=str(pair.cert)) is None
    assert attempt(server, fingerprint=f"sha256:{pair.fingerprint}") is None
    assert attempt(server, fingerprint=pair.fingerprint.upper(), host="127.0.0.1") is None
    spelt = ":".join(pair.fingerprint[place : place + 2] for place in range(0, 64, 2))
    assert attempt(server, fingerprint=spelt, ca=str(authority.pair.cert)) is None
    assert len(server.heard) == 5


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"names": "DNS:example.org"}, "is for another name"),
        ({"days": -1}, "has expired"),
    ],
)
def test_a_certificate_that_is_not_right_is_explained_and_gets_no_token(serve, authority, made, words):
    server = serve(authority.sign("odd", **made))

    error = attempt(server, ca=str(authority.pair.cert))

    assert words in error.message
    assert (error.code, error.status) == ("tls", 69)
    assert not server.heard


def test_an_authority_that_nobody_knows_is_explained_and_gets_no_token(serve, authority, tmp_path):
    other = Authority(tmp_path, "other")
    server = serve(authority.sign("server"))

    for trust in ({}, {"ca": str(other.pair.cert)}):
        error = attempt(server, **trust)

        assert "vouched for by nobody" in error.message
        assert any("--tls-ca" in hint for hint in error.hints)
    assert not server.heard


def test_another_fingerprint_is_another_daemon_and_gets_no_token(serve, authority):
    pair = authority.sign("server")
    server = serve(pair)

    error = attempt(server, fingerprint="sha256:" + "0" * 64)

    assert "is not the daemon with the fingerprint" in error.message
    assert any(pair.fingerprint in hint for hint in error.hints)
    assert attempt(server, fingerprint="sha256:123").status == 2
    assert not server.heard


def test_files_that_are_none_are_usage_errors(serve, authority, tmp_path):
    server = serve(authority.sign("server"))
    (tmp_path / "file").write_text("nothing of the kind")

    for trust in ({"ca": "/none"}, {"ca": str(tmp_path / "file")}, {"cert": "/none"}, {"cert": str(tmp_path / "file")}):
        error = attempt(server, **trust)
        assert (error.status, next(iter(trust.values())) in error.message) == (2, True)


def test_a_certificate_of_the_client_is_shown(serve, authority):
    server = serve(authority.sign("server"), client_ca=authority.pair.cert)
    mine = authority.sign("client")

    assert attempt(server, ca=str(authority.pair.cert), cert=str(mine.cert), key=str(mine.key)) is None
    refused = attempt(server, ca=str(authority.pair.cert))
    assert refused.status == 69
    assert "certificate" in refused.text()


def test_what_speaks_no_tls_is_explained(serve, authority):
    error = attempt(serve(authority.pair, says=b'{"queuectld":"1.0.0","protocol":[1]}\n'))

    assert "does not speak TLS" in error.message
    assert error.status == 76


def test_who_breaks_off_or_says_nothing_is_explained(authority):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = url(f"tls://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UnreachableError, match="no TLS within the time"):
            connect(target, None, 0.2)
    with pytest.raises(UnreachableError, match="nothing listens there"):
        connect(target, None, 20)


def test_large_requests_and_answers_pass_through_tls(serve, authority):
    server = serve(authority.sign("server"))
    client = connect(
        url(f"tls://localhost:{server.port}")._replace(trust=Trust(ca=str(authority.pair.cert))), "secret", 20
    )

    client.send("enqueue", jobs=["x" * 900_000])

    assert client.receive(20)["ok"]
    assert len(server.heard[-1]) > 900_000
    client.close()


def test_ssl_is_loaded_for_tls_alone(daemon):
    def loads(*args):
        code = f"import sys; from queuectl_cli.main import main; main({list(args)!r}); print('ssl' in sys.modules)"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loads("ping").endswith("False\n")
    assert loads("-H", "tcp://127.0.0.1:1", "ping").endswith("False\n")
    assert loads("-H", "tls://127.0.0.1:1", "ping").endswith("False\n")


# In the clear.


def test_a_token_does_not_travel_in_the_clear(monkeypatch, serve, authority):
    server = serve(authority.pair, says=b"")
    for peer, refused in (("192.0.2.1", True), ("2001:db8::1", True), ("127.0.0.1", False), ("::1", False)):
        monkeypatch.setattr("socket.socket.getpeername", lambda _, peer=peer: (peer, 7420))

        error = attempt(server, scheme="tcp", host="127.0.0.1")

        assert ("in the clear" in error.message) is refused
        assert any("tls://" in hint for hint in error.hints) is refused


def test_a_port_that_speaks_tls_says_so(daemon, call):
    daemon.greeting = {"id": None, "error": {"code": "tls_required", "message": "This port speaks TLS only."}}

    called = call("ping")

    assert called.status == 76
    assert "tls://" in called.err


# Over SSH.


class Ssh:
    """A program `ssh` that runs what it is asked here, or does what a test wants instead."""

    def __init__(self, place):
        self._place = place
        place.mkdir()
        self.does('exec sh -c "$*"')

    def does(self, script):
        program = self._place / "ssh"
        program.write_text(
            f'#!/bin/sh\nwhile [ "$1" != -- ]; do echo "$1" >>"{self._place}/options"; shift; done\n'
            f'echo "$2" >>"{self._place}/hosts"\nshift 2\necho "$*" >>"{self._place}/asked"\n{script}\n'
        )
        program.chmod(0o755)

    def asked(self):
        return (self._place / "asked").read_text().splitlines()

    def hosts(self):
        return (self._place / "hosts").read_text().splitlines()

    def options(self):
        return (self._place / "options").read_text().splitlines()


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    fake = Ssh(tmp_path / "ssh")
    queuectl = tmp_path / "ssh" / "queuectl"
    queuectl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m queuectl_cli.main "$@"\n')
    queuectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'ssh'}:{os.environ['PATH']}")
    return fake


def test_what_is_asked_over_ssh_is_answered(daemon, ssh, call):
    called = call("-H", "ssh://alice@example.org:2222", "ping")

    assert called.status == 0, called.err
    assert ssh.asked() == ["queuectl dial-stdio"]
    assert ssh.hosts() == ["alice@example.org"]
    assert ssh.options()[-2:] == ["-p", "2222"]


def test_what_says_where_the_daemon_is_here_does_not_reach_the_other_end(daemon, ssh, call, monkeypatch):
    monkeypatch.setenv("QUEUECTL_HOST", "ssh://example.org")

    assert call("ping").status == 0


def test_environment_and_directory_stay_here(daemon, ssh, call):
    assert call("-H", "ssh://example.org", "enqueue", "true").status == 0
    assert daemon.of("enqueue")[-1].get("submission", {}).get("env") is None
    assert daemon.of("enqueue")[-1].get("submission", {}).get("cwd") is None


def test_no_token_goes_over_ssh(daemon, ssh, call, monkeypatch):
    monkeypatch.setenv("QUEUECTL_TOKEN_FILE", "/no/such/file")

    assert call("-H", "ssh://example.org", "ping").status == 0
    assert not daemon.of("hello")


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255", 69, "ssh cannot reach example.org"),
        ("echo 'sh: 1: queuectl: not found' >&2; exit 127", 69, "QUEUECTL_SSH_QUEUECTL"),
        ("exit 126", 69, "there is no queuectl at example.org"),
        ("echo \"Error: there is no command 'dial-stdio'\" >&2; exit 2", 76, "to the same version"),
        ("exit 0", 69, "lost the connection"),
        ("echo 'Error: permission denied' >&2; exit 77", 77, "permission denied"),
        ("printf '\\033]0;evil\\007\\nno\\n' >&2; exit 255", 69, "?]0;evil?"),
        ("echo Welcome to this host", 76, "is not queuectld"),
    ],
)
def test_what_can_go_wrong_over_ssh_is_told_apart(ssh, call, script, status, words):
    ssh.does(script)

    called = call("-H", "ssh://example.org", "ping")

    assert called.status == status, called
    assert words in called.err


def test_no_daemon_at_the_other_end_is_its_own_error_and_none_is_started(ssh, call, monkeypatch, tmp_path):
    monkeypatch.delenv("QUEUECTL_AUTOSTART")
    called = call("-H", "ssh://example.org", "enqueue", "true")

    assert called.status == 69
    assert "no queuectld answers at example.org" in called.err
    assert "there is no such socket" in called.err
    assert not (tmp_path / "state").exists()


def test_without_a_program_ssh_that_is_said(call, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")

    called = call("-H", "ssh://example.org", "ping")

    assert called.status == 69
    assert "there is no `ssh` here" in called.err


def test_an_ssh_that_does_not_get_on_is_given_up(ssh, monkeypatch):
    ssh.does("exec sleep 1000")
    monkeypatch.setattr("queuectl_cli.ssh.AGAIN", 0.2)

    with pytest.raises(UnreachableError, match="no answer") as caught:
        dial(url("ssh://example.org"), 2.0)

    assert caught.value.code == "timeout"


def test_the_interrupt_of_a_terminal_does_not_reach_ssh(daemon, ssh, call):
    ssh.does('kill -INT $$; kill -QUIT $$; exec sh -c "$*"')

    assert call("-H", "ssh://example.org", "ping").status == 0


# The other end.


def dial_stdio(*words, **options):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "queuectl_cli.main", *words, "dial-stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_what_is_asked_before_the_end_of_stdin_is_answered_after_it(daemon):
    with dial_stdio() as process:
        out, err = process.communicate(b'{"id":1,"op":"ping"}\n', timeout=20)

    assert (process.returncode, err) == (0, b"")
    assert b'"queuectld"' in out.splitlines()[0]
    assert b'"ok"' in out.splitlines()[1]


def test_the_end_of_the_daemon_is_the_end_of_both(daemon):
    with dial_stdio() as process:
        assert process.stdout.readline()
        daemon.go(clean=True)
        assert process.wait(20) == 0


def test_only_a_daemon_of_this_host_is_spoken_to(call):
    called = call("-H", "tls://example.org:1", "dial-stdio")

    assert called.status == 2
    assert "of its own host" in called.err


def test_it_is_no_command_for_people(call):
    assert "dial-stdio" not in call("--help").out
