"""How many jobs there are by queue and kind, and sums over the whole store: kept in memory, stored with each commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from queuectld.domain.job import State
from queuectld.store.database import Database
from queuectld.store.rows import CODES, KINDS

_READ_COUNTS: Final = "SELECT queue, kind, number FROM counts WHERE number > 0"
_WRITE_COUNT: Final = (
    "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT (queue, kind) DO UPDATE SET number = excluded.number"
)
_READ_NUMBERS: Final = "SELECT last_seq, last_token, last_entry, removed_entry, kept_output FROM store"
_WRITE_NUMBERS: Final = (
    "UPDATE store SET last_seq = ?, last_token = ?, last_entry = ?, removed_entry = ?, kept_output = ?"
)

Counts = Mapping[str, Mapping[State, int]]
Kind = tuple[str, int]


class Numbers(NamedTuple):
    """The largest numbers ever given, the largest that retention took away, and how much disk output takes up."""

    last_seq: int
    last_token: int
    last_entry: int
    removed_entry: int
    kept_output: int


class Mark(NamedTuple):
    """A point to go back to."""

    moves: int
    numbers: Numbers


class Tally:
    """Follows every move of a job, and can take the last ones back."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._moves: list[tuple[Kind, int]] = []
        self.reload()

    def reload(self) -> None:
        """Begin with what is stored."""
        self._moves.clear()
        self._counts = read_kinds(self._database)
        self._stored = read_numbers(self._database)
        self._adopt(self._stored)

    def change(self, queue: str, kind: int, by: int) -> None:
        """Note that there are so many more jobs of a kind."""
        key = (queue, kind)
        self._counts[key] = self._counts.get(key, 0) + by
        self._moves.append((key, by))

    def number_of(self, kinds: Iterable[int]) -> int:
        """Return how many jobs of these kinds there are in all queues."""
        wanted = frozenset(kinds)
        return sum(number for (_, kind), number in self._counts.items() if kind in wanted)

    def counts(self) -> Counts:
        """Return the numbers by queue and state."""
        return by_state(self._counts)

    def unseen_dead(self) -> Mapping[str, int]:
        """Return by queue how many dead jobs nobody has taken notice of."""
        return unseen_dead(self._counts)

    def mark(self) -> Mark:
        """Return a point to which `undo` can go back."""
        return Mark(len(self._moves), self._numbers())

    def undo(self, mark: Mark) -> None:
        """Take back what came after `mark`."""
        for key, by in self._moves[mark.moves :]:
            self._counts[key] -= by
        del self._moves[mark.moves :]
        self._adopt(mark.numbers)

    def flush(self) -> None:
        """Store what has changed, as the last thing before the commit."""
        for key in {key for key, _ in self._moves}:
            self._database.run(_WRITE_COUNT, (*key, self._counts[key]))
        if self._numbers() != self._stored:
            self._database.run(_WRITE_NUMBERS, self._numbers())

    def settle(self) -> None:
        """Take what was flushed for stored, after the commit."""
        self._moves.clear()
        self._stored = self._numbers()

    def _numbers(self) -> Numbers:
        return Numbers(self.last_seq, self.last_token, self.last_entry, self.removed_entry, self.kept_output)

    def _adopt(self, numbers: Numbers) -> None:
        self.last_seq, self.last_token, self.last_entry, self.removed_entry, self.kept_output = numbers


def read_kinds(database: Database) -> dict[Kind, int]:
    """Return the stored numbers by queue and kind."""
    return {(queue, kind): number for queue, kind, number in database.run(_READ_COUNTS)}


def read_numbers(database: Database) -> Numbers:
    """Return the stored numbers."""
    return Numbers(*database.only(_READ_NUMBERS))


def by_state(kinds: Mapping[Kind, int]) -> Counts:
    """Fold kinds into states, and leave out zeros."""
    counts: dict[str, dict[State, int]] = {}
    for (queue, kind), number in kinds.items():
        if number:
            states = counts.setdefault(queue, {})
            states[KINDS[kind]] = states.get(KINDS[kind], 0) + number
    return counts


def unseen_dead(kinds: Mapping[Kind, int]) -> Mapping[str, int]:
    """Return by queue the number of dead jobs without those that were seen, and leave out zeros."""
    dead = CODES[State.DEAD]
    return {queue: number for (queue, kind), number in kinds.items() if kind == dead and number}
