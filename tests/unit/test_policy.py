from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain import policy
from queuectld.domain.policy import Policy


def test_the_job_decides_where_it_says_something_and_the_configuration_where_not(make_job):
    configured = Policy(max_retries=5, backoff_base=3.0)

    assert policy.max_retries(make_job(), configured) == 5
    assert policy.max_retries(make_job(spec={"max_retries": 0}), configured) == 0
    assert policy.retry_delay(make_job(retries_spent=1), configured, 0.0) == 9.0
    assert policy.retry_delay(make_job(spec={"backoff_base": 2.0}, retries_spent=1), configured, 0.0) == 4.0


def test_the_retries_left_never_fall_below_zero(make_job):
    assert policy.retries_left(make_job(retries_spent=3), Policy(max_retries=1)) == 0


@pytest.mark.parametrize("spent", [11, 100, 5000, 1_000_000])
def test_a_long_row_of_retries_waits_for_the_longest_time_and_never_overflows(spent, make_job):
    assert policy.retry_delay(make_job(retries_spent=spent), Policy(), 0.0) == 3600.0


def test_a_base_of_zero_retries_at_once_and_a_base_of_one_every_second(make_job):
    assert policy.retry_delay(make_job(spec={"backoff_base": 0.0}, retries_spent=7), Policy(), 0.0) == 0.0
    assert policy.retry_delay(make_job(spec={"backoff_base": 1.0}, retries_spent=7), Policy(), 0.0) == 1.0


@given(luck=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1), spent=st.integers(0, 100))
def test_jitter_adds_at_most_its_share(luck, jitter, spent, make_job):
    job = make_job(retries_spent=spent)
    bare = policy.retry_delay(job, Policy(), luck)

    delay = policy.retry_delay(job, Policy(jitter=jitter), luck)

    assert bare <= delay <= bare * (1 + jitter) + 1e-9 * bare


def test_retry_for_counts_from_the_first_start(make_job):
    asked = {"retry_for": 10.0}

    assert policy.may_retry(make_job(spec=asked, first_started_at=100.0), Policy(), 109.9)
    assert not policy.may_retry(make_job(spec=asked, first_started_at=100.0), Policy(), 110.0)
    assert policy.may_retry(make_job(spec=asked), Policy(), 1e9)


times = st.floats(0, 4e9)
priorities = st.integers(-1000, 1000)


@given(due=times, later=times, priority=priorities)
def test_of_equal_priority_who_is_due_first_is_first(due, later, priority):
    first, second = sorted((due, later))

    assert policy.rank(first, priority, 3600.0) <= policy.rank(second, priority, 3600.0)


def test_a_step_of_priority_is_worth_its_time_and_no_more():
    urgent = policy.rank(3600.0 + 10.0, 1, 3600.0)

    assert policy.rank(10.5, 0, 3600.0) > urgent
    assert policy.rank(9.5, 0, 3600.0) < urgent
