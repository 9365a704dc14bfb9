"""How much disk output takes up, and which of it goes: the same accounts in both stores, exact at any time."""

from __future__ import annotations

from contextlib import suppress

import pytest
from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.attempt import Outcome, Reason
from queuectld.domain.policy import Policy
from queuectld.store.base import OutputPlace, Retention
from queuectld.store.sqlite import open_store
from tests.store.driving import NOW, Driver, draft

BLOCK = 4096


class BoomError(Exception):
    pass


NOTHING_KEPT = Retention(finished=0, finished_count=0, deleted=0, events=0, requests=0)


def end(drive, job, ended_at=NOW, **output):
    """Let a job run once and end with so much output; return its token."""
    claimed = drive.claim(job)
    outcome = Outcome(reason=output.pop("reason", Reason.EXITED), ended_at=ended_at, exit_code=0, **output)
    with drive.store.transaction(), drive.store.item():
        drive.store.save_attempt(replace(drive.store.attempt(claimed.token), outcome=outcome))
        step = transitions.settle(claimed, outcome, policy=Policy(), now=NOW, luck=0.0)
        drive.store.save(step.job, was=claimed)
    return claimed.token


def shed(drive, surplus, limit=100):
    with drive.store.transaction():
        return drive.store.shed_output(surplus, limit=limit)


def removed(drive):
    with drive.store.transaction():
        return [(place.seq, place.number) for place in drive.store.removed_output(limit=100)]


@pytest.mark.parametrize(
    ("output", "room"),
    [
        ({}, 0),
        ({"output_bytes": 1}, 2 * BLOCK),
        ({"output_bytes": BLOCK + 1, "output_index": BLOCK + 1}, 4 * BLOCK),
        ({"output_bytes": 3 * BLOCK, "output_missing": 2 * BLOCK}, 2 * BLOCK),
        ({"output_bytes": 2**62}, 2**40),
        ({"output_bytes": 1, "output_missing": 2**62}, BLOCK),
    ],
)
def test_output_counts_as_the_blocks_that_it_and_its_index_take_up(drive, numbered, output, room):
    token = end(drive, numbered[0], **output)

    assert drive.store.kept_output() == room
    assert drive.store.attempt(token).output == room


def test_a_live_attempt_has_no_output_yet(drive, numbered):
    drive.claim(numbered[0])

    assert drive.store.kept_output() == 0


def test_the_oldest_finished_output_goes_first_and_no_more_than_has_to(drive, numbered):
    tokens = [end(drive, job, NOW - index, output_bytes=BLOCK) for index, job in zip(range(4), numbered, strict=False)]

    assert shed(drive, 2 * BLOCK + 1) == 2

    assert removed(drive) == [(3, 1), (4, 1)]
    assert drive.store.kept_output() == 4 * BLOCK
    assert [drive.store.attempt(token).output_removed for token in tokens] == [False, False, True, True]
    assert drive.store.attempt(tokens[3]).outcome.output_bytes == BLOCK


def test_output_goes_in_steps_and_when_nothing_is_left_nothing_goes(drive, numbered):
    for job in numbered[:5]:
        end(drive, job, output_bytes=1)

    assert [shed(drive, 10**9, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert drive.store.kept_output() == 0


def test_nothing_goes_where_nothing_is_too_much(drive, numbered):
    end(drive, numbered[0], output_bytes=1)

    assert shed(drive, 0) == shed(drive, -5) == 0


def test_files_are_remembered_until_they_are_gone(drive, numbered):
    end(drive, numbered[0], output_bytes=1)
    shed(drive, 1)

    with drive.store.transaction():
        drive.store.forget_output([OutputPlace(1, 1), OutputPlace(9, 9)])

    assert removed(drive) == []


def test_output_of_a_job_that_retention_took_away_goes_too_and_is_not_counted_any_more(drive, numbered):
    end(drive, numbered[0], output_bytes=1)
    end(drive, numbered[1])
    end(drive, numbered[2], reason=Reason.EXITED, output_unknown=True)
    end(drive, numbered[3], NOW - 1, output_bytes=1)
    shed(drive, 1)
    with drive.store.transaction():
        drive.store.forget_output([OutputPlace(4, 1)])

    drive.expire(NOTHING_KEPT, now=NOW + 1)

    assert removed(drive) == [(1, 1), (3, 1)]
    assert drive.store.kept_output() == 0


def test_what_a_lost_worker_left_is_measured_once(drive, numbered):
    token = end(drive, numbered[0], output_unknown=True)
    with drive.store.transaction():
        (place,) = drive.store.unmeasured_output(limit=9)
        drive.store.note_output(token, 5000)
        drive.store.note_output(token, 1)
        drive.store.note_output(77, 1)
        left = drive.store.unmeasured_output(limit=9)

    assert place == OutputPlace(1, 1, token)
    assert list(left) == []
    assert drive.store.kept_output() == 2 * BLOCK
    assert shed(drive, 1) == 1


def test_a_failed_step_is_not_counted(drive, numbered):
    end(drive, numbered[0], output_bytes=1)

    with suppress(BoomError), drive.store.transaction():
        drive.store.shed_output(1, limit=9)
        raise BoomError
    with drive.store.transaction(), suppress(BoomError), drive.store.item():
        drive.store.shed_output(1, limit=9)
        raise BoomError

    assert drive.store.kept_output() == 2 * BLOCK
    assert removed(drive) == []


def test_the_sum_is_as_exact_after_a_crash_as_before(tmp_path):
    drive = Driver(open_store(tmp_path / "queue.db"))
    for job in drive.add(draft("a"), draft("b")):
        end(drive, job, output_bytes=1)
    shed(drive, 1)
    # Nobody closes it.
    crashed = Driver(open_store(tmp_path / "queue.db"))

    assert crashed.store.kept_output() == 2 * BLOCK
    assert removed(crashed) == [(1, 1)]
    crashed.store.close()
    drive.store.close()
