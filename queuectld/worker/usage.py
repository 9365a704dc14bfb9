"""What the tree of a command uses, as /proc knows it.

Processes come and go while they are looked at, so every number is a good estimate and no more; what is missed now is
seen by the next look. Nothing is counted twice: parents are read before their children.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Final

from queuectld.worker import procfs

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024
# A look ends after so many seconds: a storm of processes must not keep the worker from listening.
_LONGEST_LOOK: Final = 0.1
# Whether this kernel lists the children of a thread; else the whole host has to be looked through.
_TOLD: Final = os.path.exists(f"/proc/self/task/{os.getpid()}/children")
# What a process holds that the kernel could not drop: pages of files it can read again whenever it wants.
_HELD: Final = (b"\nRssAnon:", b"\nRssShmem:", b"\nVmSwap:")
# The same with pages that several processes share counted once, a part in each.
_SHARE: Final = (b"\nPss_Anon:", b"\nPss_Shmem:", b"\nSwapPss:")


def descendants(root: int) -> Iterator[int]:
    """Yield the processes below one, parents first, zombies included."""
    children = _told_children if _TOLD else _all_children()
    until = time.monotonic() + _LONGEST_LOOK
    waiting = [root]
    while waiting and time.monotonic() < until:
        for child in children(waiting.pop()):
            yield child
            waiting.append(child)


def _all_children() -> Callable[[int], list[int]]:
    found: dict[int, list[int]] = {}
    for process in procfs.processes():
        found.setdefault(process.ppid, []).append(process.pid)
    return lambda pid: found.get(pid, [])


def _told_children(pid: int) -> list[int]:
    # Each thread has children of its own.
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        pass
    return found


def memory(pids: list[int], enough: int) -> int:
    """Return the bytes of memory that these processes hold.

    What they share is counted for each of them, which is quick, unless that comes to more than `enough`.
    """
    held = {pid: _sum(f"/proc/{pid}/status", _HELD) or 0 for pid in pids}
    most = sum(held.values())
    return most if most <= enough or len(held) == 1 else _apart(held, most)


def _apart(held: dict[int, int], most: int) -> int:
    """Return what processes hold that hold `most` if each is charged with all that it shares."""
    until = time.monotonic() + _LONGEST_LOOK
    seen = theirs = 0
    for pid, size in sorted(held.items(), key=lambda item: -item[1]):
        share = _sum(f"/proc/{pid}/smaps_rollup", _SHARE)
        # Unreadable for programs that changed their user.
        theirs += size if share is None else share
        seen += size
        if time.monotonic() > until:
            break
    # Those that there is no time for are taken to share as much as the larger ones.
    return theirs * most // seen


def _sum(path: str, names: tuple[bytes, ...]) -> int | None:
    """Add up lines such as ``VmSwap:  12 kB``; None if there is no such file or line."""
    try:
        text = _read(path)
    except OSError:
        return None
    places = [place + len(name) for name in names if (place := text.find(name)) >= 0]
    return sum(int(text[place:].split(None, 1)[0]) * _KIB for place in places) if places else None


def cpu(pids: list[int]) -> float:
    """Return the seconds of processor time of these processes and of those children that they have waited for."""
    return sum(_ticks(pid) for pid in pids) * _TICK


def _ticks(pid: int) -> int:
    try:
        fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return 0
    # User and system time, of itself and of its children.
    return sum(map(int, fields[11:15]))


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
