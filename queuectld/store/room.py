"""How much disk the output of an attempt takes up."""

from __future__ import annotations

from typing import Final

from queuectld.domain.attempt import Outcome

# Of an attempt whose worker died without a word.
UNMEASURED: Final = -1
# File systems give out space in blocks, so that a million little files are not little.
_BLOCK: Final = 4096
# Whatever a worker claims, the sum has to fit into 63 bits.
_MOST: Final = 2**40


def in_blocks(size: int) -> int:
    """Return how much disk so many bytes take up."""
    return -(-size // _BLOCK) * _BLOCK


def room_of(outcome: Outcome | None) -> int:
    """Return how much disk the output of an attempt takes up: what was kept of it, and the index beside it."""
    if outcome is None:
        return 0
    if outcome.output_unknown:
        return UNMEASURED
    if not outcome.output_bytes:
        return 0
    kept = max(outcome.output_bytes - outcome.output_missing, 0)
    return min(in_blocks(kept) + max(in_blocks(outcome.output_index), _BLOCK), _MOST)
