"""What a worker left running when it died: found and ended, until nothing is left.

Only looking and killing runs in a thread, not the waiting: what cannot be killed for days would hold one up so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from queuectld.worker import procfs

# Between two looks, while something is still dying: at first short, since most die at once, then patient.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.5
# What is alive after so many rounds, a few seconds, cannot be killed: it hangs in the kernel, or is being traced.
_STUBBORN: Final = 20


class Remains(NamedTuple):
    """The attempt of a dead worker."""

    # ``<store uuid>/<token>``, as in the environment of its processes.
    marker: str
    # The command's session leader, as far as it was reported.
    pid: int | None
    pid_start: int | None


class Household:
    """The processes that the daemon knows as its own. What else turns up as its child fled from a dead worker."""

    def __init__(self) -> None:
        # Held while a worker is started and while orphans are looked for: a worker between its fork and its
        # registration must not be taken for an orphan.
        self.lock = threading.Lock()
        # What was our child before we had any, as that of a shell which became us by `exec`, is none of our business.
        self.known: set[int] = {process.pid for process in procfs.processes() if process.ppid == os.getpid()}


async def end_remains(remains: Remains, household: Household, report: Callable[[str], None]) -> list[str]:
    """End everything in the kill set: unknown children of ours, the session, the marked; return what it was.

    Returns when two looks in a row found nothing alive. `report` is told, once, what does not die. Raises `OSError` if
    the host cannot even be looked at; to ask again loses nothing.
    """
    ended: dict[int, str] = {}
    pause, rounds, quiet = _FIRST_PAUSE, 0, 0
    while quiet < 2:
        found = await asyncio.to_thread(_kill_round, remains, household)
        ended |= {process.pid: f"{process.pid} {process.name}" for process in found}
        quiet = 0 if found else quiet + 1
        rounds += 1
        if found:
            if rounds == _STUBBORN:
                report(", ".join(f"{process.pid} {process.name} ({process.state})" for process in found))
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    return list(ended.values())


def _kill_round(remains: Remains, household: Household) -> list[procfs.Stat]:
    with household.lock:
        found = [process for process in _kill_set(remains, household.known) if process.alive]
        for process in found:
            with contextlib.suppress(PermissionError):
                procfs.signal_process(process.pid, process.start, signal.SIGKILL)
        return found


def _kill_set(remains: Remains, known: set[int]) -> list[procfs.Stat]:
    me = os.getpid()
    marked = set(procfs.marked(remains.marker.encode()))
    others = [process for process in procfs.processes() if process.pid != me and process.pid not in known]
    session = _session(remains, others)
    found = {
        process.pid: process
        for process in others
        if process.ppid == me or process.pid in marked or (session is not None and process.session == session)
    }
    # A child of the doomed is doomed too, even if it has a session of its own and no marker: once its parent is gone
    # it could only be told from a stranger if it came to us.
    while more := [process for process in others if process.ppid in found and process.pid not in found]:
        found |= {process.pid: process for process in more}
    return list(found.values())


def _session(remains: Remains, others: list[procfs.Stat]) -> int | None:
    """The session of the command, unless its number is somebody else's by now.

    As long as a session has members, its number is not given out again: no leader is as good as the right one.
    """
    if remains.pid is None:
        return None
    leader = next((process for process in others if process.pid == remains.pid), None)
    return remains.pid if leader is None or leader.start == remains.pid_start else None
