"""How often something took how long, in buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

# Upper bounds in seconds. How long jobs wait and run: from what is felt as at once to what is left over a week-end.
LIFE: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, _MINUTE, 300.0, 900.0, _HOUR, 4 * _HOUR, 12 * _HOUR, _DAY)
# A commit waits for the disk: from a drive that says yes at once to one that is about to fail.
COMMIT: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram:
    """Belongs to the thread that observes. Who reads beside it may find the sum one observation behind the buckets."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the upper ends of the buckets, ascending, each included; one more holds the rest."""
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        # The sum of all that was observed.
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; a negative one, of a clock that was set back, as zero."""
        if value > 0.0:
            self.buckets[bisect_left(self.bounds, value)] += 1
            self.total += value
        else:
            self.buckets[0] += 1

    def cumulated(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, infinity last, and how many values were not above it."""
        so_far = 0
        for bound, number in zip((*self.bounds, float("inf")), tuple(self.buckets), strict=True):
            so_far += number
            yield bound, so_far
