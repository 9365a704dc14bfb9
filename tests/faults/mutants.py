"""The product broken on purpose, one rule at a time: each time the attack that watches over that rule has to notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from tests.faults import crashpoints, cuts, kills, powercut
from tests.faults.suite import Kind, Suite, Tally, needs_strace


class Mutant(NamedTuple):
    """What attacks it, with which seed, and as what it has to be noticed: one of these at least."""

    attack: Callable[[int, str], Tally]
    noticed: tuple[Kind, ...]
    hindrance: Callable[[], str | None] = lambda: None


# By their names in `broken/sitecustomize.py`.
MUTANTS: Final = {
    "synchronous-normal": Mutant(lambda seed, name: cuts.run(1, seed, name), ("lost",), powercut.hindrance),
    "acknowledge-before-commit": Mutant(
        lambda seed, name: crashpoints.attack(["commit"], 4, seed, name), ("lost", "doubled"), needs_strace
    ),
    "kill-the-leader-only": Mutant(lambda seed, name: kills.run(5, seed, name), ("left over",)),
    "ignore-outcome-files": Mutant(
        lambda seed, name: cuts.run(3, seed, name, absent=True), ("lost",), powercut.hindrance
    ),
    "take-the-living-for-dead": Mutant(
        lambda seed, name: crashpoints.attack(["commit"], 2, seed, name), ("doubled",), needs_strace
    ),
}


def attack(name: str, seed: int) -> Tally:
    """Break the product so, and attack it; what is wrong then is as it should be, and that nothing is is wrong."""
    mutant, tally = MUTANTS[name], Tally()
    found = mutant.attack(seed, name)
    tally.fault(name)
    tally.runs = found.runs
    count = sum(map(found.count, mutant.noticed))
    tally.check("what is broken on purpose is noticed", other=[] if count else [f"{name}, seed {seed}"])
    tally.figures[f"mutant {name}"] = f"{count} {' or '.join(mutant.noticed)}"
    return tally


def run(rounds: int, seed: int) -> Tally:
    """Try each of them so often."""
    tally = Tally()
    for number in range(rounds):
        for name in MUTANTS:
            tally.add(attack(name, seed + number))
    return tally


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
