"""How the output of an attempt lies on disk: the contract between a worker, which writes it, and the daemon.

``<base>.log`` holds the bytes as they were seen, stdout and stderr in one sequence, so that ``less`` works on it. It
is made at the first byte; no file means no output. ``<base>.idx`` holds one `Chunk` for each stretch of one stream:
fixed-size records, so that a reader can take whatever whole records there are, at any time.

Past the limit the first half of it stays in ``<base>.log``, and the newest bytes circulate through ``<base>.ring``,
which is `ring_size` long: logical byte `n` (counted over all that the command ever wrote) lies at
``(n - head) % ring_size``. When the attempt ends, the ring is appended to the log in order, one record of stream `GAP`
says how much is missing between, and the ring goes away.

So a logical offset is: below the head, a position in the log; above, what the ring still holds, or after the end the
position ``offset - missing``. Records carry logical offsets.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

STDOUT: Final = 1
STDERR: Final = 2
# The bytes from this offset on, up to the next record, are missing.
GAP: Final = 3

LOG_SUFFIX: Final = ".log"
INDEX_SUFFIX: Final = ".idx"
RING_SUFFIX: Final = ".ring"
SUFFIXES: Final = (LOG_SUFFIX, INDEX_SUFFIX, RING_SUFFIX)

STREAM_NAMES: Final = {STDOUT: "stdout", STDERR: "stderr", GAP: "gap"}

_RECORD: Final = struct.Struct("<QdQ")
RECORD_SIZE: Final = _RECORD.size


class Chunk(NamedTuple):
    """From `offset` on, bytes belong to `stream`, until the next chunk begins; they arrived at `at` (wall clock)."""

    offset: int
    at: float
    stream: int


def pack(chunk: Chunk) -> bytes:
    """Return the record of a chunk."""
    return _RECORD.pack(chunk.offset, chunk.at, chunk.stream)


def unpack(data: bytes) -> list[Chunk]:
    """Return the chunks of all whole records in `data`."""
    whole = len(data) - len(data) % RECORD_SIZE
    return [Chunk(*record) for record in _RECORD.iter_unpack(data[:whole])]


def head_size(limit: int) -> int:
    """Bytes at the front that always stay."""
    return limit - limit // 2


def ring_size(limit: int) -> int:
    """Bytes at the end that stay."""
    return limit // 2


def base_name(seq: int, number: int) -> str:
    """The base of an attempt's files, relative to the output directory: a thousand jobs share a directory."""
    return f"{seq // 1000}/{seq}.{number}"


def attempt_name(store: str, token: int) -> str:
    """The file of an attempt in ``<state>/outcomes`` and ``<state>/kept``: what its worker leaves for the daemon."""
    return f"{store}.{token}"
