"""Listens, greets, admits, and lets go: the front of the daemon.

In short::

    server = Server(desk, clients=1000)
    await server.start()   # socket, mode, group and TCP as configured
    …
    await server.stop()
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import structlog

from queuectld.config import Config
from queuectld.errors import BadConfigError, TooManyClientsError, UnauthenticatedError
from queuectld.host.handover import Listener
from queuectld.host.passed import NONE_PASSED, Found, PassedSockets
from queuectld.protocol.codec import encode
from queuectld.protocol.frames import Greeting
from queuectld.protocol.messages import AnyRequest, Hello
from queuectld.protocol.words import INFLIGHT_LIMIT, LINE_LIMIT, PROTOCOL, VERSION
from queuectld.server import handlers
from queuectld.server.budget import STAGED, TRAFFIC, Budget
from queuectld.server.crowd import Crowd
from queuectld.server.desk import Desk
from queuectld.server.door import Door, Refusals
from queuectld.server.entrance import Entrance
from queuectld.server.listen import (
    BACKLOG,
    UnixListener,
    file_gid,
    go_on_listening,
    listen_tcp,
    listen_unix,
    unheeded,
)
from queuectld.server.plan import Plan
from queuectld.server.rights import sight_of
from queuectld.server.session import Session
from queuectld.server.under_way import UnderWay
from queuectld.server.who import Access, Peer, Role, gid_of, how_to_join, unix_peer

FEATURES: Final = ("events", "logs", "stage")
# Seconds that clients have at the end to read what was answered.
_FAREWELL: Final = 0.5
# Connections over TCP that have not shown a token yet.
_STRANGERS: Final = 128

log = structlog.get_logger()


class Inherited(NamedTuple):
    """Sockets on which this process listens already."""

    unix: Listener | None = None
    tcp: Listener | None = None


NOTHING: Final = Inherited()


class Server:
    """All connections of clients. Belongs to the loop's thread."""

    def __init__(self, desk: Desk, *, clients: int, hello_timeout: float = 5.0) -> None:
        """`desk` is what requests are answered from; at most so many `clients` may be connected at once.

        Over TCP a token has to come within `hello_timeout` seconds.
        """
        self.ledger = desk.ledger
        self.count: Callable[[str, str], None] = desk.counts.answered
        self._desk = desk
        self._refusals = Refusals()
        self._traffic: Budget[Session] = Budget(TRAFFIC)
        self._staged: Budget[Session] = Budget(STAGED)
        self._under_way = UnderWay()
        self._hello_timeout = hello_timeout
        self._strangers = min(_STRANGERS, max(1, clients // 4))
        self._sessions: Crowd[Session] = Crowd(clients)
        self._unix: UnixListener | None = None
        self._servers: list[asyncio.Server] = []
        self._tcp: tuple[socket.socket, str] | None = None
        self._door: Door | None = None
        self._entrance: Entrance | None = None
        self._passed = NONE_PASSED
        self._winding_up = False
        self._socket_gid: int | None = None
        self._access = Access(desk.facts.uid)
        self._advice = ""
        self._all_gone = asyncio.Event()

    async def start(self, inherited: Inherited = NOTHING, passed: PassedSockets = NONE_PASSED) -> None:
        """Listen, on sockets of the service manager or of an earlier program where they are the right ones.

        Raises `BadConfigError`, or `StoreLockedError` if another daemon listens on the same socket.
        """
        self._passed = passed
        try:
            await self._start_unix(inherited.unix)
            self._start_tcp(inherited.tcp)
        except BaseException:
            await self.stop()
            raise

    async def _start_unix(self, inherited: Listener | None) -> None:
        path, mode, group = self._desk.facts.socket, self._mode(self._desk.config), self._desk.config.socket_group
        if self._passed.control is not None:
            sock, self._socket_gid = _share(self._passed.control), file_gid(path)
            if keys := unheeded(path, self._desk.config):
                log.warning(
                    "What the configuration says of the socket has no effect: the service manager made it",
                    event_name="config.hidden",
                    path=path,
                    keys=list(keys),
                )
        else:
            kept = None if inherited is None else go_on_listening(inherited, path, mode=mode, group=group)
            self._unix = kept or listen_unix(path, mode=mode, group=group)
            sock, self._socket_gid = self._unix.sock, self._unix.gid
        self._know_groups(self._desk.config)
        self._desk.holder.listen(self._know_groups)
        session = partial(Session, self, identify=self.identify)
        # Not `create_unix_server`: since Python 3.13 that removes the file of the socket at its end.
        self._servers.append(await asyncio.get_running_loop().create_server(session, sock=sock, backlog=BACKLOG))
        log.info("Clients can connect", event_name="server.listening", path=path)

    def identify(self, connection: Any) -> Peer:
        """Return who has connected to the Unix socket."""
        return unix_peer(connection, self._access)

    def _mode(self, config: Config) -> int:
        if config.socket_mode is not None:
            return config.socket_mode
        # A group that cannot connect would be of no use. On a daemon of a user its members would be let run commands
        # as that user: there it takes saying so.
        return 0o660 if config.socket_group is not None and self._desk.facts.uid == 0 else 0o600

    def _know_groups(self, config: Config) -> None:
        """Look up who is what from now on."""
        self._access = Access(
            daemon_uid=self._desk.facts.uid,
            socket_gid=self._socket_gid,
            admin_gid=gid_of(config.admin_group),
            observer_gid=gid_of(config.observer_group),
        )
        self._advice = how_to_join(self._access)

    def _start_tcp(self, inherited: Listener | None) -> None:
        address, passed = self._desk.config.tcp, self._passed.tcp
        kept = None
        if inherited is not None:
            kept = socket.socket(fileno=inherited.descriptor)
            kept.setblocking(False)
            if inherited.where != address or passed is not None:
                kept.close()
                kept = None
        if passed is not None:
            self._let_in(_share(passed), passed.where)
        elif address is not None:
            sock = kept or listen_tcp(address)
            self._tcp = sock, address
            self._let_in(sock, address)

    def _let_in(self, sock: socket.socket, address: str) -> None:
        """Serve a socket that listens on TCP, whoever has opened it. Raises `BadConfigError`; then it is closed."""
        session = partial(Session, self, identify=None)
        try:
            door = Door(sock, self._desk.config, daemon_uid=self._desk.facts.uid, session=session)
        except BadConfigError:
            sock.close()
            raise
        self._door, self._entrance = door, Entrance(sock, door, most=self._strangers, patience=self._hello_timeout)
        self._entrance.open()
        self._desk.reloader.ask(door.prepare)
        log.info("Clients with a token can connect", event_name="server.listening", address=address)

    def rehearse(self, config: Config, path: str) -> None:
        """Make sure that the next server can listen where `config` says and at `path`, as far as we do not yet.

        Raises `BadConfigError`, or `StoreLockedError` if another daemon listens there.
        """
        if self._passed.control is None:
            self._rehearse_unix(config, path)
        if self._passed.tcp is None and config.tcp is not None and (self._tcp is None or config.tcp != self._tcp[1]):
            listen_tcp(config.tcp).close()

    def _rehearse_unix(self, config: Config, path: str) -> None:
        # Beside ours, where that is the place: mode and group may be others now.
        beside = f"{path}.rehearsal" if path == self._desk.facts.socket else path
        rehearsed = listen_unix(beside, mode=self._mode(config), group=config.socket_group)
        rehearsed.unlink()
        rehearsed.sock.close()

    def hand_over(self) -> Inherited:
        """Wind up, and return the sockets: who connects from now on waits for whoever listens on them next."""
        unix, tcp = self._unix, self._tcp
        inherited = Inherited(
            None if unix is None else Listener(descriptor=_keep(unix.sock), where=unix.path, inode=unix.inode),
            None if tcp is None else Listener(descriptor=_keep(tcp[0]), where=tcp[1]),
        )
        self._unix = self._tcp = None
        self._wind_up()
        return inherited

    def _wind_up(self) -> None:
        """Let nobody in any more, begin nothing more, and close each connection when it is answered."""
        self._winding_up = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._entrance is not None:
            self._entrance.close()
            self._entrance = None
        if self._tcp is not None:
            self._tcp[0].close()
            self._tcp = None
        if self._unix is not None:
            self._unix.unlink()
            self._unix = None
        for session in self._sessions:
            session.wind_up()

    async def stop(self) -> None:
        """Let nobody in any more, answer what is under way, and close all connections."""
        self._wind_up()
        try:
            async with asyncio.timeout(_FAREWELL):
                while self._sessions:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        except TimeoutError:
            for session in self._sessions:
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
        sight = sight_of(session.peer, request, self._advice)
        return handlers.plan(self._desk, session.peer, sight, session.staging, request)

    def _admit(self, session: Session, request: AnyRequest) -> None:
        if not isinstance(request, Hello) or self._door is None:
            raise UnauthenticatedError('the first request over TCP is {"op": "hello", "token": …}')
        self._door.admit(session, request.token)
        uid = session.peer.uid
        if uid is not None and not self._sessions.name(session, uid, admin=session.peer.role is Role.ADMIN):
            raise TooManyClientsError

    def opened(self, session: Session) -> bool:
        """Count a client; False: there are too many, or too many of the same user."""
        peer = session.peer
        if not self._sessions.enter(session, peer.uid, admin=peer.role is Role.ADMIN):
            if count := self._refusals.told(asyncio.get_running_loop().time()):
                user = peer.user or None
                log.warning("Too many clients", event_name="client.refused", user=user, count=count)
            return False
        self._desk.connections = len(self._sessions)
        if self._winding_up:
            # It was let in a moment before.
            asyncio.get_running_loop().call_soon(session.wind_up)
        return True

    def closed(self, session: Session) -> None:
        """Count it no more."""
        self._sessions.leave(session)
        if self._door is not None:
            self._door.left(session)
        self._traffic.forget(session)
        self._staged.note(session.peer.uid, session, session.staging.held)
        self._desk.connections = len(self._sessions)
        self._all_gone.set()

    def may_stage(self, session: Session, more: int) -> bool:
        """Whether all connections together may have so many bytes more staged."""
        # More of the same session may have come since it was weighed.
        self._staged.note(session.peer.uid, session, session.staging.held)
        return self._staged.fits(session.peer.uid, more)

    def begin(self, session: Session, size: int, again: Callable[[], None]) -> Callable[[], None] | None:
        """Return what to call when a request with so long a line is over; None: not now, then `again` is called."""
        return self._under_way.begin(session.peer.uid, size, again)

    def weigh(self, session: Session) -> None:
        """Take down what is kept for a connection now; whoever has too much goes."""
        user = session.peer.uid
        self._staged.note(user, session, session.staging.held)
        if session not in self._sessions:
            return
        self._traffic.note(user, session, session.held)
        while (greedy := self._traffic.greediest(user)) is not None:
            log.warning("A client has too much kept for it", event_name="client.refused", user=greedy.peer.user)
            self._traffic.forget(greedy)
            greedy.expel()


def _share(passed: Found) -> socket.socket:
    """Return a socket to serve that was passed to us; the descriptor itself is for the program that comes after us."""
    sock = socket.socket(fileno=os.dup(passed.descriptor))
    sock.setblocking(False)
    return sock


def _keep(sock: socket.socket) -> int:
    # The loop closes its own descriptor when it stops to listen; by this one the socket lives on, backlog and all.
    return os.dup(sock.fileno())
