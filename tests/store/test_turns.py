"""Fair turns: each lane in its order, nothing lost, and little never waits for much."""

from hypothesis import given
from hypothesis import strategies as st

from queuectld.store.turns import FIRST, Turn, Turns

LANES = st.integers(0, 4)
WEIGHTS = st.integers(1, 50)
STEPS = st.lists(st.tuples(LANES, WEIGHTS) | st.integers(1, 60), max_size=80)


def carried_out(steps):
    """Put what comes, take where a number stands; return what was put, and what was taken in which order."""
    turns, put, taken = Turns(), [], []
    for step in steps:
        if isinstance(step, int):
            taken += turns.take(step)
        else:
            lane, weight = step
            item = (lane, len(put), weight)
            put.append(item)
            turns.put(Turn(lane, weight), item)
    while turns:
        taken += turns.take(10)
    return put, taken


@given(STEPS)
def test_nothing_is_lost_and_each_lane_keeps_its_order(steps):
    put, taken = carried_out(steps)

    assert sorted(taken, key=lambda item: item[1]) == put
    for lane in range(5):
        assert [item for item in taken if item[0] == lane] == [item for item in put if item[0] == lane]


@given(
    st.lists(st.lists(st.integers(1, 100), min_size=1, max_size=9), max_size=5), st.integers(0, 40), st.integers(1, 20)
)
def test_one_who_wants_little_waits_for_no_more_than_the_largest_thing_of_those_who_want_much(heavy, taken_before, few):
    turns = Turns()
    for lane, weights in enumerate(heavy):
        for weight in weights:
            turns.put(Turn(lane, 100 * weight), 100 * weight)
    for _ in range(taken_before):
        turns.take(1)

    for _ in range(few):
        turns.put(Turn("light", 1), 0)
    order = []
    while order.count(0) < few:
        order += turns.take(1)

    # Besides its share, which each of the others gets as well.
    largest = max((100 * weight for weights in heavy for weight in weights), default=0)
    assert sum(order) <= largest + few * len(heavy)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_one_who_wants_much_gets_it_however_many_newcomers_want_little(newcomers):
    turns = Turns()
    turns.put(Turn("heavy", 50), "heavy")

    for number, weight in enumerate(newcomers):
        turns.put(Turn(number, weight), "light")
        if turns.take(1) == ["heavy"]:
            return

    # Two waited at any time: one got no more than the other would have.
    assert sum(newcomers) <= 2 * 50


@given(st.lists(WEIGHTS, min_size=1, max_size=30), st.integers(1, 200))
def test_what_is_taken_together_has_no_more_weight_than_asked_for_but_one_is_always_taken(weights, limit):
    turns = Turns()
    for weight in weights:
        turns.put(Turn("a", weight), weight)

    taken = turns.take(limit)

    assert taken == weights[: len(taken)]
    assert len(taken) == 1 or sum(taken) <= limit
    assert len(taken) == len(weights) or sum(weights[: len(taken) + 1]) > limit


def test_the_daemons_own_work_goes_first_and_counts_for_nothing():
    turns = Turns()
    turns.put(Turn("a", 5), "a")
    turns.put(FIRST, "own 1")
    turns.put(Turn("b", 1), "b")
    turns.put(FIRST, "own 2")

    assert turns.take(6) == ["own 1", "own 2", "b", "a"]


def test_a_lane_that_rested_has_saved_up_nothing_and_owes_nothing():
    turns = Turns()
    turns.put(Turn("a", 1000), "a1")
    turns.take(1)
    turns.put(Turn("a", 10), "a2")
    turns.put(Turn("b", 20), "b1")

    assert turns.take(100) == ["a2", "b1"]
    assert not turns._done
