"""Positions of jobs, a million in the space of a few hundred kilobytes: one bit each."""

from __future__ import annotations

from typing import Final

# Bits of one number; Python's integers are as cheap at this length as small ones.
_SPAN: Final = 1024


class Seqs:
    """A set of positions. Jobs that were stored together lie together, so most bits of a number are used."""

    def __init__(self) -> None:
        self._bits: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._bits)

    def __contains__(self, seq: int) -> bool:
        return bool(self._bits.get(seq // _SPAN, 0) >> seq % _SPAN & 1)

    def add(self, seq: int) -> None:
        """Put one in."""
        place, bit = divmod(seq, _SPAN)
        self._bits[place] = self._bits.get(place, 0) | 1 << bit

    def discard(self, seq: int) -> None:
        """Take one out, if it is there."""
        place, bit = divmod(seq, _SPAN)
        left = self._bits.get(place, 0) & ~(1 << bit)
        if left:
            self._bits[place] = left
        else:
            self._bits.pop(place, None)
