"""The table of all figures. The text, the documentation and the tests are made from it; nothing else names one.

Units are in the names: seconds, bytes; times that end in ``_timestamp_seconds`` are wall clock since the epoch. What
ends in ``_total``, and every histogram, is counted from the start of the daemon and begins anew with each.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What Prometheus makes of it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One row: `labels` are the names that its samples are told apart by."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"queuectl_{name}_total", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"queuectl_{name}", Kind.GAUGE, text, labels)


def _histogram(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"queuectl_{name}", Kind.HISTOGRAM, text, labels)


_TABLE: Final = (
    # The daemon.
    _gauge("build_info", "Always 1; what runs is in the labels", "version", "python", "sqlite"),
    _gauge("start_timestamp_seconds", "When this daemon began"),
    _gauge("healthy", "1 if the daemon gets on, as /healthz says"),
    _gauge("ready", "1 if the daemon takes jobs, as /readyz says"),
    _gauge("draining", "1 while the daemon is on its way out and starts nothing new"),
    _gauge("problems", "How many problems `queuectl status` names"),
    # Jobs.
    _gauge("jobs", "Jobs in the store", "queue", "state"),
    _gauge("dead_letters_unseen", "Dead jobs that nobody has taken notice of", "queue"),
    _gauge(
        "oldest_waiting_seconds",
        "How long the next job of the queue has been due without being started; 0 if none is due",
        "queue",
    ),
    _gauge(
        "overdue_seconds",
        "The same over all queues, jobs included whose time came while nobody looked for work; 0 if none is due",
    ),
    _counter("jobs_enqueued", "Jobs that were stored", "queue"),
    _counter("attempts_started", "Attempts that were given to a worker", "queue"),
    _counter(
        "attempts_ended",
        "Attempts that are over: why, and the state of the job after that (pending: it runs again, no retry spent)",
        "queue",
        "reason",
        "state",
    ),
    _counter("retries", "Attempts that failed and are tried again", "queue"),
    _counter("dead_letters", "Jobs that failed for good", "queue"),
    _histogram("job_waiting_seconds", "From the time at which an attempt was due to its start", "queue"),
    _histogram(
        "job_running_seconds",
        "From the start of an attempt's command to its end; without a command, from when a worker got it",
        "queue",
    ),
    _counter("events", "What happened, by the names that `queuectl events` shows", "event"),
    # Workers.
    _gauge("workers", "Worker processes", "phase"),
    _gauge("workers_limit", "How many jobs may run at once"),
    _counter(
        "worker_events",
        "What happened to workers: started, failed (could not be started), lost (died by itself), replaced (was sick), "
        "retired (was told to end), ended (is gone, however)",
        "event",
    ),
    # The store.
    _histogram("store_commit_seconds", "How long the disk took to make a commit last"),
    _counter("store_writes", "Pieces of work that the store has done; many share a commit"),
    _gauge("store_writes_waiting", "Pieces of work that the store has not answered yet"),
    _gauge("store_readable", "1 if the store answered in time for this; if not, what it knows is left out"),
    _gauge("database_bytes", "Size of the database without its log"),
    _gauge("wal_bytes", "Size of the database's write-ahead log"),
    _gauge("output_bytes", "What the kept output of finished attempts takes up on disk"),
    _gauge("disk_free_bytes", "Free space of the disk that holds the state"),
    _gauge("disk_size_bytes", "Size of the disk that holds the state"),
    _gauge("disk_full", "1 while new jobs are refused because the disk is full"),
    # Whether it gets on.
    _gauge("loop_lag_seconds", "By how much the last check of the daemon's loop came late"),
    _gauge("loop_lag_max_seconds", "The largest such delay since the start"),
    _counter("loop_stalls", "How often the loop stood still, or something did not move"),
    _gauge("stuck", "1 while something that should move does not: the store, or the claims of jobs"),
    # Clients.
    _gauge("connections", "Clients that are connected"),
    _counter("requests", "Requests that were answered: ok, or the code of the error", "op", "result"),
    # Configuration.
    _gauge("config_reload_successful", "1 if the configuration that was read last is in force, 0 if it was not valid"),
    _gauge("config_reload_success_timestamp_seconds", "When a configuration was last read and taken up"),
    # The process of the daemon. Not `process_…`: node_exporter, which reads the file, has those of its own.
    _counter("process_cpu_seconds", "Time that the daemon spent on a CPU"),
    _gauge("process_resident_memory_bytes", "Memory of the daemon"),
    _gauge("process_open_fds", "Open files of the daemon"),
    _gauge("process_max_fds", "How many files the daemon may open"),
)

# By name, in the order in which they are written.
METRICS: Final[Mapping[str, Metric]] = {metric.name: metric for metric in _TABLE}


def as_markdown() -> str:
    """Return the table for the documentation."""
    rows = (f"| `{metric.name}` | {metric.kind} | {_names(metric)} | {metric.help} |" for metric in _TABLE)
    return "\n".join(("| name | kind | labels | meaning |", "|---|---|---|---|", *rows)) + "\n"


def _names(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)
