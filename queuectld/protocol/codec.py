"""JSON lines: bytes in, lines and messages out. Owns no socket; the daemon, the workers and the tests share it."""

from __future__ import annotations

from typing import Final

import msgspec

from queuectld.domain.durations import enc_hook

_encoder: Final = msgspec.json.Encoder(enc_hook=enc_hook)


def encode(message: object) -> bytes:
    """Return one line, newline included."""
    line = bytearray()
    _encoder.encode_into(message, line)
    line += b"\n"
    return bytes(line)


class TooLong:
    """Stands for a line that was over the limit and has been skipped."""

    def __repr__(self) -> str:
        return "TOO_LONG"


TOO_LONG: Final = TooLong()


class LineBuffer:
    """Cuts a stream of bytes into lines; keeps at most one line's worth of memory, and never looks at a byte twice."""

    def __init__(self, limit: int) -> None:
        """`limit` is the longest line in bytes, without its newline."""
        self._limit = limit
        self._pending = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | TooLong]:
        """Take in `data`; return the lines that it completes, with `TOO_LONG` once for each that grew too long."""
        lines: list[bytes | TooLong] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if self._skipping:
                self._skipping = False
            elif len(self._pending) + end - start > self._limit:
                lines.append(TOO_LONG)
            else:
                lines.append(bytes(self._pending) + data[start:end])
            self._pending.clear()
            start = end + 1
        if not self._skipping:
            self._pending += data[start:]
            if len(self._pending) > self._limit:
                self._pending.clear()
                self._skipping = True
                lines.append(TOO_LONG)
        return lines

    @property
    def held(self) -> int:
        """Bytes of the line that has begun and not ended."""
        return len(self._pending)
