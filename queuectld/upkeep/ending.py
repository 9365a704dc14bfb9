"""Ending all that a daemon which is gone has left: workers of a state directory, and what they run."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from queuectld.errors import StoreError
from queuectld.supervisor.groups import find_groups
from queuectld.worker import procfs

_PATIENCE: Final = 10.0
_PAUSE: Final = 0.005
_WORKER: Final = (b"-P", b"-m", b"queuectld.worker", b"--state")


def end_all(state: Path, stores: Iterable[str]) -> tuple[int, int]:
    """End every worker of a state directory and every process of an attempt of these stores, or of theirs, by force.

    What attempts left running on purpose is spared. Return how many workers and how many other processes it was.
    Raises `StoreError` if something does not die.
    """
    workers = {
        process.pid: process for process in procfs.processes() if process.alive and _is_worker(process.pid, state)
    }
    if (mark := os.environb.get(procfs.MARKER_VARIABLE.encode())) is not None:
        raise StoreError(
            f"this runs within a job ({mark.decode(errors='replace')}), which would have to be ended first"
        )
    names = {*stores, *(name for pid in workers if (name := _store_of(pid)))}
    kept = _kept(state)
    # A worker that stands still reports nothing, starts nothing, and keeps all that it started below it.
    for process in workers.values():
        procfs.signal_process(process.pid, process.start, signal.SIGSTOP)
    others = _end_others(workers.keys(), names, kept)
    for process in workers.values():
        procfs.signal_process(process.pid, process.start, signal.SIGKILL)
    others += _end_others((), names, kept)
    for name in names:
        find_groups(name, wanted=False).sweep(live=(), workers=(), spared=_marked(kept))
    return len(workers), others


def _end_others(workers: Iterable[int], stores: Iterable[str], kept: frozenset[bytes]) -> int:
    ended: set[int] = set()
    until, quiet = time.monotonic() + _PATIENCE, 0
    while quiet < 2:
        found = _doomed(frozenset(workers), stores, kept)
        for process in found:
            procfs.signal_process(process.pid, process.start, signal.SIGKILL)
        ended |= {process.pid for process in found}
        quiet = 0 if found else quiet + 1
        if found and time.monotonic() > until:
            names = ", ".join(f"{process.pid} {process.name}" for process in found)
            raise StoreError(f"these processes of jobs do not die: {names}; nothing was changed")
        time.sleep(_PAUSE if found else 0)
    return len(ended)


def _doomed(workers: frozenset[int], stores: Iterable[str], kept: frozenset[bytes]) -> list[procfs.Stat]:
    living = [process for process in procfs.processes() if process.alive and process.pid not in {os.getpid(), *workers}]
    marks = {process.pid: procfs.marker(process.pid) for process in living}
    wanted = tuple(f"{store}/".encode() for store in stores)
    found = {process.pid for process in living if (mark := marks[process.pid]) and mark.startswith(wanted)}
    spared = {process.pid for process in living if marks[process.pid] in kept}
    family = workers | found
    while more := {process.pid for process in living if process.ppid in family} - family:
        family |= more
        found |= more
    while more := {process.pid for process in living if process.ppid in spared} - spared:
        spared |= more
    return [process for process in living if process.pid in found - spared]


def _is_worker(pid: int, state: Path) -> bool:
    words = procfs.command_line(pid)
    return tuple(words[1:6]) == (*_WORKER, os.fsencode(state)) and procfs.owner(pid) == os.geteuid()


def _store_of(pid: int) -> str | None:
    words = procfs.command_line(pid)
    return words[words.index(b"--store") + 1].decode() if b"--store" in words[:-1] else None


def _kept(state: Path) -> frozenset[bytes]:
    """Return the markers of attempts whose leftovers are to live."""
    return frozenset(file.name.replace(".", "/", 1).encode() for file in (state / "kept").glob("*.*"))


def _marked(marks: frozenset[bytes]) -> frozenset[int]:
    return frozenset(process.pid for process in procfs.processes() if procfs.marker(process.pid) in marks)
