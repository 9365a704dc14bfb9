"""When a command is sent TERM and KILL, and who is named as the cause."""

from __future__ import annotations

from typing import NamedTuple

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


def test_silence_ends_the_command_and_each_output_begins_it_anew():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0, silence=10.0)

    assert ending.due() == 10.0
    ending.heard(8.0)

    assert ending.step(17.9) is None
    assert run_out(ending) == {Stage.TERMINATED: 18.0, Stage.KILLED: 23.0}
    assert ending.reason is Reason.SILENT


def test_output_after_the_term_does_not_put_off_the_kill():
    ending = Ending(now=0.0, timeout=None, kill_after=5.0, silence=10.0)
    ending.step(10.0)

    ending.heard(12.0)

    assert ending.due() == 15.0


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


class _Asked(NamedTuple):
    """A demand, as a list of all of them has it."""

    at: float
    grace: float
    kill_after: float
    reason: Reason


ASKED = st.builds(
    _Asked,
    at=st.integers(0, 60).map(float),
    grace=st.sampled_from([0.0, 3.0, 30.0]),
    kill_after=st.sampled_from([0.0, 2.0, 5.0, 20.0]),
    reason=st.sampled_from([Reason.CANCELLED, Reason.OUT_OF_MEMORY, Reason.CPU_LIMIT, Reason.OUTPUT_LIMIT]),
)


@given(
    asked=st.lists(ASKED, max_size=5),
    timeout=st.none() | st.integers(1, 60).map(float),
    silence=st.none() | st.integers(1, 60).map(float),
    heard=st.lists(st.integers(0, 60).map(float), max_size=5),
    late=st.sampled_from([0.0, 0.25, 7.0]),
)
def test_of_all_demands_the_earliest_term_gives_the_reason_and_the_earliest_kill_counts(
    asked, timeout, silence, heard, late
):
    ending = Ending(now=0.0, timeout=timeout, kill_after=5.0, silence=silence)
    known = [] if timeout is None else [_Asked(0.0, timeout, 5.0, Reason.TIMEOUT)]
    happens = sorted([*((a.at, a) for a in asked), *((at, None) for at in heard)], key=lambda pair: pair[0])
    last_heard = 0.0
    termed_at = killed_at = None
    for now, what in [*happens, (1000.0, None)]:
        # A worker that is late steps late, and judges by when things were due all the same.
        while (due := ending.due()) is not None and due + late <= now and killed_at is None:
            wanted = [*known]
            if silence is not None:
                wanted.append(_Asked(last_heard, silence, 5.0, Reason.SILENT))
            stage = ending.step(due + late)
            if stage is Stage.TERMINATED:
                termed_at = due
                assert due == min(w.at + w.grace for w in wanted)
                assert ending.reason in {w.reason for w in wanted if w.at + w.grace == due}
                kills = min(w.at + w.grace + w.kill_after for w in wanted)
            else:
                killed_at = due
                assert due == min([kills, *(w.at + w.grace + w.kill_after for w in known)])
        if what is None:
            last_heard = now
            ending.heard(now)
        else:
            known.append(what)
            ending.stop(what.at, what.reason, what.grace, what.kill_after)

    demanded = bool(asked) or timeout is not None or silence is not None
    assert (termed_at is not None) == demanded == (killed_at is not None)
    assert (ending.reason is not None) == demanded
