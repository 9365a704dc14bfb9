from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.server import throttle
from queuectld.server.door import Refusals
from queuectld.server.throttle import ADDRESSES, BURST, FREE, LONGEST_PAUSE, RATE, Throttle, place_of

HOST = "192.0.2.1"
OTHER = "192.0.2.2"
RIGHT = b"right"
WRONG = b"wrong"


def fail(door, times, host=HOST, now=0.0):
    for _ in range(times):
        door.failed(host, now)


def test_the_first_failures_cost_nothing():
    door = Throttle()

    for _ in range(FREE):
        assert door.wait(HOST, WRONG, 0.0) == 0
        door.failed(HOST, 0.0)

    assert door.wait(HOST, WRONG, 0.0) == 1


def test_every_further_failure_doubles_the_pause_up_to_a_minute():
    door, now, pauses = Throttle(), 1000.0, []
    fail(door, FREE - 1, now=now)

    for _ in range(12):
        door.failed(HOST, now)
        pauses.append(door.wait(HOST, WRONG, now))
        # So short that little is forgiven meanwhile.
        now += pauses[-1] if pauses[-1] < LONGEST_PAUSE else 0

    assert pauses[0] == 1
    assert all(1.8 < after / before <= 2 for before, after in itertools.pairwise(pauses[:5]))
    assert LONGEST_PAUSE - 5 < pauses[-1] <= max(pauses) <= LONGEST_PAUSE


def test_a_pause_ends_by_itself():
    door = Throttle()
    fail(door, 50, now=10.0)

    assert door.wait(HOST, WRONG, 10.0) == LONGEST_PAUSE
    assert door.wait(HOST, WRONG, 10.0 + LONGEST_PAUSE / 2) == LONGEST_PAUSE / 2
    assert door.wait(HOST, WRONG, 10.0 + LONGEST_PAUSE) == 0


def test_failures_are_forgiven_with_time():
    door = Throttle()
    fail(door, 1000)

    door.failed(HOST, 3600.0)

    assert door.wait(HOST, WRONG, 3600.0) == 0


def test_other_addresses_do_not_wait():
    door = Throttle()
    fail(door, 50)

    assert door.wait(OTHER, WRONG, 0.0) == 0


def test_a_token_that_was_right_from_there_is_looked_at_in_a_pause_too_and_no_other_is():
    door = Throttle()
    door.succeeded(HOST, RIGHT, 0.0)
    fail(door, 50, now=1.0)

    assert door.wait(HOST, RIGHT, 1.0) == 0
    assert door.wait(HOST, WRONG, 1.0) == LONGEST_PAUSE
    assert door.wait(OTHER, RIGHT, 1.0) == 0
    fail(door, 50, OTHER, now=1.0)
    assert door.wait(OTHER, RIGHT, 1.0) == LONGEST_PAUSE


def test_an_attack_without_end_locks_nobody_out_who_was_let_in_lately():
    door, now = Throttle(), 0.0
    door.succeeded(HOST, RIGHT, now)

    for _ in range(10_000):
        now += 0.5
        if door.wait(HOST, WRONG, now) == 0:
            door.failed(HOST, now)
        if now % 3600 == 0:
            assert door.wait(HOST, RIGHT, now) == 0
            door.succeeded(HOST, RIGHT, now)


def test_what_was_right_a_day_ago_waits_like_any_other():
    door = Throttle()
    door.succeeded(HOST, RIGHT, 0.0)
    fail(door, 50, now=throttle.WELCOME_FOR)

    assert door.wait(HOST, RIGHT, throttle.WELCOME_FOR) == LONGEST_PAUSE


def test_being_right_does_not_wipe_failures_out():
    door = Throttle()
    fail(door, 50)

    door.succeeded(HOST, RIGHT, 0.0)

    assert door.wait(HOST, WRONG, 0.0) == LONGEST_PAUSE


def test_all_addresses_together_try_no_more_than_so_many_a_second():
    door, tried, now = Throttle(), 0, 0.0

    while now < 100:
        for host in range(20):
            address = f"10.{host}.{int(now * 10) % 250}.{int(now) % 250}"
            if door.wait(address, WRONG, now) == 0:
                door.failed(address, now)
                tried += 1
        now += 0.1

    assert BURST < tried <= BURST + RATE * 100 + 1
    door.succeeded(HOST, RIGHT, now)
    fail(door, 1000, "10.0.0.1", now)
    assert door.wait(OTHER, WRONG, now) == pytest.approx(1 / RATE)
    assert door.wait(HOST, RIGHT, now) == 0


def test_memory_is_bounded_and_keeps_the_latest():
    door = Throttle()
    for number in range(3 * ADDRESSES):
        fail(door, 6, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", now=number * 10.0)
        door.succeeded(f"11.{number >> 16}.{number >> 8 & 255}.{number & 255}", RIGHT, number * 10.0)
        door.succeeded(HOST, str(number).encode(), number * 10.0)

    assert len(door._failed) == ADDRESSES
    assert len(door._welcome) == throttle.WELCOME
    assert len(door._welcome[HOST]) == throttle.WELCOME_TOKENS
    last = 3 * ADDRESSES - 1
    assert door.wait(f"10.{last >> 16}.{last >> 8 & 255}.{last & 255}", WRONG, last * 10.0) == 2


def test_wrong_tokens_from_everywhere_do_not_push_out_who_was_right():
    door = Throttle()
    door.succeeded(HOST, RIGHT, 0.0)

    for number in range(2 * ADDRESSES):
        door.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1.0)
    fail(door, 50, now=1.0)

    assert door.wait(HOST, RIGHT, 1.0) == 0


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:0:0:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("strange", "strange"),
    ],
)
def test_what_counts_as_one_address(host, place):
    assert place_of(host) == place


@given(st.lists(st.tuples(st.sampled_from([HOST, OTHER]), st.floats(0, 100), st.booleans()), max_size=60))
def test_whatever_happens_a_wait_is_short_and_passes(steps):
    door, now = Throttle(), 0.0
    for host, later, obeys in steps:
        now += later
        if not obeys or door.wait(host, WRONG, now) == 0:
            door.failed(host, now)
        for one in (HOST, OTHER):
            wait = door.wait(one, WRONG, now)
            assert 0 <= wait <= LONGEST_PAUSE
            assert door.wait(one, WRONG, now + wait + 1e-6) == 0


@given(st.lists(st.floats(0, 30), max_size=200))
def test_who_tries_as_often_as_allowed_gets_few_tries(gaps):
    door, now, tried = Throttle(), 0.0, 0
    for gap in gaps:
        now += gap
        if door.wait(HOST, WRONG, now) == 0:
            door.failed(HOST, now)
            tried += 1

    # The pauses double, and a minute forgives one.
    assert tried <= FREE + 8 + now / 30


# What the log hears of it.


def test_a_flood_of_refusals_is_some_lines_and_then_sums():
    refusals = Refusals()

    told = [refusals.told(now / 100) for now in range(10_000)]

    lines = [count for count in told if count]
    assert len(lines) <= 20 + 100 / 10 + 1
    assert lines[:20] == [1] * 20
    assert sum(lines) > 9000


def test_single_refusals_are_all_told():
    refusals = Refusals()

    assert [refusals.told(now * 20.0) for now in range(100)] == [1] * 100
