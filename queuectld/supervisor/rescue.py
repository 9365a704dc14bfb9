"""What a worker left running when it died: found and ended, until nothing is left.

Only looking and killing runs in a thread, not the waiting: what cannot be killed for days would hold one up so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from queuectld.supervisor.groups import Groups, end
from queuectld.supervisor.kept import KeptProcesses
from queuectld.worker import cgroups, procfs

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
    token: int
    # Its process, and when that started.
    worker: tuple[int, int]
    # Whether the command is known to have ended, so that what it was to leave behind is kept.
    ended: bool


class Household:
    """The processes that the daemon knows as its own. What else turns up as its child fled from a dead worker."""

    def __init__(self, known: Iterable[int] | None = None) -> None:
        """`known` are children of ours that did not flee to us; without it all that there are by now."""
        # Held while a worker is started and while orphans are looked for: a worker between its fork and its
        # registration must not be taken for an orphan.
        self.lock = threading.Lock()
        # What was our child before we had any, as that of a shell which became us by `exec`, is none of our business.
        self.known: set[int] = set(_children() if known is None else known)


def _children() -> Iterator[int]:
    return (process.pid for process in procfs.processes() if process.ppid == os.getpid())


class Host(NamedTuple):
    """Where processes are looked for, and which are left alone."""

    household: Household
    groups: Groups
    kept: KeptProcesses


async def end_remains(remains: Remains, host: Host, report: Callable[[str], None]) -> list[str]:
    """End all of the kill set: its cgroups, unknown children of ours, the session, the marked; return what it was.

    What is kept of other attempts is none of it. Returns when two looks in a row found nothing alive. `report` is told,
    once, what does not die. Raises `OSError` if the host cannot even be looked at; to ask again loses nothing.
    """
    ended: dict[int, str] = {}
    pause, rounds, quiet = _FIRST_PAUSE, 0, 0
    if not remains.ended:
        host.kept.drop(remains.token)
    while quiet < 2:
        found, populated = await asyncio.to_thread(_kill_round, remains, host)
        ended |= {process.pid: f"{process.pid} {process.name}" for process in found}
        quiet = 0 if found or populated else quiet + 1
        rounds += 1
        if found or populated:
            if rounds == _STUBBORN:
                names = ", ".join(f"{process.pid} {process.name} ({process.state})" for process in found)
                report(names or "processes of its cgroup that are not to be seen here")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    for directory in _directories(remains, host.groups):
        cgroups.remove(directory)
    return list(ended.values())


def _directories(remains: Remains, groups: Groups) -> list[str]:
    return [*groups.all_of_worker(*remains.worker), *groups.all_of_attempt(remains.token)]


def _kill_round(remains: Remains, host: Host) -> tuple[list[procfs.Stat], bool]:
    """Kill what is there; return it, and whether anything was in the cgroups, which may be more than can be seen."""
    with host.household.lock:
        processes = list(procfs.processes())
        spared = host.kept.spared(processes)
        directories = _directories(remains, host.groups)
        fenced = {pid for directory in directories for pid in cgroups.members(directory)}
        foreign = spared.pids | host.household.known | {os.getpid()}
        others = [process for process in processes if process.pid not in foreign]
        session = _session(remains, processes)
        found = [process for process in _kill_set(remains, others, session, fenced, spared.markers) if process.alive]
        # At one stroke, so that nothing gets away by forking.
        populated = [directory for directory in directories if end(directory, spared.pids)]
        for process in found:
            with contextlib.suppress(PermissionError):
                procfs.signal_process(process.pid, process.start, signal.SIGKILL)
        return found, bool(populated)


def _kill_set(
    remains: Remains, others: list[procfs.Stat], session: int | None, fenced: set[int], kept: Collection[bytes]
) -> list[procfs.Stat]:
    me = os.getpid()
    doomed = fenced | set(procfs.marked(remains.marker.encode()))
    found = {
        process.pid
        for process in others
        if process.ppid == me or process.pid in doomed or (session is not None and process.session == session)
    }
    if kept:
        found = {pid for pid in found if procfs.marker(pid) not in kept}
    # A child of the doomed is doomed too, even if it has a session of its own and no marker: once its parent is gone
    # it could only be told from a stranger if it came to us.
    found = procfs.family(found, others)
    return [process for process in others if process.pid in found]


def _session(remains: Remains, processes: list[procfs.Stat]) -> int | None:
    """The session of the command, unless its number is somebody else's by now.

    As long as a session has members, its number is not given out again: no leader is as good as the right one.
    """
    if remains.pid is None:
        return None
    leader = next((process for process in processes if process.pid == remains.pid), None)
    return remains.pid if leader is None or leader.start == remains.pid_start else None
