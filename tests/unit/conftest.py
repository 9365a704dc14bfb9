from __future__ import annotations

import pytest

from queuectld.domain.attempt import Outcome, Reason
from queuectld.domain.job import Job, State
from queuectld.domain.spec import JobSpec


@pytest.fixture(scope="session")
def make_job():
    """A job; fields of its spec in `spec`, all others by name."""

    def make(state: State = State.PENDING, *, spec: dict | None = None, **fields):
        wanted = {"seq": 1, "id": "a", "owner": "alice", "created_at": 0.0, "updated_at": 0.0, "due": 0.0, "rank": 0.0}
        if state is State.PROCESSING:
            wanted |= {"token": 1, "attempts": 1, "started_at": 0.0, "first_started_at": 0.0}
        return Job(state=state, spec=JobSpec(**{"command": "true"} | (spec or {})), **wanted | fields)

    return make


@pytest.fixture(scope="session")
def make_outcome():
    """The end of an attempt."""

    def make(reason: Reason = Reason.EXITED, exit_code: int | None = None, **fields):
        if reason is Reason.EXITED and exit_code is None:
            exit_code = 1
        return Outcome(reason=reason, exit_code=exit_code, **{"ended_at": 10.0} | fields)

    return make
