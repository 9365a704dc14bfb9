"""When the use of a tree is looked at, and what is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.protocol.worker_messages import Reason
from queuectld.worker.watch import FASTEST, OFTEN, SELDOM, Watch

MIB = 1 << 20
GIB = 1 << 30


def test_what_cannot_be_reached_yet_is_not_looked_at():
    watch = Watch(100.0, memory=GIB, cpu=60.0, processors=2)

    assert watch.due() == pytest.approx(100.0 + GIB / FASTEST)
    assert Watch(100.0, memory=None, cpu=60.0, processors=2).due() == 130.0


def test_a_small_limit_is_not_looked_at_without_end():
    watch = Watch(0.0, memory=MIB, cpu=0.001, processors=64)

    assert watch.due() == OFTEN


def test_the_nearer_a_limit_the_sooner_the_next_look():
    watch = Watch(0.0, memory=GIB, cpu=None, processors=2)
    pauses = []
    for used in (0, GIB // 2, GIB - MIB):
        watch.judge(10.0, memory=used, cpu=0.0, took=0.0)
        pauses.append(watch.due() - 10.0)

    assert pauses == sorted(pauses, reverse=True)
    assert pauses[-1] == pytest.approx(OFTEN)


def test_a_limit_that_is_far_away_is_looked_at_every_now_and_then():
    watch = Watch(0.0, memory=1 << 50, cpu=None, processors=2)

    assert watch.due() == SELDOM


def test_processor_time_is_looked_at_when_all_processors_could_have_used_it_up():
    watch = Watch(0.0, memory=None, cpu=10.0, processors=4)

    assert watch.judge(2.5, memory=0, cpu=6.0, took=0.0) is None
    assert watch.due() == 3.5


def test_a_look_that_takes_long_is_not_taken_often():
    watch = Watch(0.0, memory=2 * MIB, cpu=None, processors=1)

    watch.judge(1.0, memory=MIB, cpu=0.0, took=0.02)

    assert watch.due() == pytest.approx(2.0)


def test_too_much_memory_is_told_with_limit_and_use():
    watch = Watch(0.0, memory=100 * MIB, cpu=None, processors=1)

    assert watch.judge(1.0, memory=100 * MIB, cpu=0.0, took=0.0) is None
    excess = watch.judge(2.0, memory=120 * MIB, cpu=0.0, took=0.0)

    assert (excess.reason, excess.text) == (Reason.OUT_OF_MEMORY, "120.0 MiB used, 100.0 MiB allowed")


def test_too_much_processor_time_is_told_with_limit_and_use():
    watch = Watch(0.0, memory=None, cpu=1.5, processors=1)

    excess = watch.judge(2.0, memory=0, cpu=1.53, took=0.0)

    assert (excess.reason, excess.text) == (Reason.CPU_LIMIT, "1.53 s used, 1.5 s allowed")


def test_an_excess_is_told_once():
    watch = Watch(0.0, memory=100 * MIB, cpu=1.0, processors=1)

    assert watch.judge(1.0, memory=101 * MIB, cpu=2.0, took=0.0).reason is Reason.OUT_OF_MEMORY
    assert watch.judge(2.0, memory=101 * MIB, cpu=2.0, took=0.0).reason is Reason.CPU_LIMIT
    assert watch.judge(3.0, memory=101 * MIB, cpu=3.0, took=0.0) is None


def test_what_goes_on_growing_when_it_was_told_to_end_is_given_no_more_time():
    watch = Watch(0.0, memory=100 * MIB, cpu=None, processors=1)

    # Far too much at once is no sign of growing on.
    first = watch.judge(1.0, memory=200 * MIB, cpu=0.0, took=0.0)
    assert not first.at_once
    assert watch.judge(1.1, memory=110 * MIB, cpu=0.0, took=0.0) is None
    assert watch.judge(1.2, memory=126 * MIB, cpu=0.0, took=0.0).at_once


def test_after_the_last_word_nothing_is_looked_at_any_more():
    watch = Watch(0.0, memory=100 * MIB, cpu=1.0, processors=1)
    for now in (1.0, 2.0, 3.0):
        watch.judge(now, memory=500 * MIB, cpu=9.0, took=0.0)

    assert watch.due() == float("inf")


@given(
    limit=st.integers(MIB, 64 * GIB),
    rates=st.lists(st.floats(0, FASTEST), min_size=1, max_size=200),
)
def test_memory_that_grows_as_fast_as_it_can_is_never_further_over_than_one_short_pause_lets_it(limit, rates):
    watch = Watch(0.0, memory=limit, cpu=None, processors=1)
    now = used = 0.0
    for rate in rates:
        pause = watch.due() - now
        used += rate * pause
        now += pause
        if watch.judge(now, memory=int(used), cpu=0.0, took=0.0):
            break
        assert used <= limit + 1

    assert used <= limit + FASTEST * OFTEN + 1


@given(
    limit=st.floats(0.01, 1e5),
    processors=st.integers(1, 256),
    busy=st.lists(st.floats(0, 1), min_size=1, max_size=200),
)
def test_processor_time_is_never_further_over_than_one_short_pause_lets_it(limit, processors, busy):
    watch = Watch(0.0, memory=None, cpu=limit, processors=processors)
    now = used = 0.0
    for share in busy:
        pause = watch.due() - now
        used += share * processors * pause
        now += pause
        if watch.judge(now, memory=0, cpu=used, took=0.0):
            break

    assert used <= (limit + OFTEN * processors) * (1 + 1e-9)
