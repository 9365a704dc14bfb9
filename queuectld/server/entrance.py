"""Lets clients in over TCP: accepts, encrypts where that is configured, and ends what does not get on in time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import Final, Protocol

from queuectld.errors import TlsRequiredError
from queuectld.protocol.codec import encode
from queuectld.protocol.frames import Failed
from queuectld.protocol.reading import error_body
from queuectld.server.lobby import Lobby
from queuectld.server.session import Session

# The first byte of every handshake of TLS.
_HANDSHAKE: Final = b"\x16"
# Without a descriptor for the next client, this many seconds pass before we look again.
_REST: Final = 1.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Seconds for the last words of a connection that is encrypted.
_FAREWELL: Final = 5.0


class Doorkeeper(Protocol):
    """What an entrance needs to know, and whom it tells."""

    @property
    def context(self) -> ssl.SSLContext | None:
        """What the next connection is encrypted with; None: it is not."""

    def session(self) -> Session:
        """Return a session for the next connection."""

    def refused(self, why: str, host: str) -> None:
        """Somebody was turned away."""


class _Arrival:
    """A connection that has come in; once it has a session, the loop holds its descriptor, and only it may close it."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self.connection = connection
        self.host = host
        self.session: Session | None = None

    def end(self) -> None:
        """Close it, unless it is known who is there."""
        if self.session is None:
            self.connection.close()
        elif not self.session.settled.is_set():
            self.session.abort()
            # There is nothing to abort before the end of a handshake.
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


class Entrance:
    """A socket that listens, and the connections through it that have not been authenticated yet."""

    def __init__(self, sock: socket.socket, keeper: Doorkeeper, *, most: int, patience: float) -> None:
        """At most so many wait here at once, each for `patience` seconds from its connection on."""
        self.sock = sock
        self._keeper = keeper
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._lobby: Lobby[asyncio.Task[None]] = Lobby(most)
        self._rest: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Let clients in from now on."""
        self._rest = None
        self._loop.add_reader(self.sock.fileno(), self._accept)

    def close(self) -> None:
        """Let nobody in any more, and end what has not become a session yet."""
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self.sock.fileno())
        self.sock.close()
        for task in self._lobby:
            task.cancel()

    def _accept(self) -> None:
        # One a turn: those who are further on get their turn, too, however many come.
        try:
            connection, address = self.sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._keeper.refused(f"no more can be opened: {error.strerror}", "")
            self._loop.remove_reader(self.sock.fileno())
            self._rest = self._loop.call_later(_REST, self.open)
            return
        connection.setblocking(False)
        arrival = _Arrival(connection, str(address[0]))
        task = self._loop.create_task(self._admit(arrival))
        # Not at the end of the task itself: cancelled early, it never begins.
        task.add_done_callback(lambda task: self._over(task, arrival))
        evicted = self._lobby.enter(task)
        if evicted is not None:
            evicted.cancel()

    def _over(self, task: asyncio.Task[None], arrival: _Arrival) -> None:
        self._lobby.leave(task)
        arrival.end()

    async def _admit(self, arrival: _Arrival) -> None:
        connection, host = arrival.connection, arrival.host
        try:
            async with asyncio.timeout(self._patience):
                context = self._keeper.context
                if context is not None and (first := await _first_byte(connection)) != _HANDSHAKE:
                    if first:
                        self._keeper.refused("it does not speak TLS", host)
                        _tell(connection)
                    return
                arrival.session = session = self._keeper.session()
                await self._connect(connection, session, context)
                await session.settled.wait()
        except TimeoutError:
            self._keeper.refused("it did not say in time who it is", host)
            if arrival.session is None:
                _tell(connection)
        except OSError as error:
            self._keeper.refused(f"it could not be encrypted ({_reason(error)})", host)

    async def _connect(self, connection: socket.socket, session: Session, context: ssl.SSLContext | None) -> None:
        if context is None:
            await self._loop.connect_accepted_socket(lambda: session, connection)
            return
        await self._loop.connect_accepted_socket(
            lambda: session,
            connection,
            ssl=context,
            # The timeout that counts began with the connection; this one is the loop's own, for what we let go of.
            ssl_handshake_timeout=self._patience,
            ssl_shutdown_timeout=_FAREWELL,
        )


async def _first_byte(connection: socket.socket) -> bytes:
    """Wait for the first byte, and leave it there; empty: the client has gone."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection.fileno())
    return connection.recv(1, socket.MSG_PEEK)


def _tell(connection: socket.socket) -> None:
    """Say to a client that speaks first, or waits for us to, what is wrong; whatever it is, it reads no TLS."""
    with contextlib.suppress(OSError):
        connection.send(encode(Failed(id=None, error=error_body(TlsRequiredError()))))
        connection.shutdown(socket.SHUT_WR)
        # What is not read when a socket closes takes what it was sent along.
        connection.recv(65536)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error) or "it went away"
