"""The two stores against each other: random histories of all verbs, and of the service's rules over them."""

from __future__ import annotations

from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.faults.suite import Suite, Tally
from tests.store.test_machine import Both
from tests.store.test_service_machine import Rules

MACHINES: Final[dict[str, type[RuleBasedStateMachine]]] = {"verbs": Both, "rules": Rules}


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Live so many lives of each machine, of 50 steps."""
    chosen = settings(
        max_examples=rounds,
        stateful_step_count=50,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    for name, machine in MACHINES.items():
        try:
            run_state_machine_as_test(seeded(seed)(_counted(machine, tally)), settings=chosen)
        except AssertionError as error:
            # The notes are the shortest history that shows it, by hypothesis.
            told = "; ".join([str(error)[:1000], *getattr(error, "__notes__", [])])
            tally.check(f"both stores do the same: {name}", other=[told[:4000]])


def _counted(machine: type[RuleBasedStateMachine], tally: Tally) -> type[RuleBasedStateMachine]:
    """Return the same machine, that counts its lives, each of which is looked at after each step."""

    class Counted(machine):  # type: ignore[misc,valid-type]
        def __init__(self) -> None:
            super().__init__()
            tally.runs += 1
            tally.fault("random lives")
            tally.check(f"both stores do the same: {machine.__name__.lower()}")

    return Counted


SUITE: Final = Suite(
    "stores",
    "the store in memory and SQLite against each other, under random histories of verbs and of the service's rules",
    run,
    rounds=2000,
    unit="lives of each",
)
