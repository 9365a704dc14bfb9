"""The daemon's end of a worker's connection: bytes in, messages to the reception."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

import msgspec
import structlog

from queuectld.protocol.codec import LineBuffer, TooLong, encode
from queuectld.protocol.worker_messages import REPORT_LIMIT, FromWorker, Hello, ToWorker, decode_from_worker
from queuectld.supervisor.machine import Reception
from queuectld.supervisor.worker import Worker

log = structlog.get_logger()

_PEER: Final = struct.Struct("3i")


class WorkerConnection(asyncio.Protocol):
    """A connection on the worker socket; a stranger until its `hello` was believed."""

    def __init__(self, reception: Reception) -> None:
        """`reception` is the crew."""
        self._reception = reception
        self._lines = LineBuffer(REPORT_LIMIT)
        self._transport: asyncio.Transport | None = None
        self._worker: Worker | None = None
        self._abandoned = False

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
                name = self._worker.name if self._worker else None
                log.warning("Worker channel broken", event_name="worker.refused", worker_id=name, error=str(error))
                self._hang_up()
                return

    def _take(self, message: FromWorker) -> None:
        if self._abandoned:
            return
        if isinstance(message, Hello):
            self._worker = self._reception.recognise(self, message)
            if self._worker is None:
                self._hang_up()
        elif self._worker is not None:
            self._reception.heard(self._worker, message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything that it said has been read."""
        del exc
        worker = self._worker
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

    def abandon(self) -> None:
        """Hang up, after what was sent, and report nothing more."""
        self._abandoned = True
        self._worker = None
        self._hang_up()

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()
