"""How long a worker rests when its host can start nothing."""

from __future__ import annotations

from itertools import accumulate

from queuectld.supervisor.endings import next_rest


def test_each_rest_is_twice_the_one_before_up_to_half_a_minute():
    rests = list(accumulate(range(7), lambda last, _: next_rest(last), initial=next_rest(0.0)))

    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
