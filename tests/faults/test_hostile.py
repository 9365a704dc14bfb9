"""A little of each hostile client, job and worker, and of the soak; `python -m tests.faults` does all of it."""

from __future__ import annotations

import math

import pytest

from tests.faults import clients, hostilejobs, impostors, soak
from tests.faults.requests import owed
from tests.faults.suite import clean, tallied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_each_line_that_a_client_sends_is_answered_once_and_others_do_not_notice() -> None:
    clean(tallied(clients.attack, 1000, seed=1, storms=0.05))


@pytest.mark.skipif(hostilejobs.hindrance() is not None, reason=hostilejobs.hindrance() or "")
@pytest.mark.parametrize("cgroups", ["auto", "off"])
def test_whatever_a_job_does_its_end_is_recorded_and_nothing_of_it_stays(cgroups: str) -> None:
    clean(tallied(hostilejobs.attack, 1, long=False, cgroups=cgroups), faults=len(hostilejobs.DEEDS))


def test_strangers_on_the_socket_of_the_workers_change_nothing() -> None:
    tally = clean(tallied(impostors.attack, 1, seed=1))

    assert int(tally.figures["tales told"]) > 0


def test_what_daemon_and_workers_use_is_bounded_under_a_mixed_load() -> None:
    clean(tallied(soak.attack, 12, seed=1), faults=4)


# What the attacks judge by.


def test_an_answer_is_owed_for_each_complete_line_that_is_not_empty() -> None:
    sent = b'{"id":1,"op":"ping"}\n\n  \n{"id":"a"}\nrubbish\n{"id":1,"id":2}\n{"id":true}\n{"id":2'

    due = owed(sent)

    assert due.answers == 5
    assert due.ids == {("integer", 1): 1, ("text", "a"): 1}
    assert due.unsure == 3


@pytest.mark.parametrize(
    ("came", "wrong"),
    [
        (b'{"queuectld":"1"}\n{"id":1,"ok":{}}\n', 0),
        (b'{"queuectld":"1"}\n{"id":1,"event":{}}\n{"id":1,"ok":{}}\n', 0),
        (b'{"queuectld":"1"}\n', 1),
        (b'{"queuectld":"1"}\n{"id":2,"ok":{}}\n', 1),
        (b'{"queuectld":"1"}\n{"id":1,"ok":{}}\n{"id":1,"ok":{}}\n', 1),
        (b'{"queuectld":"1"}\n{"id":1,"error":{"code":"internal","message":"x"}}\n', 1),
        (b'{"queuectld":"1"}\n{"id":1,"ok":{}}\n{"id":1', 1),
        (b'{"queuectld":"1"}\n{"id":null,"ok":{}}\n', 2),
    ],
)
def test_the_judge_of_answers_sees_what_is_missing_doubled_or_malformed(came: bytes, wrong: int) -> None:
    assert len(clients.judge(b'{"id":1,"op":"ping"}\n', came)) == wrong


def test_a_slow_leak_shows_as_a_slope() -> None:
    leak = [soak.Sample(at, 20 + at * 10 / 3600 + at % 2) for at in range(0, 600, 1)]

    assert soak.slope(leak) == pytest.approx(10, abs=0.2)
    assert soak.growing({0: leak}) == pytest.approx(10, abs=0.3)
    assert math.isnan(soak.growing({0: leak[:50]}))
