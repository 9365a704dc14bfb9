"""What a worker left running when it died: found and ended, until nothing is left.

What belongs to an attempt is decided by `kill_set` from a picture of the host, whoever took that. Only looking and
killing runs in a thread, not the waiting: what cannot be killed for days would hold one up so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, NamedTuple

from queuectld.supervisor.groups import Groups, end
from queuectld.supervisor.kept import KeptProcesses, Spared
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
    # As whom it ran, where that is known: others could give the marker to what they start.
    user: int | None = None


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


class Scene(NamedTuple):
    """One look at the host."""

    processes: Sequence[procfs.Stat]
    # The daemon; and those that it knows as its own.
    me: int
    household: Collection[int]
    # What is kept of attempts.
    spared: Spared
    # Who is in the cgroups of the attempt, and whose environment names it.
    fenced: Collection[int]
    marked: Collection[int]
    # What attempt the environment of a process names.
    marker: Callable[[int], bytes | None]


class Round(NamedTuple):
    """What one look found, and killed."""

    found: Sequence[procfs.Stat]
    # Whether anything was in the cgroups, which may be more than can be seen.
    populated: bool


async def end_remains(remains: Remains, host: Host, report: Callable[[str], None]) -> list[str]:
    """End all of the kill set: its cgroups, unknown children of ours, the session, the marked; return what it was.

    What is kept of other attempts is none of it. Raises `OSError` if the host cannot even be looked at; to ask again
    loses nothing. See `until_nothing_is_left`.
    """
    if not remains.ended:
        host.kept.drop(remains.token)
    ended = await until_nothing_is_left(partial(asyncio.to_thread, _kill_round, remains, host), report)
    for directory in _directories(remains, host.groups):
        cgroups.remove(directory)
    return ended


async def until_nothing_is_left(kill: Callable[[], Awaitable[Round]], report: Callable[[str], None]) -> list[str]:
    """Return when two looks in a row found nothing alive, with what was there before.

    `kill` looks, and kills what it finds; `report` is told, once, what does not die.
    """
    ended: dict[int, str] = {}
    pause, rounds, quiet = _FIRST_PAUSE, 0, 0
    while quiet < 2:
        found, populated = await kill()
        ended |= {process.pid: f"{process.pid} {process.name}" for process in found}
        quiet = 0 if found or populated else quiet + 1
        rounds += 1
        if found or populated:
            if rounds == _STUBBORN:
                names = ", ".join(f"{process.pid} {process.name} ({process.state})" for process in found)
                report(names or "processes of its cgroup that are not to be seen here")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    return list(ended.values())


def _directories(remains: Remains, groups: Groups) -> list[str]:
    return [*groups.all_of_worker(*remains.worker), *groups.all_of_attempt(remains.token)]


def _kill_round(remains: Remains, host: Host) -> Round:
    with host.household.lock:
        processes = list(procfs.processes())
        spared = host.kept.spared(processes)
        directories = _directories(remains, host.groups)
        scene = Scene(
            processes=processes,
            me=os.getpid(),
            household=host.household.known,
            spared=spared,
            fenced={pid for directory in directories for pid in cgroups.members(directory)},
            marked=_marked(remains),
            marker=procfs.marker,
        )
        found = kill_set(remains, scene)
        # At one stroke, so that nothing gets away by forking.
        populated = [directory for directory in directories if end(directory, spared.pids)]
        for process in found:
            with contextlib.suppress(PermissionError):
                procfs.signal_process(process.pid, process.start, signal.SIGKILL)
        return Round(found, bool(populated))


def _marked(remains: Remains) -> list[int]:
    found = procfs.marked(remains.marker.encode())
    return found if remains.user is None else [pid for pid in found if remains.user in procfs.users(pid)]


def kill_set(remains: Remains, scene: Scene) -> list[procfs.Stat]:
    """Decide which living processes are left of an attempt."""
    session = _session(remains, scene.processes)
    foreign = scene.spared.pids | frozenset(scene.household) | {scene.me}
    others = [process for process in scene.processes if process.pid not in foreign]
    doomed = {*scene.fenced, *scene.marked}
    found = {
        process.pid
        for process in others
        if process.ppid == scene.me or process.pid in doomed or (session is not None and process.session == session)
    }
    if scene.spared.markers:
        found = {pid for pid in found if scene.marker(pid) not in scene.spared.markers}
    # A child of the doomed is doomed too, even if it has a session of its own and no marker: once its parent is gone
    # it could only be told from a stranger if it came to us.
    found = procfs.family(found, others)
    return [process for process in others if process.pid in found and process.alive]


def _session(remains: Remains, processes: Sequence[procfs.Stat]) -> int | None:
    """The session of the command, unless its number is somebody else's by now.

    As long as a session has members, its number is not given out again: no leader is as good as the right one.
    """
    if remains.pid is None:
        return None
    leader = next((process for process in processes if process.pid == remains.pid), None)
    return remains.pid if leader is None or leader.start == remains.pid_start else None
