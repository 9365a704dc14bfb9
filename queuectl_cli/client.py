"""The protocol from the client's side: one blocking socket, JSON lines, plain dictionaries."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Generator
from typing import Any, Final

from queuectl_cli.errors import CliError, LostError, RefusedError, UnreachableError, UsageError
from queuectl_cli.target import Target
from queuectld.protocol.words import LINE_LIMIT, PROTOCOL, VERSION

Message = dict[str, Any]

# A daemon that is alive greets at once; one that is suspended never does.
GREETING_PATIENCE: Final = 10.0
ANSWER_PATIENCE: Final = 60.0
# The longest path of a Unix socket that the kernel takes.
_PATH_LIMIT: Final = 107
# Seconds until a place is looked for again among those who wait to be let in.
_CROWDED: Final = 0.02


class Client:
    """A connection to the daemon. Requests are answered in order; streams interleave."""

    def __init__(self, connection: socket.socket, target: Target) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._scanned = 0
        self._ids = 0
        self.target = target
        # Answers that came while another one was waited for.
        self._early: dict[int, Message] = {}
        self.line_limit = LINE_LIMIT
        self.greeting: Message = {}

    def greet(self, token: str | None, patience: float) -> None:
        """Read the server's first line, and say who we are where that is needed. Raises `CliError`."""
        self.greeting = self.receive(patience)
        if "error" in self.greeting:
            settle(self.greeting)
        spoken = self.greeting.get("protocol")
        if "queuectld" not in self.greeting or not isinstance(spoken, list):
            raise UnreachableError(f"what answers at {self.target.name} is not queuectld", code="protocol", status=76)
        if not set(spoken) & set(PROTOCOL):
            raise UnreachableError(
                f"queuectld {self.greeting['queuectld']} speaks protocol {spoken}, queuectl {VERSION} {list(PROTOCOL)}",
                "Bring both to the same version, then restart the daemon:  queuectl daemon restart",
                code="protocol",
                status=76,
            )
        self.line_limit = int(self.greeting.get("limits", {}).get("line", LINE_LIMIT))
        if token is None and self.greeting.get("authenticate"):
            raise RefusedError({"code": "unauthenticated", "message": f"{self.target.name} asks for a token"})
        if token is not None:
            self.request("hello", token=token, client=f"queuectl {VERSION}")

    def fileno(self) -> int:
        """Return the descriptor, for waiting on several things."""
        return self._socket.fileno()

    def peer_pid(self) -> int:
        """Return the process at the other end of a Unix socket, in our numbering; 0 if it has none there."""
        packed = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(packed[:4], sys.byteorder)

    def certificate(self) -> Message:
        """Return what the other end has shown of itself over TLS; empty where nothing vouched for it."""
        found: Message = self._socket.getpeercert() if hasattr(self._socket, "getpeercert") else {}
        return found or {}

    def close(self) -> None:
        """End the connection; the daemon ends what belonged to it."""
        self._socket.close()

    def send(self, op: str, **fields: Any) -> int:
        """Send a request; return its number. Fields that are None are left out."""
        self._ids += 1
        request = {"id": self._ids, "op": op, **{name: value for name, value in fields.items() if value is not None}}
        self.send_line(json.dumps(request, separators=(",", ":")).encode() + b"\n")
        return self._ids

    def send_raw(self, op: str, body: bytes) -> int:
        """Send a request whose other fields are JSON already; return its number."""
        self._ids += 1
        self.send_line(b'{"id":%d,"op":"%s",%s}\n' % (self._ids, op.encode(), body))
        return self._ids

    def send_line(self, line: bytes) -> None:
        """Send bytes. Raises `UsageError` if they are more than the daemon takes in a line, `LostError`."""
        if len(line) > self.line_limit + 1:
            raise UsageError(f"the request has {len(line):,} bytes; queuectld takes {self.line_limit:,} in a line")
        rest = memoryview(line)
        self._socket.settimeout(0)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                self._make_way()
            except OSError as error:
                raise self._lost(error.strerror) from None

    def _make_way(self) -> None:
        """Wait until more can be sent; read meanwhile, since the daemon may be waiting for just that."""
        readable, writable, _ = select.select([self._socket], [self._socket], [], ANSWER_PATIENCE)
        if readable:
            self.fill()
        elif not writable:
            raise self._silent(ANSWER_PATIENCE)

    def request(self, op: str, *, patience: float | None = ANSWER_PATIENCE, **fields: Any) -> Message:
        """Send a request and return what is answered. Raises `RefusedError`, `LostError`."""
        return self.answer(self.send(op, **fields), patience)

    def answer(self, number: int, patience: float | None = ANSWER_PATIENCE) -> Message:
        """Return the answer to a request that was sent. Raises `RefusedError`, `LostError`."""
        message = self._early.pop(number, None)
        while message is None:
            found = self.receive(patience)
            if "event" in found:
                continue
            if found.get("id") == number:
                message = found
            else:
                self._keep(found)
        return settle(message)

    def stream(self, op: str, **fields: Any) -> Generator[Message, None, Message]:
        """Send a request that streams; yield its events, return its last answer."""
        number = self.send(op, **fields)
        while True:
            message = self.receive(None)
            if message.get("id") != number:
                self._keep(message)
            elif "event" in message:
                yield message["event"]
            else:
                return settle(message)

    def _keep(self, message: Message) -> None:
        # An error without a number is about a line that nobody could read, so it is about ours.
        if message.get("id") is None:
            settle(message)
        else:
            self._early[message["id"]] = message

    def receive(self, patience: float | None) -> Message:
        """Return the next message, whosoever it is. Raises `LostError`, also after `patience` seconds of silence."""
        self._socket.settimeout(patience)
        while (message := self.take()) is None:
            self.fill(patience)
        return message

    def take(self) -> Message | None:
        """Return a message that is here already."""
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise UnreachableError(f"what answers at {self.target.name} is not queuectld", code="protocol", status=76)
        return message

    def fill(self, patience: float | None = None) -> None:
        """Wait for more bytes. Raises `LostError`."""
        try:
            data = self._socket.recv(262_144)
        except TimeoutError:
            raise self._silent(patience or 0) from None
        except BlockingIOError:
            # What came was for the encryption alone.
            return
        except OSError as error:
            raise self._lost(error.strerror) from None
        if not data:
            raise self._lost("it closed the connection")
        self._buffer += data

    def _lost(self, why: str | None) -> LostError:
        hint = "See whether it is there:  queuectl ping"
        if self.target.scheme == "tls" and not self.greeting and self.target.trust.cert is None:
            hint = "It may want a certificate of yours:  QUEUECTL_TLS_CERT=FILE QUEUECTL_TLS_KEY=FILE"
        return LostError(
            f"lost the connection to queuectld at {self.target.name} ({why or 'unknown reason'})",
            hint,
            code="connection_lost",
        )

    def _silent(self, patience: float) -> UnreachableError:
        return UnreachableError(
            f"queuectld at {self.target.name} did not answer within {patience:g} s",
            "It cannot start, or is stopped, stuck or overloaded. See its log (journalctl -u queuectld for a service),",
            "or:  queuectl daemon restart",
            code="timeout",
        )


