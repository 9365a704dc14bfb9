"""When a command is sent TERM and KILL, and who is named as the cause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.protocol.worker_messages import Reason
from queuectld.worker.ending import Ending, Stage


def run_out(ending):
    """Step at each deadline; return when each stage began."""
    times = {}
    while (due := ending.due()) is not None:
        times[ending.step(due)] = due
    return times


def test_without_timeout_nothing_is_ever_due():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0)

    assert ending.due() is None
    assert ending.step(1e9) is None


def test_a_timeout_sends_term_then_kill():
    ending = Ending(now=10.0, timeout=3.0, kill_after=5.0)

    assert ending.step(12.9) is None
    assert run_out(ending) == {Stage.TERMINATED: 13.0, Stage.KILLED: 18.0}
    assert ending.reason is Reason.TIMEOUT


def test_nobody_is_named_before_the_term():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0)

    ending.stop(0.0, Reason.INTERRUPTED, 30.0, None)

    assert ending.reason is None


def test_a_stop_with_grace_uses_the_attempts_own_kill_after():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0)

    ending.stop(1.0, Reason.INTERRUPTED, 30.0, None)

    assert run_out(ending) == {Stage.TERMINATED: 31.0, Stage.KILLED: 36.0}


def test_a_stop_of_no_patience_kills_at_once():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0)

    ending.stop(1.0, Reason.CANCELLED, 0.0, 0.0)

    assert run_out(ending) == {Stage.KILLED: 1.0} | {Stage.TERMINATED: 1.0}


def test_a_second_stop_shortens():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0)
    ending.stop(0.0, Reason.INTERRUPTED, 30.0, None)

    ending.stop(2.0, Reason.INTERRUPTED, 0.0, 1.0)

    assert run_out(ending) == {Stage.TERMINATED: 2.0, Stage.KILLED: 3.0}


def test_a_second_stop_after_the_term_brings_the_kill_forward():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0)
    ending.stop(0.0, Reason.INTERRUPTED, 0.0, None)
    ending.step(0.0)

    ending.stop(1.0, Reason.CANCELLED, 0.0, 0.0)

    assert run_out(ending) == {Stage.KILLED: 1.0}
    assert ending.reason is Reason.INTERRUPTED


def test_the_timeout_comes_first_if_it_is_earlier():
    ending = Ending(now=0.0, timeout=10.0, kill_after=5.0)
    ending.stop(0.0, Reason.INTERRUPTED, 30.0, 30.0)

    assert run_out(ending) == {Stage.TERMINATED: 10.0, Stage.KILLED: 15.0}
    assert ending.reason is Reason.TIMEOUT


def test_leftovers_get_kill_after_and_no_reason():
    ending = Ending(now=0.0, timeout=100.0, kill_after=5.0)

    ending.leave_behind(7.0)

    assert run_out(ending) == {Stage.KILLED: 12.0}
    assert ending.reason is None


@given(
    first=st.tuples(st.floats(0, 50), st.floats(0, 50)),
    wait=st.floats(0, 120),
    second=st.tuples(st.floats(0, 50), st.none() | st.floats(0, 50)),
)
def test_a_second_stop_never_lengthens(first, wait, second):
    def ends(again):
        ending = Ending(now=0.0, timeout=None, kill_after=5.0)
        ending.stop(0.0, Reason.INTERRUPTED, *first)
        times = {}
        while (due := ending.due()) is not None and due <= wait:
            times[ending.step(due)] = due
        if again:
            ending.stop(wait, Reason.CANCELLED, *second)
        return times | run_out(ending)

    once, twice = ends(again=False), ends(again=True)

    assert twice[Stage.TERMINATED] <= once[Stage.TERMINATED]
    assert twice[Stage.KILLED] == pytest.approx(min(once[Stage.KILLED], twice[Stage.KILLED]))
