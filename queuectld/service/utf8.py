"""Cutting bytes where characters end."""

from __future__ import annotations


def incomplete_tail(data: bytes) -> int:
    """Return how many bytes at the end begin a character that is not complete; 0 to 3."""
    for length in range(1, min(3, len(data)) + 1):
        byte = data[-length]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            return length if length < _length(byte) else 0
    return 0


def missing_bytes(data: bytes) -> int:
    """Return how many bytes the incomplete character at the end still needs."""
    tail = incomplete_tail(data)
    return _length(data[-tail]) - tail if tail else 0


def _length(first: int) -> int:
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4
