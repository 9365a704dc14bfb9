"""The worker's connection to the daemon: bytes out as far as they go, messages in until the very end."""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from queuectld.protocol import codec
from queuectld.protocol.worker_messages import (
    LINE_LIMIT,
    WORKER_SOCKET,
    Beat,
    FromWorker,
    OutputGrown,
    ToWorker,
    decode_to_worker,
)
from queuectld.worker import procfs

# More would make the allocator map and unmap memory each time.
_BLOCK: Final = 1 << 16


class DaemonLink:
    """One connection. Never blocks."""

    def __init__(self, directory: str) -> None:
        """Connect to the daemon's socket in the state directory. Raises `OSError`."""
        self._socket = procfs.connect_unix(directory, WORKER_SOCKET)
        self._lines = codec.LineBuffer(LINE_LIMIT)
        self._outgoing = bytearray()

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether something waits for the daemon to read."""
        return bool(self._outgoing)

    def send(self, message: FromWorker) -> None:
        """Send a message now, or as soon as the daemon reads."""
        # To a daemon that does not read, how far the output has come is no news, and that we live neither.
        if not (self._outgoing and isinstance(message, Beat | OutputGrown)):
            self._outgoing += codec.encode(message)
            self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        try:
            while self._outgoing:
                del self._outgoing[: self._socket.send(self._outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            # The daemon is gone. What it said before is still to be read, so `receive` tells.
            self._outgoing.clear()

    def receive(self) -> tuple[list[ToWorker], bool]:
        """Return what has come in, and whether the connection still stands."""
        messages: list[ToWorker] = []
        while True:
            try:
                data = self._socket.recv(_BLOCK)
            except BlockingIOError:
                return messages, True
            except OSError:
                return messages, False
            if not data:
                return messages, False
            messages += self._decode(data)
            if len(data) < _BLOCK:
                return messages, True

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _decode(self, data: bytes) -> list[ToWorker]:
        messages: list[ToWorker] = []
        for line in self._lines.feed(data):
            try:
                if isinstance(line, bytes):
                    messages.append(decode_to_worker(line))
            except msgspec.MsgspecError as error:
                # A newer daemon may say more than we know of; its contents may be secrets.
                print(f"a message was not understood: {error}", file=sys.stderr)  # noqa: T201 - workers.log
        return messages
