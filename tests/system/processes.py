"""Which processes belong to a directory: found by what they are, never by their names."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    pid: int
    # Clock ticks since boot: with the pid it is unique.
    start: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def look(pid: int) -> Process | None:
    """Return a living process; None for one that is gone or a zombie."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if not fields or fields[0] in {b"Z", b"X"}:
        return None
    return Process(pid, int(fields[19]), _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip())


def alive(pid: int) -> bool:
    return look(pid) is not None


def _mentions(pid: int, mark: bytes) -> bool:
    if mark in _read(pid, "cmdline") or mark in _read(pid, "environ"):
        return True
    try:
        return os.fsencode(Path(f"/proc/{pid}/cwd").readlink()).startswith(mark)
    except OSError:
        return False


def of(place: Path) -> list[Process]:
    """Return all living processes that have `place` in their arguments, their environment, or as their directory.

    Those that come from one of them belong to it as well: a job that was sent over the wire names no place.
    """
    mark, me = os.fsencode(place), os.getpid()
    others = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and int(entry.name) != me]
    parents = {pid: _parent(pid) for pid in others}
    found = {pid for pid in others if _mentions(pid, mark)}
    while more := {pid for pid in others if parents[pid] in found} - found:
        found |= more
    return [process for pid in sorted(found) if (process := look(pid))]


def _parent(pid: int) -> int | None:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def end(place: Path, deadline: float = 10.0) -> list[Process]:
    """Kill all processes of `place`; return those that were there."""
    ended: list[Process] = []
    limit = time.monotonic() + deadline
    while left := of(place):
        if time.monotonic() > limit:
            raise TimeoutError(f"these processes cannot be ended: {left}")
        ended += [process for process in left if process not in ended]
        for process in left:
            kill(process.pid)
        time.sleep(0.01)
    return ended


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def children(pid: int) -> list[int]:
    """Return the living children of a process, of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            continue
    return [child for child in found if alive(child)]