def settle(message: Message) -> Message:
    """Return the content of an answer. Raises `RefusedError`."""
    if "error" in message:
        raise RefusedError(message["error"])
    answer: Message = message.get("ok", {})
    return answer


def connect(target: Target, token: str | None = None, patience: float | None = None) -> Client:
    """Connect and greet. Raises `CliError` that tells apart what is wrong."""
    try:
        return _connect(target, token, patience)
    except LostError:
        # It was about to end when it let us in. Where systemd listens, the next one will answer.
        return _connect(target, token, patience)


def _connect(target: Target, token: str | None, patience: float | None) -> Client:
    patience = patience or GREETING_PATIENCE
    connection = dial(target, patience)
    client = Client(connection, target)
    try:
        if token is not None:
            _keep_secret(connection, target)
        client.greet(token, patience)
    except CliError:
        client.close()
        raise
    return client


def dial(target: Target, patience: float = GREETING_PATIENCE) -> socket.socket:
    """Connect, and say nothing yet. Raises `CliError` that tells apart what is wrong."""
    if target.scheme == "ssh":
        from queuectl_cli.ssh import tunnel  # noqa: PLC0415  (starts programs)

        return tunnel(target, again=patience < GREETING_PATIENCE)
    try:
        connection = _open(target, patience)
    except OSError as error:
        from queuectl_cli.unreachable import explain  # noqa: PLC0415  (only where nobody answers)

        raise explain(error, target) from None
    if target.scheme == "tls":
        from queuectl_cli.tls import encrypt  # noqa: PLC0415  (`ssl` costs as much as all the rest)

        return encrypt(connection, target, patience)
    return connection


def _keep_secret(connection: socket.socket, target: Target) -> None:
    """Refuse to show a token where others can listen."""
    if target.scheme != "tcp":
        return
    # Not what was typed: a name may lead anywhere.
    there = str(connection.getpeername()[0]).removeprefix("::ffff:")
    if there != "::1" and not there.startswith("127."):
        raise UsageError(
            f"the token would travel to {target.name} in the clear, for everybody on the way to read",
            "If the daemon there speaks TLS:  -H tls://HOST:PORT",
            "If you may log in there:         -H ssh://HOST",
        )


def _open(target: Target, patience: float) -> socket.socket:
    if target.path is None:
        return socket.create_connection((target.host, target.port), patience)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(patience)
    until = time.monotonic() + patience
    try:
        while not _connected(connection, target.path):
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(_CROWDED)
    except OSError:
        connection.close()
        raise
    return connection


def _connected(connection: socket.socket, path: str) -> bool:
    """Connect; return False if so many are about to that there is no room. Others may be doing that on purpose."""
    try:
        if len(os.fsencode(path)) <= _PATH_LIMIT:
            connection.connect(path)
        else:
            _connect_far(connection, path)
    except BlockingIOError:
        return False
    return True


def _connect_far(connection: socket.socket, path: str) -> None:
    # The kernel takes 107 bytes; a descriptor of the directory makes any path short.
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)
