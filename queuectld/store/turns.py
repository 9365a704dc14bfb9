"""Whose turn it is: what many hand in is carried out so that whoever wants little does not wait for who wants much.

Weighted fair queueing (A. Demers, S. Keshav, S. Shenker, "Analysis and simulation of a fair queueing algorithm", 1989).
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Turn(NamedTuple):
    """In which lane something stands, behind what came before it there, and how much there is to do for it."""

    lane: Hashable
    weight: int = 1


# Goes before everybody's work: that of the daemon itself, which is never much.
FIRST: Final = Turn(None, 0)


class Turns(Generic[T]):
    """What waits, lane by lane. Each lane keeps its order, and gets an equal share of the work while others wait."""

    def __init__(self) -> None:
        # By when each would be done if all lanes were served at the same time; what has no weight is done at once.
        self._waiting: list[tuple[float, int, Turn, T]] = []
        # Of the lanes in which something waits: when the last of it would be done.
        self._done: dict[Hashable, float] = {}
        # The same clock: how much each lane could have got until now.
        self._now = 0.0
        self._count = 0

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def put(self, turn: Turn, item: T) -> None:
        """Have an item wait for its turn."""
        done = 0.0
        if turn.weight:
            done = max(self._done.get(turn.lane, 0.0), self._now) + turn.weight
            self._done[turn.lane] = done
        self._count += 1
        heappush(self._waiting, (done, self._count, turn, item))

    def take(self, weight: int) -> list[T]:
        """Take what is next: at least one item, and more as far as they have no more weight than this together."""
        taken: list[T] = []
        while self._waiting and (not taken or self._waiting[0][2].weight <= weight):
            done, _, turn, item = heappop(self._waiting)
            taken.append(item)
            if turn.weight:
                weight -= turn.weight
                self._now += turn.weight / len(self._done)
                if self._done[turn.lane] == done:
                    del self._done[turn.lane]
        return taken
