"""How many jobs could start and have no worker: a guess that may be too high, and never stays too low."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from queuectld.domain.job import WAITING
from queuectld.store.base import Entry

# Events after which a job may stand in the queue that did not before.
_ARRIVALS: Final = frozenset({"job.enqueued", "job.requeued", "job.retried", "job.failed"})


class Demand:
    """Counts arrivals, and learns from every claim.

    What was committed is told in its order, but a claim may have run before an arrival whose news comes before the
    claim's answer. So a claim that left nothing proves an empty queue only if nothing arrived since it was sent.
    """

    def __init__(self) -> None:
        # As many as were counted; and whether the last look left more than that, nobody knows how many.
        self._counted = 0
        self._more = False
        self._arrivals = 0

    def __bool__(self) -> bool:
        return self._counted > 0 or self._more

    def __int__(self) -> int:
        return max(self._counted, int(self._more))

    def expect(self, count: int) -> None:
        """So many jobs may be startable that nobody told of: at the start, or when a due time has come."""
        self._counted += count
        self._arrivals += count

    def hear(self, entries: Sequence[Entry], now: float) -> float | None:
        """Take note of what was committed; return the earliest due time among what has to wait for it."""
        earliest: float | None = None
        for entry in entries:
            if entry.event not in _ARRIVALS or entry.state not in WAITING:
                continue
            if entry.run_at is None or entry.run_at <= now:
                self.expect(1)
            elif earliest is None or entry.run_at < earliest:
                earliest = entry.run_at
        return earliest

    def ticket(self) -> int:
        """Return what `served` wants to know of the moment at which a claim was sent."""
        return self._arrivals

    def served(self, *, more: bool, got: int, ticket: int) -> None:
        """A claim found `got` jobs, and left some or none."""
        self._more = more
        self._counted = 0 if not more and ticket == self._arrivals else max(self._counted - got, 0)

    def served_one(self, *, found: bool, ticket: int) -> None:
        """A worker that ended a job looked for its next one; whether more are left, it did not look."""
        if not found:
            self.served(more=False, got=0, ticket=ticket)
        elif self._counted:
            self._counted -= 1
        else:
            # More than was thought of: then there may be more still.
            self._more = True
