"""One worker as the daemon has it: what is known of its process, and the connection to it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import structlog

from queuectld.domain.job import Job
from queuectld.protocol.codec import LineBuffer, TooLong, encode
from queuectld.protocol.worker_messages import LINE_LIMIT, FromWorker, Hello, ToWorker, decode_from_worker
from queuectld.supervisor.link import Link
from queuectld.supervisor.plan import Vitals

log = structlog.get_logger()

_PEER: Final = struct.Struct("3i")


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process, and what the daemon knows of it. Monotonic times unless they say otherwise."""

    name: str
    pid: int
    start: int
    link: Link
    # Wall clock.
    started_at: float
    # When it came into its phase.
    since: float
    heard_at: float
    pidfd: int = -1
    connection: WorkerConnection | None = None
    job: Job | None = None
    attempt: int | None = None
    jobs_done: int = 0
    vitals: Vitals | None = None
    created: float | None = None
    # The host would not start its last command: no work before this.
    rest_until: float = 0.0
    rest: float = 0.0
    adoption: asyncio.TimerHandle | None = None
    # The leader of its command's session, and that process's start time; and whether the store knows it.
    started: tuple[int, int] | None = None
    start_noted: bool = False
    followers: dict[int, Callable[[], None]] = field(default_factory=dict)


class Watcher(Protocol):
    """Who is told."""

    def on_hello(self, worker: Worker, hello: Hello) -> None:
        """A worker connected, for the first time or again."""

    def on_message(self, worker: Worker, message: FromWorker) -> None:
        """A worker said something."""

    def on_disconnect(self, worker: Worker) -> None:
        """Its connection has been read to the end."""

    def on_death(self, worker: Worker) -> None:
        """Its process is gone; its connection may hold more to read."""


class Reception(Protocol):
    """Where connections report: it knows all workers."""

    def recognise(self, connection: WorkerConnection, hello: Hello) -> Worker | None:
        """Return who is at the other end, if it is who it says."""

    def heard(self, worker: Worker, message: FromWorker) -> None:
        """A worker said something."""

    def lost(self, worker: Worker) -> None:
        """A worker's connection is over, and has been read to its end."""


class WorkerConnection(asyncio.Protocol):
    """A connection on the worker socket; a stranger until its `hello` was believed."""

    def __init__(self, reception: Reception) -> None:
        """`reception` is the crew."""
        self._reception = reception
        self._lines = LineBuffer(LINE_LIMIT)
        self._transport: asyncio.Transport | None = None
        self.worker: Worker | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (asyncio's signature is wider than its promise)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass on what was said; who talks nonsense is cut off, which for a worker is no death."""
        for line in self._lines.feed(data):
            try:
                if isinstance(line, TooLong):
                    raise msgspec.DecodeError("a line over the limit")
                self._take(decode_from_worker(line))
            except msgspec.MsgspecError as error:
                name = self.worker.name if self.worker else None
                log.warning("Worker channel broken", event_name="worker.refused", worker_id=name, error=str(error))
                self.close()
                return

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Hello):
            self.worker = self._reception.recognise(self, message)
            if self.worker is None:
                self.close()
        elif self.worker is not None:
            self._reception.heard(self.worker, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything that it said has been read."""
        del exc
        worker = self.worker
        if worker is not None and worker.connection is self:
            self._reception.lost(worker)

    def send(self, message: ToWorker) -> None:
        """Say something. A broken connection swallows it, and is noticed by itself."""
        if self._transport is not None:
            self._transport.write(encode(message))

    def peer(self) -> tuple[int, int]:
        """Return the process and user at the other end, as the kernel vouches for them."""
        connection = self._transport.get_extra_info("socket") if self._transport else None
        if connection is None:
            return -1, -1
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid, uid, _ = _PEER.unpack(raw)
        return pid, uid

    def close(self) -> None:
        """Hang up, after what was sent."""
        if self._transport is not None:
            self._transport.close()
