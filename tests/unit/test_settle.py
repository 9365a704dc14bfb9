from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain import transitions
from queuectld.domain.attempt import NOT_THE_JOBS_FAULT, Reason
from queuectld.domain.job import State
from queuectld.domain.policy import Policy
from queuectld.domain.transitions import Event

NOW = 1000.0


@pytest.fixture(scope="session")
def settle():
    def settle(job, outcome, *, policy=None, now=NOW, luck=0.0, reboot=False):
        return transitions.settle(job, outcome, policy=policy or Policy(), now=now, luck=luck, reboot=reboot)

    return settle


@pytest.fixture
def running(make_job):
    return lambda spec=None, **fields: make_job(State.PROCESSING, spec=spec, **fields)


def test_three_retries_of_base_two_wait_2_4_and_8_seconds_and_then_the_job_is_dead(running, make_outcome, settle):
    job, waits = running(), []
    while True:
        event = settle(job, make_outcome())
        if event.event is Event.BURY:
            break
        waits.append(event.job.due - NOW)
        job = transitions.claim(event.job, token=1, now=NOW).job

    assert waits == [2.0, 4.0, 8.0]
    assert (event.job.state, event.job.attempts, event.job.retries_spent) == (State.DEAD, 4, 3)
    assert (event.job.reason, event.job.exit_code, event.job.error) == (Reason.EXITED, 1, "exit code 1")
    assert event.job.seen is False


def test_success_is_what_the_job_calls_success(running, make_outcome, settle):
    wants_three = running({"success_codes": (0, 3)})

    assert settle(wants_three, make_outcome(exit_code=3)).event is Event.COMPLETE
    assert settle(wants_three, make_outcome(exit_code=0)).event is Event.COMPLETE
    assert settle(wants_three, make_outcome(exit_code=1)).event is Event.RETRY


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.EXITED])
def test_exit_code_0_is_no_success_where_the_command_did_not_exit(reason, running, make_outcome, settle):
    assert settle(running(), make_outcome(reason, exit_code=0)).event is not Event.COMPLETE


def test_a_completed_job_keeps_no_error_and_no_token(running, make_outcome, settle):
    job = settle(running(losses=2), make_outcome(exit_code=0, message="a warning on stderr")).job

    assert (job.error, job.token, job.losses, job.exit_code, job.ended_at) == (None, None, 0, 0, 10.0)


def test_a_stored_cancel_wins_over_failure_and_loss(running, make_outcome, settle):
    cancelled = running(cancel_requested="enough")

    for outcome in (make_outcome(), make_outcome(Reason.LOST), make_outcome(Reason.INTERRUPTED)):
        step = settle(cancelled, outcome)
        assert (step.event, step.job.reason, step.job.error) == (Event.CANCEL, Reason.CANCELLED, "enough")
        assert step.job.cancel_requested is None
        assert step.job.retries_spent == 0


def test_a_stored_cancel_does_not_win_over_success(running, make_outcome, settle):
    step = settle(running(cancel_requested="enough"), make_outcome(exit_code=0))

    assert (step.event, step.job.cancel_requested) == (Event.COMPLETE, None)


@pytest.mark.parametrize("reason", sorted(NOT_THE_JOBS_FAULT))
def test_what_is_not_the_jobs_fault_spends_no_retry_and_keeps_its_place(reason, running, make_outcome, settle):
    job = running(retries_spent=1)

    step = settle(job, make_outcome(reason))

    assert (step.event, step.job.state) == (Event.REQUEUE, State.PENDING)
    assert step.job.retries_spent == 1
    assert (step.job.due, step.job.rank) == (job.due, job.rank)


@pytest.mark.parametrize(
    ("reason", "pid", "event"),
    [
        (Reason.LOST, 5, Event.BURY),
        (Reason.LOST, None, Event.BURY),
        (Reason.INTERRUPTED, 5, Event.BURY),
        # It never began.
        (Reason.INTERRUPTED, None, Event.REQUEUE),
        (Reason.HOST_ERROR, None, Event.REQUEUE),
    ],
)
def test_a_job_that_must_not_run_twice_is_dead_when_its_attempt_broke_off(
    reason, pid, event, running, make_outcome, settle
):
    step = settle(running({"rerun": "never"}), make_outcome(reason, pid=pid))

    assert (step.event, step.job.reason) == (event, reason)


def test_a_job_that_must_not_run_twice_is_still_retried_after_a_failure(running, make_outcome, settle):
    assert settle(running({"rerun": "never"}), make_outcome()).event is Event.RETRY


def test_the_third_loss_in_a_row_is_poison(running, make_outcome, settle):
    lost = make_outcome(Reason.LOST)

    first = settle(running(), lost)
    second = settle(running(losses=1), lost)
    third = settle(running(losses=2), lost)

    assert [step.event for step in (first, second, third)] == [Event.REQUEUE, Event.REQUEUE, Event.BURY]
    assert [step.job.losses for step in (first, second, third)] == [1, 2, 3]
    assert third.job.reason is Reason.LOST


