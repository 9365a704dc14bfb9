"""The product lives through a few hundred bad days; many more of them by `python -m tests.simulation`."""

from __future__ import annotations

import pytest

from tests.simulation.figures import Figures
from tests.simulation.life import SeedFailedError, live_through
from tests.simulation.mutants import MUTANTS, first_noticed

SEEDS = 300


@pytest.mark.timeout(400)
def test_whatever_goes_wrong_every_rule_holds_and_all_of_them_are_put_to_the_test() -> None:
    figures = Figures()

    for seed in range(SEEDS):
        figures.add(live_through(seed))

    assert figures.zeros() == []


def test_a_seed_replays_exactly() -> None:
    first, second = live_through(7), live_through(7)

    assert vars(first) == vars(second)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_product_broken_on_purpose_is_noticed(name: str) -> None:
    assert first_noticed(name) is not None


def test_a_failure_tells_its_seed_and_what_happened_last() -> None:
    with MUTANTS["acknowledge before commit"](), pytest.raises(SeedFailedError) as caught:
        live_through(0)

    assert "seed 0 fails" in str(caught.value)
    assert "log: Worker started" in str(caught.value)
