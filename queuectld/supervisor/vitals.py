"""Readings of worker processes by psutil. They run off the loop: /proc can be slow when a host is in trouble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import psutil

from queuectld.supervisor.plan import Vitals

_LETTERS: Final = {
    psutil.STATUS_RUNNING: "R",
    psutil.STATUS_SLEEPING: "S",
    psutil.STATUS_DISK_SLEEP: "D",
    psutil.STATUS_STOPPED: "T",
    psutil.STATUS_TRACING_STOP: "t",
    psutil.STATUS_ZOMBIE: "Z",
    psutil.STATUS_DEAD: "X",
}


class Subject(NamedTuple):
    """Whom to examine, and how often in a row it was stuck in the kernel before."""

    pid: int
    # psutil's creation time at the first sight of it; None at first.
    created: float | None
    stuck_for: int


class Reading(NamedTuple):
    """A worker's vitals and its process's creation time, by which the next reading knows that it is the same one."""

    vitals: Vitals
    created: float


def examine(subjects: Sequence[Subject]) -> Mapping[int, Reading | None]:
    """Read what is cheap to read of each, by pid; None: that process is gone, or another one has its number."""
    return {subject.pid: _examine(subject) for subject in subjects}


def _examine(subject: Subject) -> Reading | None:
    try:
        process = psutil.Process(subject.pid)
        with process.oneshot():
            created = process.create_time()
            letter = _LETTERS.get(process.status(), "S")
            times = process.cpu_times()
            memory = process.memory_info().rss
        descriptors = process.num_fds() if letter not in "ZX" else 0
    except (psutil.Error, OSError):
        return None
    if subject.created is not None and created != subject.created:
        return None
    stuck_for = subject.stuck_for + 1 if letter == "D" else 0
    return Reading(Vitals(letter, memory, descriptors, times.user + times.system, stuck_for), created)
