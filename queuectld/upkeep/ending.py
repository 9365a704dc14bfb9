"""Ending all that a daemon which is gone has left: workers of a state directory, and what they run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from queuectld.errors import StoreError
from queuectld.supervisor.groups import find_groups
from queuectld.supervisor.kept import KeptProcesses
from queuectld.worker import procfs
from queuectld.worker.options import store_served_by

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.005


def end_all(state: Path, stores: Iterable[str]) -> tuple[int, int]:
    """End every worker of a state directory and every process of an attempt of these stores, or of theirs, by force.

    What attempts left running on purpose is spared. Return how many workers and how many other processes it was.
    Raises `StoreError` if something does not die.
    """
    if (mark := os.environb.get(procfs.MARKER_VARIABLE.encode())) is not None:
        raise StoreError(
            f"this runs within a job ({mark.decode(errors='replace')}), which would have to be ended first"
        )
    served = {
        process: store
        for process in procfs.processes()
        if process.alive and (store := store_served_by(process.pid, str(state)))
    }
    workers = frozenset(process.pid for process in served)
    groups = {store: find_groups(store, wanted=False) for store in {*stores, *served.values()}}
    kept = {store: KeptProcesses(state, store, procfs.boot_id(), its) for store, its in groups.items()}
    # A worker that stands still reports nothing, starts nothing, and keeps all that it started below it.
    _signal_all(served, signal.SIGSTOP)
    try:
        others = _end_others(workers, kept)
    except StoreError:
        # The next daemon finds them as they were, and they it.
        _signal_all(served, signal.SIGCONT)
        raise
    _signal_all(served, signal.SIGKILL)
    others += _end_others(frozenset(), kept)
    for store, its in groups.items():
        its.sweep(live=kept[store].tokens(), workers=(), spared=kept[store].spared().pids)
        # No daemon of this store may come that would do it.
        its.close()
    return len(workers), others


def _signal_all(processes: Iterable[procfs.Stat], number: int) -> None:
    for process in processes:
        procfs.signal_process(process.pid, process.start, number)


def _end_others(workers: frozenset[int], kept: dict[str, KeptProcesses]) -> int:
    ended: set[int] = set()
    until, quiet = time.monotonic() + _PATIENCE, 0
    while quiet < 2:
        found = _doomed(workers, kept)
        for process in found:
            procfs.signal_process(process.pid, process.start, signal.SIGKILL)
        ended |= {process.pid for process in found}
        quiet = 0 if found else quiet + 1
        if found and time.monotonic() > until:
            names = ", ".join(f"{process.pid} {process.name}" for process in found)
            raise StoreError(f"these processes of jobs do not die: {names}; the queue is as it was")
        time.sleep(_PAUSE if found else 0)
    return len(ended)


def _doomed(workers: frozenset[int], kept: dict[str, KeptProcesses]) -> Sequence[procfs.Stat]:
    foreign = workers | {os.getpid()}
    living = [process for process in procfs.processes() if process.alive and process.pid not in foreign]
    marks = {process.pid: procfs.marker(process.pid) for process in living}
    ours = tuple(f"{store}/".encode() for store in kept)
    marked = {pid for pid, mark in marks.items() if mark and mark.startswith(ours)}
    spared = [its.spared(living) for its in kept.values()]
    let_be = {pid for one in spared for pid in one.pids}
    let_be |= {pid for one in spared for pid in marked if marks[pid] in one.markers}
    doomed = procfs.family(workers | marked, living) - procfs.family(let_be, living)
    return [process for process in living if process.pid in doomed]
