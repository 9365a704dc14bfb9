"""The daemon at one moment, as far as it is not counted, and the samples that it comes to together with the counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from queuectld.domain.job import VISIBLE, State
from queuectld.figures.counts import Counts
from queuectld.figures.text import Sample, Samples

PHASES: Final = ("starting", "idle", "running", "awaited", "stopping")


class Holdings(NamedTuple):
    """What the store knows: mappings are by queue, declared ones among them; times are wall clock, in seconds."""

    jobs: Mapping[str, Mapping[State, int]]
    unseen: Mapping[str, int]
    # When the next job was due, of those that could start.
    first_due: Mapping[str, float]
    # The same for those whose time nobody has looked at yet, over all queues.
    next_due: float | None


class Footprint(NamedTuple):
    """What the daemon takes up on its host: bytes, seconds of CPU, open files. None: nobody can tell."""

    database: int | None
    log: int | None
    disk_free: int | None
    disk_size: int | None
    cpu_seconds: float
    memory: int
    open_files: int
    most_files: int


class Build(NamedTuple):
    """Versions of what runs."""

    version: str
    python: str
    sqlite: str


class Picture(NamedTuple):
    """What the loop knows. Times are seconds, ``now`` and ``started_at`` wall clock."""

    build: Build
    now: float
    started_at: float
    healthy: bool
    ready: bool
    draining: bool
    stuck: bool
    disk_full: bool
    problems: int
    lag: float
    max_lag: float
    stalls: int
    connections: int
    # The phase of each worker.
    workers: tuple[str, ...]
    limit: int
    asked: int
    answered: int
    output: int


def of_loop(counts: Counts, picture: Picture) -> Samples:
    """Return what is counted and what the loop knows, as it is now: copies, which nothing changes any more."""
    workers = dict.fromkeys(PHASES, 0)
    for phase in picture.workers:
        workers[phase] += 1
    requests = [((op, result), number) for (op, result), number in counts.requests()]
    return _single(_of_picture(picture) | _of_config(counts)) | {
        "queuectl_build_info": [(tuple(picture.build), 1)],
        "queuectl_jobs_enqueued_total": list(counts.of_queues("job.enqueued")),
        "queuectl_attempts_started_total": list(counts.of_queues("job.started")),
        "queuectl_attempts_ended_total": list(counts.ends()),
        "queuectl_retries_total": list(counts.of_queues("job.failed")),
        "queuectl_dead_letters_total": list(counts.of_queues("job.dead")),
        "queuectl_job_waiting_seconds": list(counts.waiting()),
        "queuectl_job_running_seconds": list(counts.running()),
        "queuectl_events_total": list(counts.events()),
        "queuectl_workers": [((phase,), number) for phase, number in workers.items()],
        "queuectl_worker_events_total": list(counts.workers()),
        "queuectl_store_commit_seconds": [((), counts.commits)],
        "queuectl_requests_total": requests,
    }


def _of_picture(picture: Picture) -> dict[str, float]:
    return {
        "start_timestamp_seconds": picture.started_at,
        "healthy": picture.healthy,
        "ready": picture.ready,
        "draining": picture.draining,
        "problems": picture.problems,
        "workers_limit": picture.limit,
        "store_writes_total": picture.answered,
        "store_writes_waiting": picture.asked - picture.answered,
        "output_bytes": picture.output,
        "disk_full": picture.disk_full,
        "loop_lag_seconds": picture.lag,
        "loop_lag_max_seconds": picture.max_lag,
        "loop_stalls_total": picture.stalls,
        "stuck": picture.stuck,
        "connections": picture.connections,
    }


def _of_config(counts: Counts) -> dict[str, float]:
    read_at = counts.config_read_at
    known = {} if read_at is None else {"config_reload_success_timestamp_seconds": read_at}
    return {"config_reload_successful": counts.config_valid, **known}


def of_store(counts: Counts, holdings: Holdings | None, now: float) -> Samples:
    """Return what the store knows; None: it did not answer."""
    if holdings is None:
        return _single({"store_readable": 0})
    counts.expect(sorted(holdings.jobs))
    jobs: dict[tuple[str, ...], float] = {}
    unseen: dict[tuple[str, ...], float] = {}
    oldest: dict[tuple[str, ...], float] = {}
    for queue, states in holdings.jobs.items():
        label = counts.label(queue)
        for state in VISIBLE:
            key = (label, state.value)
            jobs[key] = jobs.get(key, 0) + states.get(state, 0)
        unseen[label,] = unseen.get((label,), 0) + holdings.unseen.get(queue, 0)
        oldest[label,] = max(oldest.get((label,), 0.0), now - holdings.first_due.get(queue, now))
    return _single({"store_readable": 1, "overdue_seconds": overdue(holdings, now)}) | {
        "queuectl_jobs": list(jobs.items()),
        "queuectl_dead_letters_unseen": list(unseen.items()),
        "queuectl_oldest_waiting_seconds": list(oldest.items()),
    }


def overdue(holdings: Holdings, now: float) -> float:
    """Return for how many seconds a job has been due that did not start."""
    due = [*holdings.first_due.values(), now if holdings.next_due is None else holdings.next_due]
    return max(0.0, now - min(due))


def of_host(footprint: Footprint) -> Samples:
    """Return what the daemon takes up."""
    sizes = {
        "database_bytes": footprint.database,
        "wal_bytes": footprint.log,
        "disk_free_bytes": footprint.disk_free,
        "disk_size_bytes": footprint.disk_size,
    }
    known = {name: size for name, size in sizes.items() if size is not None}
    process = {
        "process_cpu_seconds_total": footprint.cpu_seconds,
        "process_resident_memory_bytes": footprint.memory,
        "process_open_fds": footprint.open_files,
        "process_max_fds": footprint.most_files,
    }
    return _single({**known, **process})


def _single(values: Mapping[str, float]) -> dict[str, list[Sample]]:
    return {f"queuectl_{name}": [((), value)] for name, value in values.items()}
