"""Keeping what a command writes, in the form that `queuectld.protocol.output` lays down.

Memory stays flat however much is written. Nothing here may harm the command: a disk that is full, or a file that the
command itself has deleted, costs output and is counted, and no more.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from queuectld.protocol.output import GAP, RECORD_SIZE, STDERR, Chunk, head_size, pack, ring_size, unpack

# One read of a pipe, which holds so much unless it was asked to hold more.
_BLOCK: Final = 65536
# An index notes the time at least this often, in seconds, even if the stream stays the same.
_TIME_STEP: Final = 1.0
# An index that has grown larger than the output may be tells stretches shorter than this apart no more.
_CROWDED_STEP: Final = 4096
# What is kept of stderr for the last line, in bytes, and what is shown of that line, in characters.
_TAIL: Final = 2048
_MESSAGE: Final = 300
_CONTROL: Final = dict.fromkeys((*range(32), *range(127, 160), 0x2028, 0x2029), " ")


class Output:
    """The output of one attempt. The files are made at the first byte."""

    def __init__(self, base: str, limit: int) -> None:
        self._base = base
        self._limit = limit
        self._head = head_size(limit)
        self._ring_size = ring_size(limit)
        self._log = -1
        self._index = -1
        self._ring = -1
        self._index_size = 0
        # As long as the index was when the head was full.
        self._front_index_size = 0
        self._last = Chunk(0, float("-inf"), 0)
        self._tail = b""
        # Bytes that the command wrote; how many of them came before the disk refused to take more.
        self.size = 0
        self._stored: int | None = None
        self._missing = 0
        self._trouble: str | None = None

    def pump(self, descriptor: int, stream: int) -> bool | None:
        """Take one block from a pipe. True: there may be more. False: it is empty. None: nobody can write any more."""
        try:
            data = os.read(descriptor, _BLOCK)
        except BlockingIOError:
            return False
        if not data:
            return None
        self.take(data, stream, time.time())
        return len(data) == _BLOCK

    def take(self, data: bytes, stream: int, at: float) -> None:
        """Keep what came from a stream at that wall-clock time."""
        if stream == STDERR:
            self._tail = data[-_TAIL:] if len(data) >= _TAIL else (self._tail + data)[-_TAIL:]
        if self._trouble is None:
            try:
                self._note(stream, at, len(data))
                self._store(data)
            except OSError as error:
                self._give_up(error.strerror or str(error), at)
        self.size += len(data)

    def finish(self, at: float) -> None:
        """Bring the files into their final form and close them."""
        try:
            if self._trouble is None and self.size > self._head:
                self._unroll(at)
        except OSError as error:
            # The ring stays, and so does the index: what is in them can still be read.
            self._trouble = error.strerror or str(error)
            self._missing = max(self.size - self._limit, 0)
        for descriptor in (self._log, self._index, self._ring):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._log = self._index = self._ring = -1

    @property
    def missing(self) -> int:
        """Bytes that were not kept; known after `finish`."""
        return self._missing if self._stored is None else self.size - self._stored

    @property
    def index_size(self) -> int:
        """Bytes of the index, or what it had before it lost some at the end."""
        return self._index_size

    @property
    def message(self) -> str | None:
        """One line for people: trouble with keeping the output, and the last line on stderr."""
        parts = [f"output is incomplete: {self._trouble}" if self._trouble else None, self.last_line]
        return "; ".join(part for part in parts if part) or None

    @property
    def last_line(self) -> str | None:
        """The last line on stderr that is not blank, without control characters; cut if it is long."""
        for line in reversed(self._tail.splitlines()):
            text = line.decode(errors="replace").translate(_CONTROL).strip()
            if text:
                return text if len(text) <= _MESSAGE else f"{text[: _MESSAGE - 1]}…"
        return None

    def _note(self, stream: int, at: float, length: int) -> None:
        last = self._last
        # A reader knows by the newest record how far the ring has come: it must not go round unnoticed.
        near = self.size < self._head or self.size - last.offset < self._ring_size // 4
        if stream == last.stream and at - last.at < _TIME_STEP and near:
            return
        if self._index_size > self._limit + _BLOCK and self.size + length - last.offset < _CROWDED_STEP:
            return
        if self._index < 0:
            self._log = self._create(".log")
            self._index = self._create(".idx")
        self._last = Chunk(self.size, at, stream)
        os.pwrite(self._index, pack(self._last), self._index_size)
        self._index_size += RECORD_SIZE
        if self.size < self._head:
            self._front_index_size = self._index_size

    def _store(self, data: bytes) -> None:
        view = memoryview(data)
        offset = self.size
        if offset < self._head:
            front = view[: self._head - offset]
            _write(self._log, front, offset)
            view = view[len(front) :]
            offset += len(front)
        if view and self._ring_size:
            self._circulate(view, offset)

    def _circulate(self, view: memoryview, offset: int) -> None:
        if self._ring < 0:
            self._ring = self._create(".ring")
        # Of more than the ring can hold only the end stays in it.
        surplus = max(len(view) - self._ring_size, 0)
        view, offset = view[surplus:], offset + surplus
        place = (offset - self._head) % self._ring_size
        first = view[: self._ring_size - place]
        _write(self._ring, first, place)
        if len(first) < len(view):
            _write(self._ring, view[len(first) :], 0)

    def _give_up(self, trouble: str, at: float) -> None:
        # What is in the log and the ring up to here stays; whatever comes now is missing.
        self._trouble = trouble
        self._stored = min(self.size, self._head)
        with contextlib.suppress(OSError):
            if self._log >= 0:
                os.truncate(self._log, self._stored)
            if self._ring >= 0:
                os.unlink(f"{self._base}.ring")
            if self._index >= 0:
                os.truncate(self._index, self._front_index_size)
                os.pwrite(self._index, pack(Chunk(self._stored, at, GAP)), self._front_index_size)

    def _unroll(self, at: float) -> None:
        # The ring goes behind the head, in order, and the index loses what it says about bytes that are gone.
        kept_from = max(self.size - self._ring_size, self._head)
        self._missing = kept_from - self._head
        if self._ring >= 0:
            place = (kept_from - self._head) % self._ring_size
            length = self.size - kept_from
            first = min(length, self._ring_size - place)
            _copy(self._ring, place, first, self._log, self._head)
            _copy(self._ring, 0, length - first, self._log, self._head + first)
        if self._missing:
            self._rewrite_index(kept_from, at)
        if self._ring >= 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._base}.ring")

    def _rewrite_index(self, kept_from: int, at: float) -> None:
        temporary = f"{self._base}.idx.new"
        target = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            # Of the stretches that begin in what is missing, the last one reaches into what was kept.
            reaching = Chunk(kept_from, at, 0)
            gap_written = False
            position = 0
            while data := os.pread(self._index, RECORD_SIZE * 4096, position):
                position += len(data)
                out = bytearray()
                for chunk in unpack(data):
                    if chunk.offset < self._head:
                        out += pack(chunk)
                    if chunk.offset <= kept_from:
                        reaching = chunk
                    elif chunk.offset > kept_from:
                        if not gap_written:
                            out += self._seam(kept_from, reaching)
                            gap_written = True
                        out += pack(chunk)
                os.write(target, out)
            if not gap_written:
                os.write(target, self._seam(kept_from, reaching))
        finally:
            os.close(target)
        os.rename(temporary, f"{self._base}.idx")

    def _seam(self, kept_from: int, reaching: Chunk) -> bytes:
        gap = pack(Chunk(self._head, reaching.at, GAP))
        return gap + pack(Chunk(kept_from, reaching.at, reaching.stream)) if kept_from < self.size else gap

    def _create(self, suffix: str) -> int:
        path = self._base + suffix
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)


def _write(descriptor: int, view: memoryview, position: int) -> None:
    # A disk that fills up takes a part first and refuses the rest in the next call.
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def _copy(source: int, at: int, length: int, target: int, to: int) -> None:
    while length:
        data = os.pread(source, min(length, _BLOCK * 4), at)
        if not data:
            raise OSError(0, "the ring is shorter than it was")
        _write(target, memoryview(data), to)
        at, to, length = at + len(data), to + len(data), length - len(data)
