"""The product lives through a few hundred bad days; many more of them by `python -m tests.simulation`."""

from __future__ import annotations

import pytest

from tests.simulation.figures import SeedFailedError, Tally, live_through
from tests.simulation.mutants import MUTANTS, first_noticed

SEEDS = 300


def test_whatever_goes_wrong_every_rule_holds_and_all_of_them_are_put_to_the_test() -> None:
    tally = Tally()

    for seed in range(SEEDS):
        live_through(seed, tally)

    assert tally.zeros() == []


def test_a_seed_replays_exactly() -> None:
    first, second = Tally(), Tally()

    live_through(7, first)
    live_through(7, second)

    assert (first.steps, first.tables()) == (second.steps, second.tables())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_product_broken_on_purpose_is_noticed(name: str) -> None:
    assert first_noticed(name) is not None


def test_a_failure_tells_its_seed_and_what_happened_last() -> None:
    with MUTANTS["acknowledge before commit"](), pytest.raises(SeedFailedError) as caught:
        live_through(0, Tally())

    assert "seed 0 fails" in str(caught.value)
    assert "! submit" in str(caught.value)
