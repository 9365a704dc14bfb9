"""What the daemon answers: one class a reply, or an event of a stream.

Times are texts in ISO 8601, UTC, with ``Z``; spans are seconds. Clients ignore unknown fields of replies, which may
grow.
"""

from __future__ import annotations

from typing import Any

import msgspec

Instant = str


class Done(msgspec.Struct, frozen=True):
    """Nothing to tell but success."""


class Welcomed(msgspec.Struct, frozen=True, kw_only=True):
    """Who you are to the daemon."""

    user: str
    # admin, user, observer, stranger
    role: str


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon lives."""

    version: str
    pid: int
    time: Instant


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """One job that is stored now; ``created`` is false where a resent request met its own first copy."""

    id: str
    state: str
    created: bool
    run_at: Instant | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job of a bulk request that was not stored, by its position, beginning with 0."""

    index: int
    code: str
    message: str
    path: str | None = None


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the jobs of a request, in its order."""

    jobs: tuple[Added, ...]
    refused: tuple[Refused, ...] = ()
    # Lines for people when nothing will happen soon: no workers, many ahead.
    warnings: tuple[str, ...] = ()


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """What lies ready under the key now."""

    jobs: int
    bytes: int


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as clients see it; this much is promised to stay.

    Of somebody else's job there are id, owner, queue, state and times; the rest is null, and ``hidden`` true.
    """

    id: str
    command: str | None
    argv: tuple[str, ...] | None
    state: str
    reason: str | None
    attempts: int | None
    max_retries: int | None
    retries_left: int | None
    queue: str
    priority: int | None
    owner: str
    tags: dict[str, str] | None
    created_at: Instant
    updated_at: Instant
    run_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    duration: float | None
    exit_code: int | None
    signal: int | None
    error: str | None
    # Why it does not run now: not_due, retry_wait, queued, no_workers, cancelling; null if it runs or is over.
    waiting: str | None
    # Whether most of it is not for whoever asked.
    hidden: bool = False


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as clients see it."""

    number: int
    token: int
    worker: str
    pid: int | None
    queued_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    duration: float | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    cpu_seconds: float | None
    peak_memory: int | None
    output_bytes: int
    output_missing: int
    leftovers: tuple[str, ...]
    message: str | None
    # Where its output is, on the daemon's host; null until the first byte. While a limit cuts it, only the first half.
    output_file: str | None = None
    # Whether `retention.output` took its output away.
    output_removed: bool = False


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a job."""

    job: JobView
    # The spec as it was asked for; of the environment only the names, unless the values were asked for.
    spec: dict[str, Any]
    history: tuple[AttemptView, ...]
    # The base of its environment: names only, or with values.
    env: dict[str, str | None] = {}
    # The last lines of the newest attempt's output.
    output_tail: str = ""


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs. ``next`` asks for the one behind it; null means that there is none.

    A page may be short, or empty, and still have a next one: each reads a bounded number of rows.
    """

    jobs: tuple[JobView, ...]
    next: str | None = None


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many match, by state."""

    total: int
    states: dict[str, int]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a changing verb did; with ``dry_run`` what it would have done."""

    # At most 1,000 ids, for a look; ``count`` is the truth.
    jobs: tuple[str, ...]
    count: int
    refused: tuple[Refused, ...] = ()
    # What could not be ended yet, as ``id: why``.
    pending: tuple[str, ...] = ()


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of output; ``b64`` is there instead of ``data`` where it is not UTF-8; ``missing`` bytes precede it."""

    job: str
    attempt: int
    stream: str
    offset: int
    at: Instant
    data: str | None = None
    b64: str | None = None
    missing: int = 0
    # Whether what is missing was kept once, and removed by `retention.output`.
    removed: bool = False


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stood when what was asked came to its end; the fields of its newest attempt."""

    id: str
    state: str
    reason: str | None
    exit_code: int | None
    signal: int | None
    attempts: int
    error: str | None
    # Whether any attempt of it was ever started.
    ran: bool = True


class LogsEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the output: of each job that was asked for, how it stands."""

    jobs: tuple[Finished, ...]
    stopped: bool = False


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a wait: how many came to what was waited for, and the first ones of them, in that order."""

    # At most 1,000, for a look; the events told all, ``count`` and ``states`` count all.
    jobs: tuple[Finished, ...]
    count: int
    states: dict[str, int]
    stopped: bool = False


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process. ``phase``: starting, idle, running, awaited, stopping."""

    name: str
    pid: int
    phase: str
    job: str | None
    attempt: int | None
    since: Instant
    started_at: Instant
    jobs_done: int
    memory: int | None
    descriptors: int | None
    cpu_seconds: float | None


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The pool. ``limit`` bounds it; workers start on demand."""

    limit: int
    workers: tuple[WorkerView, ...]


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a queue are in each state."""

    name: str
    states: dict[str, int]


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """What holds the processes of a job together."""

    # The cgroup below which jobs run; without one, ``reason`` says why.
    cgroup: str | None
    # Those that jobs there are held to.
    controllers: tuple[str, ...]
    reason: str | None


class LoopView(msgspec.Struct, frozen=True, kw_only=True):
    """How the daemon gets on. Seconds by which its last look around came late, and the latest of all."""

    lag: float
    max_lag: float
    # How often it stood still, or something did not move.
    stalls: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the daemon is."""

    version: str
    pid: int
    user: str
    # running, draining
    phase: str
    started_at: Instant
    uptime: float
    socket: str
    state_dir: str
    store: str
    config_file: str | None
    workers: int
    limit: int
    states: dict[str, int]
    queues: tuple[QueueView, ...]
    # Due time of the next job that waits for its time.
    next_due: Instant | None
    # For how many seconds the job has been waiting that is next in its queue; of all queues the longest.
    oldest_waiting: float | None
    # Sentences about what is wrong; empty is healthy.
    problems: tuple[str, ...]
    isolation: Isolation
    loop: LoopView
    connections: int = 0
    # Who keeps the daemon up: systemd, supervisord.
    service_manager: str | None = None


class EventView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. ``gap`` says that older events than this one are gone."""

    number: int
    at: Instant
    event: str
    job: str | None = None
    queue: str | None = None
    owner: str | None = None
    was: str | None = None
    state: str | None = None
    attempt: int | None = None
    worker: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    run_at: Instant | None = None
    by: str | None = None
    # Of somebody else's job: the rest is not told.
    hidden: bool = False
    gap: bool = False


class EventsEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on."""

    next: int
    stopped: bool = False


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration key. ``origin``: default, file, override, environment."""

    key: str
    value: Any
    origin: str
    # The file, variable, or who set it and when.
    source: str | None
    default: Any
    unit: str | None
    meaning: str
    # Whether a change takes effect at once, or only when the daemon starts again.
    live: bool


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration keys by name."""

    settings: tuple[Setting, ...]


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the configuration that was read."""

    config_file: str | None
    # What took effect at once.
    changed: tuple[Setting, ...]
    # Keys whose value takes effect when the daemon starts again, those of earlier reloads among them.
    needs_restart: tuple[str, ...]
    # Keys in the file that an override or the environment hides.
    hidden: tuple[str, ...]


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """A stream was ended."""

    stopped: bool = True
