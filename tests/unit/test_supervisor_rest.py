"""How long a worker rests when its host can start nothing, and what is tried when an end cannot be recorded."""

from __future__ import annotations

from itertools import accumulate

from queuectld.domain.attempt import Outcome, Reason
from queuectld.errors import DiskFullError
from queuectld.supervisor.endings import next_rest, next_try

TOLD = Outcome(reason=Reason.EXITED, exit_code=0, ended_at=1.0)


def test_each_rest_is_twice_the_one_before_up_to_half_a_minute():
    rests = list(accumulate(range(7), lambda last, _: next_rest(last), initial=next_rest(0.0)))

    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_an_end_is_tried_again_as_it_is_while_the_store_cannot_take_any():
    assert next_try(TOLD, DiskFullError(), now=5.0) == TOLD


def test_an_end_that_no_store_can_hold_is_recorded_as_unknown_and_that_only_once():
    refused = OverflowError("Python int too large to convert to SQLite INTEGER")

    unknown = next_try(TOLD, refused, now=5.0)

    assert unknown is not None
    assert (unknown.reason, unknown.ended_at, unknown.exit_code) == (Reason.LOST, 5.0, None)
    assert next_try(unknown, refused, now=6.0) is None