def test_a_reboot_is_no_sign_against_the_job(running, make_outcome, settle):
    step = settle(running(losses=3), make_outcome(Reason.LOST), reboot=True)

    assert (step.event, step.job.losses) == (Event.REQUEUE, 3)


def test_an_ordinary_failure_ends_the_row_of_losses(running, make_outcome, settle):
    assert settle(running(losses=2), make_outcome()).job.losses == 0


def test_the_bound_on_losses_is_configurable(running, make_outcome, settle):
    assert settle(running(), make_outcome(Reason.LOST), policy=Policy(max_lost=1)).event is Event.BURY


@pytest.mark.parametrize(
    ("no_retry_on", "outcome", "event"),
    [
        ((2,), {"exit_code": 2}, Event.BURY),
        ((2,), {"exit_code": 1}, Event.RETRY),
        (("timeout",), {"reason": Reason.TIMEOUT}, Event.BURY),
        (("timeout",), {"reason": Reason.SIGNALLED, "signal": 9}, Event.RETRY),
        (("not_started", 127), {"reason": Reason.NOT_STARTED, "exit_code": 127}, Event.BURY),
    ],
)
def test_a_job_says_after_what_it_is_not_retried(no_retry_on, outcome, event, running, make_outcome, settle):
    assert settle(running({"no_retry_on": no_retry_on}), make_outcome(**outcome)).event is event


def test_retry_for_goes_by_the_clock_whatever_the_count(running, make_outcome, settle):
    spec = {"retry_for": 60.0, "max_retries": 0}

    early = settle(running(spec, first_started_at=NOW - 59, retries_spent=50), make_outcome())
    late = settle(running(spec, first_started_at=NOW - 60), make_outcome())

    assert (early.event, late.event) == (Event.RETRY, Event.BURY)


def test_a_retry_is_placed_by_due_time_and_priority(running, make_outcome, settle):
    job = settle(running({"priority": 1}), make_outcome()).job

    assert (job.due, job.rank) == (NOW + 2, NOW + 2 - 3600)


@pytest.mark.parametrize("reason", [Reason.SILENT, Reason.OUT_OF_MEMORY, Reason.CPU_LIMIT, Reason.OUTPUT_LIMIT])
def test_a_job_over_its_limits_has_failed_unless_it_says_that_this_is_final(reason, running, make_outcome, settle):
    told_to_end = make_outcome(reason, exit_code=0)

    assert settle(running(), told_to_end).event is Event.RETRY
    assert settle(running({"no_retry_on": (reason.value,)}), told_to_end).event is Event.BURY


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        ({"exit_code": 7, "message": "no such file"}, "exit code 7: no such file"),
        ({"reason": Reason.SIGNALLED, "signal": 11}, "killed by SIGSEGV"),
        (
            {"reason": Reason.NOT_STARTED, "message": "/nowhere: No such file"},
            "could not be started: /nowhere: No such file",
        ),
        ({"reason": Reason.HOST_ERROR}, "host error"),
        ({"reason": Reason.SILENT, "message": "10s without output"}, "silent for too long: 10s without output"),
        ({"reason": Reason.OUT_OF_MEMORY}, "out of memory"),
        ({"reason": Reason.CPU_LIMIT}, "over its cpu limit"),
        ({"reason": Reason.OUTPUT_LIMIT}, "over its output limit"),
    ],
)
def test_the_error_of_a_job_is_one_line_for_people(outcome, line, make_outcome):
    assert transitions.error_line(make_outcome(**outcome)) == line


outcomes = st.fixed_dictionaries(
    {"reason": st.sampled_from(Reason), "exit_code": st.none() | st.integers(0, 255), "ended_at": st.just(NOW)}
)
specs = st.fixed_dictionaries(
    {
        "max_retries": st.none() | st.integers(0, 1_000_000),
        "rerun": st.sampled_from(["always", "never"]),
        "backoff_base": st.none() | st.floats(0, 86400),
        "backoff_max": st.none() | st.floats(0, 1e9),
        "jitter": st.none() | st.floats(0, 1),
    }
)


@given(
    spec=specs,
    outcome=outcomes,
    spent=st.integers(0, 1_000_000),
    losses=st.integers(0, 5),
    luck=st.floats(0, 1, exclude_max=True),
    cancel=st.none() | st.just("why"),
)
def test_whatever_happens_counts_only_grow_and_no_retry_is_due_in_the_past(
    spec, outcome, spent, losses, luck, cancel, make_job, make_outcome, settle
):
    job = make_job(
        State.PROCESSING, spec=spec, attempts=spent + 1, retries_spent=spent, losses=losses, cancel_requested=cancel
    )

    step = settle(job, make_outcome(**outcome), luck=luck)

    assert step.job.attempts == job.attempts
    assert step.job.retries_spent - spent == (step.event is Event.RETRY)
    assert step.job.token is None
    assert step.job.state is not State.PROCESSING
    if step.job.state is State.FAILED:
        longest = Policy().backoff_max if spec["backoff_max"] is None else spec["backoff_max"]
        assert NOW <= step.job.due <= NOW + longest * (1 + (spec["jitter"] or 0)) + 1e-6
    if outcome["reason"] in NOT_THE_JOBS_FAULT:
        assert step.event is not Event.RETRY
