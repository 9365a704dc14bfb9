"""One run of a job: what it was, how it ended, and what it used."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

# What a store can hold. Who reports is a process that any command of the same user could pretend to be.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Seconds since the epoch, before the year 3000.
Moment = Annotated[float, Meta(ge=0, lt=32_503_680_000)]


class Reason(StrEnum):
    """Why an attempt ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMEOUT = "timeout"
    # It wrote nothing for longer than it may.
    SILENT = "silent"
    CANCELLED = "cancelled"
    # Working directory, user or program: 127, or 126 if it may not be executed.
    NOT_STARTED = "not_started"
    # Its own limits, or those of the host's memory: ended by us or by the kernel.
    OUT_OF_MEMORY = "out_of_memory"
    CPU_LIMIT = "cpu_limit"
    OUTPUT_LIMIT = "output_limit"
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
    ended_at: Moment
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None
    # The leader of the command's session, if it was started.
    pid: Count | None = None
    pid_start: Count | None = None
    started_at: Moment | None = None
    # Seconds of user and system time of the command's tree, as far as it was waited for.
    cpu_seconds: Annotated[float, Meta(ge=0, lt=1e12)] | None = None
    # Bytes: the largest resident size of one process of the tree.
    peak_memory: Count | None = None
    # Bytes written by the command; ``output_missing`` of them were not kept.
    output_bytes: Count = 0
    output_missing: Count = 0
    # Bytes of the index beside it.
    output_index: Count = 0
    # Nobody reported how much it was; only the disk can tell.
    output_unknown: bool = False
    # What the command left running when it ended, as ``pid name``; it was ended too, or, with ``(kept)`` behind it, let
    # be.
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
    # Bytes of disk that its output takes up, as the store reckons it; 0: none yet, or none; -1: not known yet; None: it
    # was removed.
    output: int | None = 0

    @property
    def live(self) -> bool:
        """Whether it still runs, as far as is known."""
        return self.outcome is None

    @property
    def output_removed(self) -> bool:
        """Whether there was output, and it was removed since because all together was too much."""
        return self.output is None
