"""Ids of jobs: eight characters of Crockford's base32, one for each sequence number, and the same never twice."""

from __future__ import annotations

from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_BITS: Final = 40
# Two characters at a time.
_PAIRS: Final = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_MASK: Final = (1 << _BITS) - 1
# An odd factor is invertible modulo a power of two, and so is a shift-and-xor: the whole is a permutation. Neighbours
# get unlike ids, so that a short prefix tells the jobs of one day apart (a time-ordered id would not).
_FACTOR: Final = 0x9E3779B97F & _MASK | 1


def job_id(seq: int) -> str:
    """Return the id of the `seq`-th job; unique for all numbers below 2**40."""
    mixed = seq * _FACTOR & _MASK
    mixed = (mixed ^ mixed >> 21) * _FACTOR & _MASK
    mixed ^= mixed >> 17
    return _PAIRS[mixed >> 30] + _PAIRS[mixed >> 20 & 1023] + _PAIRS[mixed >> 10 & 1023] + _PAIRS[mixed & 1023]
