from __future__ import annotations

import pytest

from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.domain.job import State
from queuectld.domain.policy import Policy
from queuectld.service.sight import EVERYTHING
from queuectld.service.views import WAITING_WORDS, Lens, attempt_view, iso, job_view, spec_view, waiting


def lens(now=100.0, limit=1):
    return Lens(Policy(), limit, now, EVERYTHING)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1.5, "1970-01-01T00:00:01.500Z"),
        (1.0004, "1970-01-01T00:00:01Z"),
        (1.9996, "1970-01-01T00:00:02Z"),
        (1796115600.125, "2026-12-01T09:00:00.125Z"),
    ],
)
def test_instants_are_iso_and_no_finer_than_they_need_to_be(seconds, text):
    assert iso(seconds) == text


@pytest.mark.parametrize(
    ("state", "fields", "limit", "word"),
    [
        (State.PENDING, {"due": 200.0}, 1, "not_due"),
        (State.FAILED, {"due": 200.0}, 1, "retry_wait"),
        (State.PENDING, {"due": 50.0}, 1, "queued"),
        (State.FAILED, {"due": 50.0}, 1, "queued"),
        (State.PENDING, {"due": 50.0}, 0, "no_workers"),
        (State.PROCESSING, {}, 1, None),
        (State.PROCESSING, {"cancel_requested": ""}, 1, "cancelling"),
        (State.COMPLETED, {}, 1, None),
        (State.DEAD, {}, 1, None),
    ],
)
def test_one_word_says_why_a_job_does_not_run(make_job, state, fields, limit, word):
    assert waiting(make_job(state, **fields), lens(limit=limit)) == word
    assert word is None or word in WAITING_WORDS


def test_the_duration_of_a_running_job_grows(make_job):
    job = make_job(State.PROCESSING, started_at=40.0)

    assert job_view(job, lens(now=100.0)).duration == 60.0


def test_a_clock_that_was_set_back_makes_no_negative_duration(make_job):
    job = make_job(State.COMPLETED, started_at=100.0, ended_at=40.0)

    assert job_view(job, lens()).duration == 0.0


def make_attempt(**fields):
    return Attempt(
        token=7,
        job=1,
        number=2,
        worker="w1",
        worker_pid=10,
        worker_start=1,
        boot_id="b",
        queued_at=1.0,
        claimed_at=2.0,
        **fields,
    )


def test_a_live_attempt_has_no_end():
    attempt = make_attempt(pid=11, started_at=3.0)

    view = attempt_view(attempt)

    assert (view.pid, view.started_at, view.ended_at, view.reason) == (11, iso(3.0), None, None)


def test_an_ended_attempt_tells_what_its_worker_saw():
    outcome = Outcome(reason=Reason.EXITED, ended_at=9.0, exit_code=3, started_at=4.0, output_bytes=5)
    attempt = make_attempt(outcome=outcome)

    view = attempt_view(attempt)

    assert (view.exit_code, view.reason, view.duration, view.output_bytes) == (3, "exited", 5.0, 5)


def test_a_spec_hides_values_of_variables_unless_they_are_asked_for(make_job):
    job = make_job(spec={"env": {"TOKEN": "hush"}})

    assert spec_view(job, with_env=False)["env"] == {"TOKEN": None}
    assert spec_view(job, with_env=True)["env"] == {"TOKEN": "hush"}
