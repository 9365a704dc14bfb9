"""The product broken on purpose, one rule at a time: each time the attack that watches over that rule has to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.faults import crashpoints, cuts, kills, powercut
from tests.faults.suite import Kind, Suite, Tally, needs_strace


class Mutant(NamedTuple):
    """What attacks it, with which seed, and as what it has to be noticed: one of these at least."""

    attack: Callable[[Tally, int, str], None]
    noticed: tuple[Kind, ...]
    hindrance: Callable[[], str | None] = lambda: None


# By their names in `broken/sitecustomize.py`.
MUTANTS: Final = {
    "synchronous-normal": Mutant(
        lambda tally, seed, name: cuts.run(tally, 1, seed, name), ("lost",), powercut.hindrance
    ),
    "acknowledge-before-commit": Mutant(
        lambda tally, seed, name: crashpoints.attack(tally, ["commit"], 4, seed, name),
        ("lost", "doubled"),
        needs_strace,
    ),
    "kill-the-leader-only": Mutant(lambda tally, seed, name: kills.run(tally, 5, seed, name), ("left over",)),
    "ignore-outcome-files": Mutant(
        lambda tally, seed, name: cuts.run(tally, 3, seed, name, absent=True), ("lost",), powercut.hindrance
    ),
    "take-the-living-for-dead": Mutant(
        lambda tally, seed, name: crashpoints.attack(tally, ["commit"], 2, seed, name), ("doubled",), needs_strace
    ),
}


def attack(tally: Tally, name: str, seed: int) -> None:
    """Break the product so, and attack it; what is wrong then is as it should be, and that nothing is is wrong."""
    mutant, found = MUTANTS[name], Tally()
    stuck = None
    try:
        mutant.attack(found, seed, name)
    except AssertionError as error:
        # So broken that nothing gets on any more, which fails a suite as well.
        stuck = f"nothing gets on: {error}"[:200]
    tally.fault(name)
    tally.runs += found.runs
    count = sum(map(found.count, mutant.noticed))
    tally.check("what is broken on purpose is noticed", other=[] if count or stuck else [f"{name}, seed {seed}"])
    tally.figures[f"mutant {name}"] = stuck or f"{count} {' or '.join(mutant.noticed)}"


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Try each of them so often."""
    for number in range(rounds):
        for name in MUTANTS:
            attack(tally, name, seed + number)


def hindrance() -> str | None:
    return next((why for mutant in MUTANTS.values() if (why := mutant.hindrance())), None)


SUITE: Final = Suite(
    "mutants",
    "the product itself broken on purpose: each of the attacks above notices what it is for",
    run,
    rounds=3,
    unit="times each",
    hindrance=hindrance,
)
