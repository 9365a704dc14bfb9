"""What was lived through, added up over many worlds; a zero is a failure."""

from __future__ import annotations

from collections import Counter
from typing import Final

from queuectld.domain.transitions import NEXT
from tests.simulation.checker import RULES
from tests.simulation.quiet import quiet
from tests.simulation.world import CRASH_POINTS, World

_MOVES: Final = tuple(f"{state} by {event}" for state, events in NEXT.items() for event in events)


class Tally:
    """Counts; picklable, so that processes can hand it over."""

    def __init__(self) -> None:
        self.seeds = self.steps = 0
        self.rules: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.attacks: Counter[str] = Counter()

    def add(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        for name in ("rules", "moves", "points", "attacks"):
            getattr(self, name).update(getattr(other, name))

    def take(self, world: World) -> None:
        self.seeds += 1
        self.steps += world.scheduler.steps
        self.rules.update({f"{number:2}. {RULES[number]}": n for number, n in world.checker.rules.items()})
        self.moves.update({f"{state} by {event}": n for (state, event), n in world.checker.moves.items()})
        self.points.update(world.figures.points)
        self.attacks.update(world.figures.attacks)

    def tables(self) -> list[tuple[str, list[tuple[str, int]]]]:
        rules = [f"{number:2}. {name}" for number, name in RULES.items()]
        return [
            ("rule checked", [(name, self.rules[name]) for name in rules]),
            ("move", [(name, self.moves[name]) for name in _MOVES]),
            ("crash point", [(name, self.points[name]) for name in CRASH_POINTS]),
            ("attack", sorted(self.attacks.items())),
        ]

    def zeros(self) -> list[str]:
        """Return what was never exercised."""
        return [name for _, rows in self.tables() for name, count in rows if not count]


class SeedFailedError(AssertionError):
    """A world went wrong: tells its seed, and what happened last."""


def live_through(seed: int, tally: Tally) -> None:
    """Run the world of this seed. Raises `SeedFailedError`."""
    world = World(seed)

    def heard(event: str, fields: dict[str, object]) -> None:
        world.tell(f"log: {event} { {name: value for name, value in fields.items() if name != 'event_name'} }")
        for value in fields.values():
            world.checker.logged(value)

    with quiet(heard):
        try:
            world.run()
        except Exception as error:
            trace = "\n".join(world.trace)
            what = f"{trace}\n\nseed {seed} fails at step {world.scheduler.steps}: {type(error).__name__}: {error}"
            raise SeedFailedError(what) from error
    tally.take(world)
