"""How often a job is tried and how long it waits in between: what it says itself, else what is configured."""

from __future__ import annotations

import msgspec

from queuectld.domain.job import Job


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says where a job says nothing. Times in seconds."""

    max_retries: int = 3
    backoff_base: float = 2.0
    backoff_max: float = 3600.0
    jitter: float = 0.0
    # How often in a row an attempt may be lost before the job counts as poison.
    max_lost: int = 3
    # One step of priority is worth so much waiting.
    priority_step: float = 3600.0


def rank(due: float, priority: int, step: float) -> float:
    """One static number for the order of a queue: first due, first served; a step of priority is worth `step`."""
    return due - priority * step


def max_retries(job: Job, policy: Policy) -> int:
    """Retries after the first run that its budget holds."""
    asked = job.spec.max_retries
    return policy.max_retries if asked is None else asked


def retries_left(job: Job, policy: Policy) -> int:
    """Retries that it may still spend."""
    return max(0, max_retries(job, policy) - job.retries_spent)


def may_retry(job: Job, policy: Policy, now: float) -> bool:
    """Whether a failure now leaves a retry: by the clock if the job asked for that, else by the count."""
    if job.spec.retry_for is not None:
        began = job.first_started_at if job.first_started_at is not None else now
        return now < began + job.spec.retry_for
    return retries_left(job, policy) > 0


def retry_delay(job: Job, policy: Policy, luck: float) -> float:
    """Seconds until the next try: base ** n for the n-th retry, capped, plus up to `jitter` of itself.

    `luck` lies in [0, 1) and is the caller's randomness.
    """
    base = policy.backoff_base if job.spec.backoff_base is None else job.spec.backoff_base
    longest = policy.backoff_max if job.spec.backoff_max is None else job.spec.backoff_max
    jitter = policy.jitter if job.spec.jitter is None else job.spec.jitter
    try:
        delay = min(base ** (job.retries_spent + 1), longest)
    except OverflowError:
        delay = longest
    return delay + delay * jitter * luck
