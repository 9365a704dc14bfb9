from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.attempt import Reason
from queuectld.domain.job import FINAL, VISIBLE, WAITING, State
from queuectld.domain.policy import Policy
from queuectld.domain.transitions import NEXT, Event
from queuectld.errors import WrongStateError
from queuectld.protocol.words import FINAL_STATES, REASONS, STATES

# Written down a second time on purpose, in the words of the documentation: (from, event, to).
MOVES = {
    ("pending", "job.started", "processing"),
    ("pending", "job.cancelled", "cancelled"),
    ("processing", "job.completed", "completed"),
    ("processing", "job.failed", "failed"),
    ("processing", "job.dead", "dead"),
    ("processing", "job.requeued", "pending"),
    ("processing", "job.cancelled", "cancelled"),
    ("failed", "job.started", "processing"),
    ("failed", "job.cancelled", "cancelled"),
    ("failed", "job.retried", "failed"),
    ("completed", "job.retried", "pending"),
    ("cancelled", "job.retried", "pending"),
    ("dead", "job.retried", "pending"),
    ("dead", "job.discarded", "deleted"),
    ("deleted", "job.undeleted", "dead"),
}

PAIRS = list(itertools.product(State, Event))


@pytest.fixture
def happen(make_outcome):
    """Make an event happen to a job by the function that is meant for it."""
    policy = Policy()

    def settle(job, outcome):
        return transitions.settle(job, outcome, policy=policy, now=10.0, luck=0.0)

    ways = {
        Event.CLAIM: lambda job: transitions.claim(job, token=7, now=10.0),
        Event.COMPLETE: lambda job: settle(job, make_outcome(exit_code=0)),
        Event.RETRY: lambda job: settle(job, make_outcome()),
        Event.BURY: lambda job: settle(job, make_outcome(Reason.LOST)),
        Event.REQUEUE: lambda job: settle(job, make_outcome(Reason.INTERRUPTED)),
        Event.CANCEL: lambda job: (
            settle(job, make_outcome(Reason.CANCELLED))
            if job.state is State.PROCESSING
            else transitions.cancel(job, why="", now=10.0)
        ),
        Event.REVIVE: lambda job: transitions.revive(job, policy=policy, now=10.0),
        Event.DISCARD: lambda job: transitions.discard(job, now=10.0),
        Event.UNDELETE: lambda job: transitions.undelete(job, now=10.0),
    }
    return lambda event, job: ways[event](job)


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda value: value.name)
def test_every_pair_of_state_and_event_moves_as_documented_or_is_refused(state, event, make_job, happen):
    job = make_job(state, losses=2)
    after = next((to for was, what, to in MOVES if (was, what) == (state, event)), None)

    if after is None:
        with pytest.raises(WrongStateError, match=f"'a' is {state}"):
            happen(event, job)
    else:
        step = happen(event, job)
        assert (step.job.state, step.event, step.job.updated_at) == (after, event, 10.0)


def test_the_table_is_the_documented_one():
    assert {(was, event, to) for was, moves in NEXT.items() for event, to in moves.items()} == MOVES


def test_every_state_but_pending_can_be_reached_and_each_can_be_left():
    reached = {to for _, _, to in MOVES}

    assert reached == set(State)
    assert set(NEXT) == set(State)
    assert all(NEXT.values())


def test_the_words_of_the_protocol_are_those_of_the_domain():
    assert tuple(VISIBLE) == STATES
    assert set(FINAL_STATES) == FINAL
    assert tuple(Reason) == REASONS
    assert {State.PENDING, State.FAILED} == WAITING


def test_a_step_leaves_the_job_that_it_started_from_alone(make_job):
    job = make_job()

    step = transitions.claim(job, token=7, now=10.0)

    assert (job.state, job.attempts, job.token) == (State.PENDING, 0, None)
    assert (step.job.attempts, step.job.token, step.job.started_at, step.job.ended_at) == (1, 7, 10.0, None)


def test_the_first_start_of_a_budget_is_kept(make_job):
    first = transitions.claim(make_job(), token=1, now=10.0).job
    again = transitions.claim(make_job(State.FAILED, first_started_at=10.0, attempts=1), token=2, now=50.0).job

    assert first.first_started_at == 10.0
    assert (again.first_started_at, again.started_at, again.attempts) == (10.0, 50.0, 2)


def test_a_running_job_is_not_cancelled_but_asked_to_end(make_job):
    running = make_job(State.PROCESSING)

    with pytest.raises(WrongStateError, match="its attempt has to end first"):
        transitions.cancel(running, why="", now=10.0)
    asked = transitions.request_cancel(running, why="not needed", now=10.0)

    assert (asked.state, asked.cancel_requested) == (State.PROCESSING, "not needed")


@pytest.mark.parametrize("state", [state for state in State if state is not State.PROCESSING])
def test_only_a_running_job_can_be_asked_to_end(state, make_job):
    with pytest.raises(WrongStateError):
        transitions.request_cancel(make_job(state), why="", now=10.0)


def test_a_waiting_job_that_is_cancelled_says_why(make_job):
    step = transitions.cancel(make_job(), why="wrong file", now=10.0)

    assert (step.job.reason, step.job.error, step.job.ended_at) == (Reason.CANCELLED, "wrong file", 10.0)


@pytest.mark.parametrize("state", [State.DEAD, State.CANCELLED, State.COMPLETED])
def test_what_is_brought_back_has_a_fresh_budget_and_its_whole_history(state, make_job):
    job = make_job(
        state, attempts=4, retries_spent=3, losses=2, first_started_at=1.0, seen=True, error="x", reason=Reason.EXITED
    )

    revived = transitions.revive(job, policy=Policy(), now=10.0).job

    assert (revived.retries_spent, revived.losses, revived.first_started_at) == (0, 0, None)
    assert (revived.attempts, revived.due, revived.seen, revived.error, revived.reason) == (4, 10.0, False, None, None)


def test_a_failed_job_that_is_retried_at_once_keeps_what_it_has_spent(make_job):
    job = make_job(State.FAILED, attempts=2, retries_spent=1, first_started_at=1.0, due=500.0)

    revived = transitions.revive(job, policy=Policy(), now=10.0).job

    assert (revived.retries_spent, revived.first_started_at, revived.due) == (1, 1.0, 10.0)


def test_a_retry_can_be_put_off(make_job):
    revived = transitions.revive(make_job(State.DEAD, spec={"priority": 2}), policy=Policy(), now=10.0, due=99.0).job

    assert (revived.due, revived.rank) == (99.0, 99.0 - 7200)


def test_what_was_discarded_comes_back_as_it_was(make_job):
    dead = make_job(State.DEAD, attempts=4, reason=Reason.EXITED, error="exit code 1", seen=True)

    back = transitions.undelete(transitions.discard(dead, now=10.0).job, now=20.0).job

    assert back == replace(dead, updated_at=20.0)
