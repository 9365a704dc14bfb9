"""System calls that kill, or fail: `strace` as a command that goes in front of another."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

# Follows threads, and lets go of the programs that are started.
_STRACE: Final = ("strace", "-f", "-b", "execve", "-qq")


def killing(calls: str, number: int) -> tuple[str, ...]:
    """Return what kills a program at the `number`-th of these calls in one of its threads."""
    return _injecting(calls, f"signal=SIGKILL:when={number}")


def failing(calls: str, error: str, when: str, file: Path = Path("/dev/null")) -> tuple[str, ...]:
    """Return what makes these calls of a program fail; `when` is as strace has it; `injected` reads the file."""
    return _injecting(calls, f"error={error}:when={when}", file)


def injected(file: Path) -> int:
    """Return how many calls failed because of us."""
    return file.read_text().count("(INJECTED)") if file.exists() else 0


def _injecting(calls: str, what: str, file: Path = Path("/dev/null")) -> tuple[str, ...]:
    return (*_STRACE, "-o", str(file), "-e", f"trace={calls}", "-e", f"inject={calls}:{what}")


def counting(calls: str, file: Path) -> tuple[str, ...]:
    """Return what notes these calls of a program in a file, for `counted`."""
    return (*_STRACE, "-o", str(file), "-e", f"trace={calls}")


def counted(file: Path) -> int:
    """Return how many there were, in the thread that made the most: so far, that is, they can be numbered."""
    threads = Counter(line.split()[0] for line in file.read_text().splitlines() if "(" in line)
    return max(threads.values(), default=0)


def attach(daemon: LiveDaemon, pid: int, prefix: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Have a running process traced; calls are counted from now on, when it is."""
    tracer = subprocess.Popen([*prefix, "-p", str(pid)], env=daemon.env)
    status = Path(f"/proc/{pid}/status")
    wait_for(lambda: f"TracerPid:\t{tracer.pid}" in status.read_text(), "strace is attached")
    return tracer
