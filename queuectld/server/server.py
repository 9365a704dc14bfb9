"""Listens, greets, admits, and lets go: the front of the daemon.

In short::

    server = Server(desk, clients=1000)
    await server.start()   # socket, mode, group and TCP as configured
    …
    await server.stop()
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog

from queuectld.errors import BadConfigError, UnauthenticatedError
from queuectld.protocol.codec import encode
from queuectld.protocol.frames import Greeting
from queuectld.protocol.messages import AnyRequest, Hello
from queuectld.protocol.words import INFLIGHT_LIMIT, LINE_LIMIT, PROTOCOL, VERSION
from queuectld.server import handlers
from queuectld.server.desk import Desk
from queuectld.server.listen import BACKLOG, UnixListener, listen_tcp, listen_unix, read_token
from queuectld.server.plan import Plan
from queuectld.server.session import Session
from queuectld.server.who import Peer, check_right, token_peer, unix_peer

FEATURES: Final = ("events", "logs", "stage")
# Seconds that clients have at the end to read what was answered.
_FAREWELL: Final = 1.0

log = structlog.get_logger()


class Server:
    """All connections of clients. Belongs to the loop's thread."""

    def __init__(self, desk: Desk, *, clients: int, hello_timeout: float = 5.0) -> None:
        """`desk` is what requests are answered from; at most so many `clients` may be connected at once.

        Over TCP a token has to come within `hello_timeout` seconds.
        """
        self.ledger = desk.ledger
        self._desk = desk
        self._clients = clients
        self._crowded = False
        self._hello_timeout = hello_timeout
        self._sessions: set[Session] = set()
        self._unix: UnixListener | None = None
        self._servers: list[asyncio.Server] = []
        self._token = ""
        self._all_gone = asyncio.Event()

    async def start(self) -> None:
        """Listen. Raises `BadConfigError`, or `StoreLockedError` if another daemon listens on the same socket."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self._desk.config
        self._unix = listen_unix(self._desk.facts.socket, mode=config.socket_mode, group=config.socket_group)
        await self._serve(self._unix.sock, unix_peer)
        log.info("Clients can connect", event_name="server.listening", path=self._unix.path)
        if config.tcp is not None:
            await self._start_tcp(config.tcp, config.token_file)

    async def _start_tcp(self, address: str, token_file: str | None) -> None:
        if token_file is None:
            raise BadConfigError("`tcp` needs `token_file`: whoever reaches the port has to show a token", path="tcp")
        self._token = read_token(token_file)
        await self._serve(listen_tcp(address), None)
        log.info("Clients with the token can connect", event_name="server.listening", address=address)

    async def _serve(self, sock: socket.socket, identify: Callable[[Any], Peer] | None) -> None:
        session = partial(Session, self, identify=identify, hello_timeout=self._hello_timeout)
        loop = asyncio.get_running_loop()
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(session, sock=sock, backlog=BACKLOG)
        else:
            server = await loop.create_server(session, sock=sock, backlog=BACKLOG)
        self._servers.append(server)

    @property
    def tcp_address(self) -> tuple[str, int] | None:
        """Where clients with a token connect, if they can."""
        for server in self._servers:
            for sock in server.sockets:
                if sock.family != socket.AF_UNIX:
                    host, port = sock.getsockname()[:2]
                    return str(host), int(port)
        return None

    async def stop(self) -> None:
        """Let nobody in any more, send what is answered, and close all connections."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._unix is not None:
            self._unix.unlink()
            self._unix = None
        for session in tuple(self._sessions):
            session.finish()
        try:
            async with asyncio.timeout(_FAREWELL):
                while self._sessions:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            for session in tuple(self._sessions):
                session.abort()

    # What sessions ask.

    def greeting(self, session: Session) -> bytes:
        """Return the first line for a connection."""
        return encode(
            Greeting(
                queuectld=VERSION,
                protocol=PROTOCOL,
                features=FEATURES,
                limits={"line": LINE_LIMIT, "inflight": INFLIGHT_LIMIT},
                store=self._desk.facts.store,
                authenticate=session.authenticates,
            )
        )

    def plan(self, session: Session, request: AnyRequest) -> Plan:
        """Decide what a request needs. Raises `QueueCTLError`."""
        if session.authenticates and session.peer.uid is None:
            self._admit(session, request)
        check_right(session.peer, request, self._desk.facts.uid)
        return handlers.plan(self._desk, session.peer, session.staging, request)

    def _admit(self, session: Session, request: AnyRequest) -> None:
        if not isinstance(request, Hello):
            raise UnauthenticatedError('the first request over TCP is {"op": "hello", "token": …}')
        try:
            session.authenticated(token_peer(request.token, self._token, self._desk.facts.uid))
        except UnauthenticatedError:
            log.warning("A client showed a wrong token", event_name="client.refused")
            raise

    def opened(self, session: Session) -> bool:
        """Count a client; False: there are too many."""
        if len(self._sessions) >= self._clients:
            if not self._crowded:
                log.warning("Too many clients", event_name="client.refused", count=self._clients)
            self._crowded = True
            return False
        self._crowded = False
        self._sessions.add(session)
        self._desk.connections = len(self._sessions)
        return True

    def closed(self, session: Session) -> None:
        """Count it no more."""
        self._sessions.discard(session)
        self._desk.connections = len(self._sessions)
        self._all_gone.set()
