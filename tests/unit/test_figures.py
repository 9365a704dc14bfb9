"""What is counted, into which samples it goes, and how they are written."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterable
from typing import Any

import pytest

from queuectld.domain.attempt import Reason
from queuectld.domain.job import VISIBLE, State
from queuectld.figures.counts import MOST_QUEUES, OTHER, Counts
from queuectld.figures.histogram import COMMIT, LIFE, Histogram
from queuectld.figures.picture import (
    Build,
    Footprint,
    Holdings,
    Picture,
    of_host,
    of_loop,
    of_store,
    overdue,
)
from queuectld.figures.table import METRICS, Kind
from queuectld.figures.text import Samples, number, render
from queuectld.store.base import Entry

PICTURE = Picture(
    build=Build("1.0.0", "3.11", "3.50"),
    now=1000.0,
    started_at=900.5,
    healthy=True,
    ready=False,
    draining=True,
    stuck=False,
    disk_full=False,
    problems=2,
    lag=0.001,
    max_lag=0.25,
    stalls=0,
    connections=3,
    workers=("idle", "running", "running"),
    limit=4,
    asked=12,
    answered=10,
    output=4096,
)
FOOTPRINT = Footprint(8192, 0, 10**12, 2 * 10**12, 1.5, 2**25, 20, 1024)
HOLDINGS = Holdings(
    jobs={"default": {State.PENDING: 2, State.DEAD: 1}, "idle": {}},
    unseen={"default": 1},
    first_due={"default": 990.0},
    next_due=1060.0,
)


def entry(event: str, *, was: State | None = None, state: State | None = None, **more: Any) -> Entry:
    return Entry(at=0.0, event=event, was=was, state=state, **{"queue": "default", **more})


def values(samples: Samples, name: str) -> dict[tuple[str, ...], Any]:
    return dict(samples[f"queuectl_{name}"])


def everything(counts: Counts) -> Samples:
    counts.config_read(950.0, valid=True)
    stored = of_store(counts, HOLDINGS, 1000.0)
    return {**of_loop(counts, PICTURE), **stored, **of_host(FOOTPRINT)}


# Histograms.


def test_a_bound_belongs_to_its_bucket_and_what_is_above_all_counts_too():
    histogram = Histogram((0.1, 1.0))

    for value in (0.05, 0.1, 0.2, 1.0, 7.0):
        histogram.observe(value)

    assert list(histogram.cumulated()) == [(0.1, 2), (1.0, 4), (math.inf, 5)]
    assert histogram.total == pytest.approx(8.35)


def test_a_clock_that_was_set_back_makes_no_negative_sum():
    histogram = Histogram((0.1,))

    histogram.observe(-3600.0)

    assert list(histogram.cumulated()) == [(0.1, 1), (math.inf, 1)]
    assert histogram.total == 0.0


@pytest.mark.parametrize("bounds", [LIFE, COMMIT])
def test_bounds_ascend(bounds):
    assert list(bounds) == sorted(set(bounds))


# Counts.


def test_attempts_that_ended_are_told_apart_by_reason_and_by_what_became_of_the_job():
    counts = Counts()

    counts.committed(
        [
            entry("job.enqueued", state=State.PENDING),
            entry("job.started", was=State.PENDING, state=State.PROCESSING),
            entry("job.failed", was=State.PROCESSING, state=State.FAILED, reason=Reason.TIMEOUT),
            entry("job.started", was=State.FAILED, state=State.PROCESSING),
            entry("job.dead", was=State.PROCESSING, state=State.DEAD, reason=Reason.TIMEOUT),
            # It did not run.
            entry("job.cancelled", was=State.PENDING, state=State.CANCELLED, reason=Reason.CANCELLED),
            # It goes on.
            entry("job.cancel_requested", was=State.PROCESSING, state=State.PROCESSING),
            Entry(at=0.0, event="config.set"),
        ]
    )

    assert {ends: number for ends, number in counts.ends() if number} == {
        ("default", "timeout", "failed"): 1,
        ("default", "timeout", "dead"): 1,
    }
    assert dict(counts.of_queues("job.started")) == {("default",): 2}
    assert dict(counts.of_queues("job.dead")) == {("default",): 1}
    assert dict(counts.events())["config.set",] == 1
    assert dict(counts.events())["job.cancelled",] == 1


def test_what_was_never_seen_is_shown_as_zero_so_that_the_first_one_is_a_change():
    counts = Counts()

    counts.expect(["default"])

    assert dict(counts.of_queues("job.dead")) == {("default",): 0}
    assert dict(counts.ends()) == {
        ("default", "exited", "completed"): 0,
        ("default", "exited", "failed"): 0,
        ("default", "exited", "dead"): 0,
    }
    assert dict(counts.events())["job.enqueued",] == 0
    assert set(dict(counts.workers()).values()) == {0}


def test_however_many_queues_there_are_the_labels_are_bounded_and_nothing_is_left_out():
    counts = Counts()
    names = [f"q{number}" for number in range(3 * MOST_QUEUES)]

    counts.committed([entry("job.enqueued", queue=name) for name in names])
    for name in names:
        counts.started(name, 0.1)
        counts.ended(name, 0.1)
    enqueued = dict(counts.of_queues("job.enqueued"))
    stored = of_store(counts, HOLDINGS._replace(jobs={name: {State.DEAD: 1} for name in names}), 1000.0)

    assert len(enqueued) == MOST_QUEUES + 1
    assert enqueued[OTHER,] == 2 * MOST_QUEUES
    assert len(list(counts.waiting())) == len(list(counts.running())) == MOST_QUEUES + 1
    assert len(values(stored, "jobs")) == (MOST_QUEUES + 1) * len(VISIBLE)
    assert sum(values(stored, "jobs").values()) == 3 * MOST_QUEUES


def test_a_configuration_that_is_not_valid_leaves_the_time_of_the_last_good_one():
    counts = Counts()

    counts.config_read(5.0, valid=True)
    counts.config_read(9.0, valid=False)

    assert (counts.config_valid, counts.config_read_at) == (False, 5.0)


# Samples.


def test_every_metric_of_the_table_has_samples_and_no_other_has():
    assert set(everything(Counts())) == set(METRICS)


def test_samples_have_the_labels_and_the_kind_of_the_table():
    for name, samples in everything(Counts()).items():
        metric = METRICS[name]
        for labels, measured in samples:
            assert len(labels) == len(metric.labels), name
            assert isinstance(measured, Histogram) == (metric.kind is Kind.HISTOGRAM), name


def test_workers_are_counted_by_phase_and_the_store_by_what_it_owes():
    samples = everything(Counts())

    assert values(samples, "workers") == {
        ("starting",): 0,
        ("idle",): 1,
        ("running",): 2,
        ("awaited",): 0,
        ("stopping",): 0,
    }
    assert values(samples, "store_writes_waiting") == {(): 2}
    assert values(samples, "jobs")["idle", "pending"] == 0
    assert values(samples, "dead_letters_unseen") == {("default",): 1, ("idle",): 0}
    assert values(samples, "oldest_waiting_seconds") == {("default",): 10.0, ("idle",): 0.0}


def test_a_store_that_does_not_answer_is_told_and_what_it_knows_left_out():
    assert dict(of_store(Counts(), None, 1000.0)) == {"queuectl_store_readable": [((), 0)]}


def test_what_cannot_be_measured_is_left_out():
    samples = of_host(FOOTPRINT._replace(log=None, disk_free=None))

    assert "queuectl_wal_bytes" not in samples
    assert "queuectl_disk_free_bytes" not in samples
    assert "queuectl_database_bytes" in samples


@pytest.mark.parametrize(
    ("first_due", "next_due", "expected"),
    [
        ({}, None, 0.0),
        ({"a": 990.0, "b": 995.0}, None, 10.0),
        ({}, 1060.0, 0.0),
        # Nobody looked for work since its time came.
        ({"a": 990.0}, 900.0, 100.0),
        ({"a": 1001.0}, None, 0.0),
    ],
)
def test_the_longest_overdue_is_sought_among_the_startable_and_those_whose_time_has_come(first_due, next_due, expected):
    assert overdue(HOLDINGS._replace(first_due=first_due, next_due=next_due), 1000.0) == expected


# Text.


def test_the_text_is_what_the_format_wants_line_by_line():
    histogram = Histogram((0.5, 1.0))
    histogram.observe(0.75)

    text = render(
        {
            "queuectl_draining": [((), 0)],
            "queuectl_jobs": [(('we"ird\\\n', "dead"), 3), (("ö", "dead"), 2.5)],
            "queuectl_store_commit_seconds": [((), histogram)],
        }
    )

    assert text.splitlines() == [
        "# HELP queuectl_draining 1 while the daemon is on its way out and starts nothing new",
        "# TYPE queuectl_draining gauge",
        "queuectl_draining 0",
        "# HELP queuectl_jobs Jobs in the store",
        "# TYPE queuectl_jobs gauge",
        'queuectl_jobs{queue="we\\"ird\\\\\\n",state="dead"} 3',
        'queuectl_jobs{queue="ö",state="dead"} 2.5',
        "# HELP queuectl_store_commit_seconds How long the disk took to make a commit last",
        "# TYPE queuectl_store_commit_seconds histogram",
        'queuectl_store_commit_seconds_bucket{le="0.5"} 0',
        'queuectl_store_commit_seconds_bucket{le="1"} 1',
        'queuectl_store_commit_seconds_bucket{le="+Inf"} 1',
        "queuectl_store_commit_seconds_sum 0.75",
        "queuectl_store_commit_seconds_count 1",
    ]
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (True, "1"), (0.1, "0.1"), (1e-7, "1e-07"), (2.0**60, "1.152921504606847e+18"), (-math.inf, "-Inf")],
)
def test_numbers_are_written_so_that_nothing_is_lost(value, written):
    assert number(value) == written
    assert float(written) == value


def test_what_the_table_does_not_name_is_refused():
    with pytest.raises(KeyError, match="queuectl_nonsense"):
        render({"queuectl_nonsense": [((), 1)]})


def test_names_and_units_are_as_prometheus_wants_them():
    for metric in METRICS.values():
        assert metric.name.startswith("queuectl_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert not {"le", "quantile", "job", "instance"} & set(metric.labels), "Prometheus has its own"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_promtool_reads_all_of_it_and_has_nothing_to_say():
    counts = Counts()
    counts.answered("enqueue", "disk_full")
    text = render(everything(counts))

    checked = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def total(samples: Iterable[tuple[tuple[str, ...], Histogram]]) -> int:
    return sum(sum(histogram.buckets) for _, histogram in samples)


def test_starts_and_ends_are_timed_by_queue():
    counts = Counts()

    counts.started("a", 0.2)
    counts.started("b", 0.3)
    counts.ended("a", 9.0)

    assert (total(counts.waiting()), total(counts.running())) == (2, 1)
    assert {queue for (queue,), _ in counts.waiting()} == {"a", "b"}
