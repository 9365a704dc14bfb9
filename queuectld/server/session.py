"""One connection: bytes in, requests to their conversation, bytes out; never more in memory than the limits say."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import structlog

from queuectld.errors import LineTooLongError, QueueCTLError, TooManyClientsError, TooMuchHeldError
from queuectld.protocol.codec import LineBuffer, TooLong, encode
from queuectld.protocol.frames import Failed
from queuectld.protocol.messages import AnyRequest, operation
from queuectld.protocol.reading import Unreadable, decode_request, error_body
from queuectld.protocol.words import LINE_LIMIT
from queuectld.server.answers import Question
from queuectld.server.audit import Audit
from queuectld.server.conversation import Conversation
from queuectld.server.desk import Ledger
from queuectld.server.plan import Now, Plan, Refuse
from queuectld.server.who import STRANGER, Peer
from queuectld.service.staging import Staging

# Bytes that wait for a client that does not read, before everything for it stops.
HIGH_WATER: Final = 256 * 1024
# Bytes that a line costs besides its own while it waits.
_LINE: Final = 50

# Of a line that is no request.
NO_OP: Final = "(none)"

log = structlog.get_logger()


class Host(Protocol):
    """What a session needs of the server that it belongs to."""

    ledger: Ledger
    # Told of each answer: to which operation, and ``ok`` or the code of the error.
    count: Callable[[str, str], None]

    def greeting(self, session: Session) -> bytes:
        """Return the first line for a connection."""

    def plan(self, session: Session, request: AnyRequest) -> Plan:
        """Decide what a request needs. Raises `QueueCTLError`."""

    def opened(self, session: Session) -> bool:
        """Count a client; False: there are too many."""

    def closed(self, session: Session) -> None:
        """Count it no more."""

    def may_stage(self, session: Session, more: int) -> bool:
        """Whether all connections together may have so many bytes more staged."""

    def begin(self, session: Session, size: int, again: Callable[[], None]) -> Callable[[], None] | None:
        """Return what to call when a request with so long a line is over; None: not now, then `again` is called."""

    def weigh(self, session: Session) -> None:
        """Take down what is kept for it now; whoever has too much goes."""


class _Request(NamedTuple):
    """A request, how many bytes its line took up, and how many of what was staged."""

    question: Question
    plan: Plan
    size: int
    staged: int


class Session(asyncio.Protocol):
    """A client's connection. `peer` is a stranger until something says who it is."""

    _transport: asyncio.Transport

    def __init__(self, host: Host, *, identify: Callable[[Any], Peer] | None) -> None:
        """`identify` tells from the socket who is there; without it, the client has to."""
        self.peer = STRANGER
        self.authenticates = identify is None
        self.staging = Staging(lambda more: host.may_stage(self, more))
        self.room = asyncio.Event()
        self.room.set()
        # Set when it is known who is there, or nobody is any more.
        self.settled = asyncio.Event()
        self._connected = False
        self._host = host
        self._identify = identify
        self._lines = LineBuffer(LINE_LIMIT)
        self._backlog: deque[bytes | TooLong] = deque()
        self._backlog_bytes = 0
        # What the host has taken down, if it is of any weight.
        self._weighed = 0, 0
        # The request that is next, while it may not begin.
        self._held: _Request | None = None
        # All requests together take up as much as they may: the host will say when that is over.
        self._crowded = False
        self._conversation = Conversation(host.ledger, self, host.count)
        self._audit = Audit(self)
        # The client says nothing more; and we listen to nothing more.
        self._ended = False
        self._winding_up = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what a server of streams gets)
        self._transport = transport
        self._connected = True
        transport.set_write_buffer_limits(high=HIGH_WATER)
        if self._identify is not None:
            self.peer = self._identify(transport.get_extra_info("socket"))
        else:
            host, port = transport.get_extra_info("peername")[:2]
            self.peer = STRANGER._replace(origin=f"{host}:{port}")
        if not self._host.opened(self):
            transport.write(encode(Failed(id=None, error=error_body(TooManyClientsError()))))
            transport.close()
            return
        transport.write(self._host.greeting(self))

    def data_received(self, data: bytes) -> None:
        """Take in what came, and begin what may begin."""
        if self._winding_up:
            return
        for line in self._lines.feed(data):
            self._backlog.append(line)
            self._backlog_bytes += _cost(line)
        self.moved()

    def eof_received(self) -> bool:
        """Answer what was asked, end streams that would only wait, then close; encrypted, it closes at once."""
        self._ended = True
        self._conversation.finish()
        self.moved()
        return self._transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything but what was stored."""
        del exc
        self._ended = True
        self._forget_backlog()
        self._forget_held()
        self.staging.clear()
        self.settled.set()
        self._audit.close()
        self.room.set()
        self._conversation.lose()
        self._host.closed(self)

    def pause_writing(self) -> None:
        """Stop producing and taking in: the client does not read."""
        self.room.clear()
        self._weigh()

    def resume_writing(self) -> None:
        """Go on."""
        self.room.set()
        self.moved()

    # What the server and the conversation call.

    def authenticated(self, peer: Peer) -> None:
        """Know from now on who asks."""
        self.peer = peer
        self.settled.set()

    def send(self, data: bytes) -> None:
        """Send these lines."""
        if not self._transport.is_closing():
            self._transport.write(data)

    @property
    def held(self) -> int:
        """Bytes of what came and could not be begun, and of answers that the client does not read."""
        unread = 0 if self.room.is_set() else self._transport.get_write_buffer_size()
        held = 0 if self._held is None else self._held.size
        return self._lines.held + self._backlog_bytes + held + self._conversation.held + unread

    def expel(self) -> None:
        """End the connection because of what it holds; say so if the client listens."""
        self._lines = LineBuffer(LINE_LIMIT)
        self._forget_held()
        if not self._transport.get_write_buffer_size():
            self._transport.write(encode(Failed(id=None, error=error_body(TooMuchHeldError()))))
        self.close()
        # Or it would stay for as long as nobody reads.
        if self._transport.get_write_buffer_size():
            self._transport.abort()

    def close(self) -> None:
        """End the connection, once what was sent has left."""
        self._forget_backlog()
        # Of an encrypted one asyncio lets go when it is told twice.
        if not self._transport.is_closing():
            self._transport.close()

    def wind_up(self) -> None:
        """Begin nothing more, answer what is under way, end streams that would only wait, then close.

        What takes as long as a command does is not waited for.
        """
        self._winding_up = True
        self._forget_backlog()
        self._forget_held()
        self._conversation.finish()
        self.moved()

    def abort(self) -> None:
        """End at once, if it has begun."""
        if self._connected:
            self._transport.abort()

    def moved(self) -> None:
        """Begin what may begin, and read on or not."""
        while not (self._transport.is_closing() or self._crowded) and (request := self._next()) is not None:
            if not self._begin(request):
                self._held = request
                break
        if not self._transport.is_closing():
            self._regulate()
            self._weigh()

    def _begin(self, request: _Request) -> bool:
        if not self._conversation.may_start(request.plan):
            return False
        over = self._host.begin(self, request.size, self._less_crowded)
        if over is None:
            self._crowded = True
            return False
        if request.staged:
            over = partial(self._used, request.staged, over)
        self._conversation.start(request.question, request.plan, request.size, over)
        return True

    def _used(self, staged: int, over: Callable[[], None]) -> None:
        self.staging.finished(staged)
        self._weighed = self.held, self.staging.held
        self._host.weigh(self)
        over()

    def _less_crowded(self) -> None:
        self._crowded = False
        self.moved()

    def _next(self) -> _Request | None:
        held, self._held = self._held, None
        if held is not None:
            return held
        while self._backlog and not (self._conversation.full or self._conversation.changing):
            line = self._backlog.popleft()
            self._backlog_bytes -= _cost(line)
            # Empty lines are what people at a terminal send.
            if isinstance(line, TooLong) or line.strip():
                in_use = self.staging.in_use
                return _Request(*self._take(line), _cost(line), self.staging.in_use - in_use)
        return None

    def _take(self, line: bytes | TooLong) -> tuple[Question, Plan]:
        if isinstance(line, TooLong):
            return Question(None, NO_OP), Refuse(
                LineTooLongError(f"a line may have {LINE_LIMIT} bytes; this one was skipped")
            )
        try:
            request = decode_request(line)
        except Unreadable as unreadable:
            return Question(unreadable.request_id, NO_OP), Refuse(unreadable.error, close=self.peer.uid is None)
        told, op = self._audit.of(request), operation(request)
        plan = self._plan(request)
        match plan:
            # Done, whether there will be time for the answer or not.
            case Now():
                told(plan.reply)
            case Refuse():
                told(plan.error)
            case _:
                return Question(request.id, op, told), plan
        return Question(request.id, op), plan

    def _plan(self, request: AnyRequest) -> Plan:
        try:
            return self._host.plan(self, request)
        except QueueCTLError as error:
            return Refuse(error, close=self.peer.uid is None or isinstance(error, TooManyClientsError))
        except Exception:
            log.exception("A request met an error inside the daemon", event_name="request.failed")
            return Refuse(QueueCTLError())

    def _regulate(self) -> None:
        if self._winding_up:
            self._transport.pause_reading()
            if self._conversation.settled:
                self._transport.close()
        elif self._backlog or self._held is not None or self._conversation.full:
            self._transport.pause_reading()
        elif not self._ended:
            self._transport.resume_reading()
        elif not self._conversation.open:
            self._transport.close()

    def _weigh(self) -> None:
        # Between two requests of a client that gets on there is nothing.
        weight = self.held, self.staging.held
        if weight != self._weighed:
            self._weighed = weight
            self._host.weigh(self)

    def _forget_held(self) -> None:
        if self._held is not None:
            self.staging.finished(self._held.staged)
            self._held = None

    def _forget_backlog(self) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0


def _cost(line: bytes | TooLong) -> int:
    return _LINE + (0 if isinstance(line, TooLong) else len(line))
