"""A job: what was asked for, and where it stands. Immutable: a step of its life makes a new one."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from queuectld.domain.attempt import Reason
from queuectld.domain.spec import JobSpec


class State(StrEnum):
    """Where a job stands. The last one is never shown: a discarded job hides there until it is purged."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    DELETED = "deleted"


VISIBLE = tuple(state for state in State if state is not State.DELETED)
# Nothing happens to these by itself any more.
FINAL = frozenset({State.COMPLETED, State.DEAD, State.CANCELLED})
# These wait to be claimed.
WAITING = frozenset({State.PENDING, State.FAILED})


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it is stored. Times are wall clock, in seconds since the epoch."""

    # Position in the store; 0 before it has one. Never reused.
    seq: int
    id: str
    # What it asks for, without ``id``, ``env``'s captured part, ``stdin`` and ``script`` (see the digests).
    spec: JobSpec
    owner: str
    created_at: float
    updated_at: float
    # Not before this.
    due: float
    # Its place in the order of its queue: smaller is sooner.
    rank: float
    state: State = State.PENDING
    # Why it is dead or cancelled, or how its last attempt ended.
    reason: Reason | None = None
    # Blobs in the store: the captured environment, standard input, script.
    environment: str | None = None
    stdin: str | None = None
    script: str | None = None
    # Attempts ever started; only grows.
    attempts: int = 0
    # Of the present budget.
    retries_spent: int = 0
    # Attempts lost one after the other; a command that kills its worker every time is poison.
    losses: int = 0
    # First start within the present budget.
    first_started_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    # The live attempt.
    token: int | None = None
    # A person asked for its end while it ran: why.
    cancel_requested: str | None = None
    # A final failure that somebody has taken notice of.
    seen: bool = False
    # Counts saves; a save names the one that it replaces.
    version: int = 0

    @property
    def queue(self) -> str:
        """The queue that it waits in."""
        return self.spec.queue

    @property
    def priority(self) -> int:
        """Larger is sooner."""
        return self.spec.priority
