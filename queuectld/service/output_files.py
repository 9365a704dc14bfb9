"""Reading what a worker keeps of a command's output, also while it writes. See `queuectld.protocol.output`."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from queuectld.protocol.output import (
    GAP,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    RECORD_SIZE,
    RING_SUFFIX,
    Chunk,
    base_name,
    head_size,
    unpack,
)

# Records read from an index at a time.
_WINDOW: Final = 512


class Stretch(NamedTuple):
    """Logical bytes [start, end) of one stream (or `GAP`: missing), which began to arrive at `at`."""

    start: int
    end: int
    stream: int
    at: float


def output_base(output_dir: Path, seq: int, number: int) -> Path:
    """Return the files of an attempt, without their suffixes."""
    return output_dir / base_name(seq, number)


class OutputFiles:
    """The files of one attempt, opened for one look. Use as a context manager.

    `end` is how far the output can be read now. A worker that finishes copies the ring behind the head, replaces the
    index, and removes the ring, in this order; so the ring is opened first here, then the index, then the log.
    """

    def __init__(self, base: Path, *, live: bool, limit: int, missing: int = 0) -> None:
        """`live`: it may still be written; `limit`: how much is kept; `missing`: how much its outcome says was not."""
        self._ring = _open(base, RING_SUFFIX)
        self._index = _open(base, INDEX_SUFFIX)
        self._log = _open(base, LOG_SUFFIX)
        self._records = _size(self._index) // RECORD_SIZE
        self._window: list[Chunk] = []
        self._window_at = 0
        log_size, front = _size(self._log), head_size(limit)
        moved = live and self._ring is None and log_size > front
        gap = self._find_gap(front, search=missing > 0 or moved)
        # Where the head ends, and where the bytes begin that a finished log holds behind it.
        self._head = log_size if gap is None else gap.start
        self._behind = log_size if gap is None else gap.end
        # How far the output can be read now.
        self.end = self._behind + log_size - self._head
        # From here on the ring has bytes; none before.
        self._ring_from: int | None = None
        self._ring_size = _size(self._ring)
        if gap is None and self._ring_size:
            self._see_ring(log_size, front if live and log_size != front else None)

    def _see_ring(self, log_size: int, front: int | None) -> None:
        if front is not None:
            # The worker moves the ring into the log right now, or the limit was another one when it began: what is
            # behind the head will be told when the attempt is over.
            self.end = min(log_size, front)
            return
        if self._ring_size < log_size - 1:
            self._ring_from, self.end = log_size, log_size + self._ring_size
            return
        # It has gone round. The bytes before the newest record are there; how many of the oldest are overwritten while
        # we look is not known, but a record is written every second, and half a ring is far more than a second's worth.
        newest = self._record(self._records - 1).offset if self._records else 0
        self.end = max(log_size, newest)
        self._ring_from = max(log_size, self.end - self._ring_size // 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for descriptor in (self._ring, self._index, self._log):
            if descriptor is not None:
                os.close(descriptor)

    @property
    def exists(self) -> bool:
        """Whether there is any output."""
        return self._log is not None and self._index is not None

    def stretch(self, offset: int) -> Stretch | None:
        """Return the stretch with this byte, from it on; None where nothing can be read yet."""
        if offset >= self.end or not self._records:
            return None
        return next(part for part in self._parts(self._covering(offset)) if part.end > offset)._replace(start=offset)

    def backwards(self) -> Iterator[Stretch]:
        """Return all stretches that can be read, the last one first."""
        for number in range(self._records - 1, -1, -1):
            yield from reversed(self._parts(number))

    def _parts(self, number: int) -> list[Stretch]:
        """Return the stretch that a record begins, cut where the head ends and where the ring begins to be kept."""
        record = self._record(number)
        end = min(self._record(number + 1).offset if number + 1 < self._records else self.end, self.end)
        kept_from = self._head if self._ring_from is None else self._ring_from
        if kept_from == self._head or record.stream == GAP:
            parts = [Stretch(record.offset, end, record.stream, record.at)]
        else:
            parts = [
                Stretch(record.offset, min(end, self._head), record.stream, record.at),
                Stretch(max(record.offset, self._head), min(end, kept_from), GAP, record.at),
                Stretch(max(record.offset, kept_from), end, record.stream, record.at),
            ]
        return [part for part in parts if part.start < part.end]

    def since(self, moment: float) -> int:
        """Return the offset of the first stretch that began at `moment` or later; `end` if there is none."""
        for number in range(self._records):
            if (record := self._record(number)).at >= moment:
                return record.offset
        return self.end

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes from a logical offset on; the caller keeps to what stretches without a gap hold.

        Nothing comes where the worker was faster than this reader: the next look finds a gap there.
        """
        if self._log is None:
            return b""
        if self._ring_from is not None:
            front = os.pread(self._log, min(size, self._head - offset), offset) if offset < self._head else b""
            return front + self._read_ring(max(offset, self._head), size - len(front)) if len(front) < size else front
        if offset >= self._behind:
            return os.pread(self._log, size, self._head + offset - self._behind)
        return os.pread(self._log, min(size, self._head - offset), offset)

    def _read_ring(self, offset: int, size: int) -> bytes:
        if self._ring is None:
            return b""
        size = min(size, self.end - offset)
        place = (offset - self._head) % self._ring_size
        first = os.pread(self._ring, min(size, self._ring_size - place), place)
        data = first if len(first) == size else first + os.pread(self._ring, size - len(first), 0)
        return b"" if self._overtaken(offset) else data

    def _overtaken(self, offset: int) -> bool:
        """Whether the worker may have come round to this byte while it was read: then it is not what it was."""
        size = _size(self._ring)
        if size < self._head - 1:
            # It has not gone round yet.
            return False
        last = max(0, _size(self._index) // RECORD_SIZE - 1)
        newest = unpack(os.pread(self._index or 0, RECORD_SIZE, last * RECORD_SIZE))
        # What it wrote since its newest record is not known, and taken for less than a quarter of the ring. An index
        # without records is one that it gives up just now, and the ring with it.
        return not newest or offset < newest[0].offset - size * 3 // 4

    def _find_gap(self, front: int, *, search: bool) -> Stretch | None:
        """Return what a finished log lacks. It is where the head ends, but the limit may have been another one."""
        if not self._records:
            return None
        likely = [self._records - 1, max(self._covering(front), 0)]
        for number in (*likely, *range(self._records if search else 0)):
            record = self._record(number)
            if record.stream == GAP:
                end = self._record(number + 1).offset if number + 1 < self._records else record.offset
                return Stretch(record.offset, end, GAP, record.at)
        return None

    def _covering(self, offset: int) -> int:
        """Return the number of the last record that begins at `offset` or before."""
        if self._window and self._window[0].offset <= offset < self._window[-1].offset:
            return self._window_at + bisect_right(self._window, offset, key=lambda record: record.offset) - 1
        low, high = 0, self._records
        while high - low > 1:
            middle = (low + high) // 2
            if self._one(middle).offset <= offset:
                low = middle
            else:
                high = middle
        return low

    def _one(self, number: int) -> Chunk:
        return unpack(os.pread(self._index or 0, RECORD_SIZE, number * RECORD_SIZE))[0]

    def _record(self, number: int) -> Chunk:
        if not self._window_at <= number < self._window_at + len(self._window):
            # Backwards or forwards: the window lies around what is asked for.
            self._window_at = max(0, number - _WINDOW // 2)
            data = os.pread(self._index or 0, RECORD_SIZE * _WINDOW, self._window_at * RECORD_SIZE)
            self._window = unpack(data)
        return self._window[number - self._window_at]


def _open(base: Path, suffix: str) -> int | None:
    try:
        return os.open(f"{base}{suffix}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _size(descriptor: int | None) -> int:
    return 0 if descriptor is None else os.fstat(descriptor).st_size
