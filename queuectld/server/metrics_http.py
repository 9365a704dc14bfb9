"""Answers Prometheus and health checks over HTTP: few connections, small requests, short patience."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

import structlog

from queuectld.figures.text import CONTENT_TYPE
from queuectld.server.http import MOST, Asked, Bad, Requests, answer
from queuectld.server.monitor import Monitor, Verdict

log = structlog.get_logger()

# Connections at once; Prometheus needs one.
MOST_CONNECTIONS: Final = 32
# Seconds for a request to come in whole, and for an answer to be taken off us.
_PATIENCE: Final = 5.0
# Seconds for us to answer.
_ANSWER: Final = 10.0
# Seconds for which a connection may rest: somewhat more than people leave between two scrapes.
_REST: Final = 90.0

_INDEX: Final = b"queuectld: figures for Prometheus at /metrics, health at /healthz, readiness at /readyz\n"


class Visitors:
    """All connections to one address."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.connections: set[MetricsConnection] = set()

    def __call__(self) -> MetricsConnection:
        """Return the protocol for one more."""
        return MetricsConnection(self)

    def close(self) -> None:
        """Hang up on all."""
        for connection in tuple(self.connections):
            connection.abort()


class MetricsConnection(asyncio.BufferedProtocol):
    """One connection: a request at a time, and nothing read while it is answered."""

    _transport: asyncio.Transport

    def __init__(self, visitors: Visitors) -> None:
        self._visitors = visitors
        self._requests = Requests()
        # Where the next bytes come: no more than that is ever taken in at once.
        self._buffer = bytearray(MOST)
        # The client says nothing more.
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Whether the patience for a request, or for an answer, is being measured.
        self._hurried = False
        self._answering: asyncio.Task[None] | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request, unless there are too many who do."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what a server of streams gets)
        self._transport = transport
        if len(self._visitors.connections) >= MOST_CONNECTIONS:
            transport.write(answer(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n", last=True))
            transport.close()
            return
        self._visitors.connections.add(self)
        # Pauses as soon as anything waits to be sent: the next request is for when the answer is gone.
        transport.set_write_buffer_limits(high=0)
        self._wait(_PATIENCE)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to put what comes."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take it in."""
        if self._transport.is_closing():
            return
        self._requests.feed(bytes(self._buffer[:nbytes]))
        if not self._hurried:
            # From its first byte on; what trickles in does not begin anew.
            self._hurried = True
            self._wait(_PATIENCE)
        self._go_on()

    def eof_received(self) -> bool:
        """Answer what was asked, then close."""
        self._ended = True
        self._go_on()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        del exc
        self._visitors.connections.discard(self)
        self._stop_waiting()
        if self._answering is not None:
            self._answering.cancel()

    def resume_writing(self) -> None:
        """The answer has left: rest, or go on with what came meanwhile."""
        self._rest()

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    # A request and its answer.

    def _go_on(self) -> None:
        if self._answering is not None or self._transport.is_closing():
            return
        match self._requests.next():
            case None:
                if self._ended:
                    self._transport.close()
                else:
                    self._transport.resume_reading()
            case Bad(status=status, why=why):
                self._send(answer(status, f"{why}\n".encode(), last=True), last=True)
            case Asked() as asked:
                self._transport.pause_reading()
                self._wait(_ANSWER)
                self._answering = self._loop.create_task(self._answer(asked))

    async def _answer(self, asked: Asked) -> None:
        try:
            whole = await self._answer_to(asked)
        except Exception:
            log.exception("A scrape met an error inside the daemon", event_name="request.failed")
            whole = answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log of queuectld\n", last=asked.last)
        self._answering = None
        if not self._transport.is_closing():
            self._send(whole, last=asked.last)

    async def _answer_to(self, asked: Asked) -> bytes:
        head, last = asked.method == "HEAD", asked.last
        monitor = self._visitors.monitor
        if asked.path not in {"/", "/metrics", "/healthz", "/readyz"}:
            return answer(HTTPStatus.NOT_FOUND, b"nothing is here; see /\n", last=last, head=head)
        if asked.method not in {"GET", "HEAD"}:
            refusal = b"figures can only be read: GET or HEAD\n"
            return answer(HTTPStatus.METHOD_NOT_ALLOWED, refusal, last=last, allow="GET, HEAD")
        match asked.path:
            case "/metrics":
                return answer(HTTPStatus.OK, await monitor.text(), CONTENT_TYPE, last=last, head=head)
            case "/healthz":
                return _verdict(monitor.health(), last=last, head=head)
            case "/readyz":
                return _verdict(monitor.readiness(), last=last, head=head)
            case _:
                return answer(HTTPStatus.OK, _INDEX, last=last, head=head)

    def _send(self, data: bytes, *, last: bool) -> None:
        self._wait(_PATIENCE)
        self._transport.write(data)
        if last:
            self._transport.close()
        elif not self._transport.get_write_buffer_size():
            self._rest()

    # Patience.

    def _rest(self) -> None:
        if self._transport.is_closing():
            return
        self._hurried = self._requests.begun
        self._wait(_PATIENCE if self._hurried else _REST)
        # Not at once: who sends many requests in one go takes turns with everybody else.
        self._loop.call_soon(self._go_on)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(seconds, self._transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _verdict(verdict: Verdict, *, last: bool, head: bool) -> bytes:
    status = HTTPStatus.OK if verdict.good else HTTPStatus.SERVICE_UNAVAILABLE
    # Whatever places it names, it is one line.
    reason = " ".join(verdict.reason.split())
    return answer(status, f"{reason}\n".encode(errors="replace"), last=last, head=head)
