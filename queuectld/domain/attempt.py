"""One run of a job: what it was, how it ended, and what it used."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why an attempt ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    # Working directory, user or program: 127, or 126 if it may not be executed.
    NOT_STARTED = "not_started"
    # Its worker vanished.
    LOST = "lost"
    # We stopped it: the daemon was shut down, or the worker.
    INTERRUPTED = "interrupted"
    # The host could not start anything: no memory, no processes, no descriptors.
    HOST_ERROR = "host_error"


# The attempt says nothing about the job: it goes back to the queue, and no retry is spent.
NOT_THE_JOBS_FAULT = frozenset({Reason.LOST, Reason.INTERRUPTED, Reason.HOST_ERROR})


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an attempt ended, as its worker saw it, or as the daemon found it. Times are wall clock, in seconds."""

    reason: Reason
    ended_at: float
    exit_code: int | None = None
    signal: int | None = None
    # The leader of the command's session, if it was started.
    pid: int | None = None
    pid_start: int | None = None
    started_at: float | None = None
    # Seconds of user and system time of the command's tree, as far as it was waited for.
    cpu_seconds: float | None = None
    # Bytes: the largest resident size of one process of the tree.
    peak_memory: int | None = None
    # Bytes written by the command; ``output_missing`` of them were not kept.
    output_bytes: int = 0
    output_missing: int = 0
    # What the command left running when it ended, as ``pid name``; it was ended too.
    leftovers: tuple[str, ...] = ()
    # One line for people: why it did not start, or the last line on stderr.
    message: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a job's history. It is live as long as ``outcome`` is missing."""

    # One increasing number for the whole store: an older one never changes anything.
    token: int
    job: int
    number: int
    worker: str
    # Who runs it, in a form that survives the reuse of process numbers.
    worker_pid: int
    worker_start: int
    boot_id: str
    queued_at: float
    claimed_at: float
    pid: int | None = None
    pid_start: int | None = None
    started_at: float | None = None
    outcome: Outcome | None = None

    @property
    def live(self) -> bool:
        """Whether it still runs, as far as is known."""
        return self.outcome is None
