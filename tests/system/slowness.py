"""System calls of a running daemon that take their time, as on a disk in trouble; strace holds them up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@contextmanager
def slow(daemon: LiveDaemon, calls: str, seconds: float, *, once: bool = False) -> Iterator[None]:
    """Hold up these system calls of all threads (`once`: only the next one of each kind) as long as the block lasts."""
    inject = f"inject={calls}:delay_enter={round(seconds * 1e6)}" + (":when=1" if once else "")
    argv = ["strace", "-f", "-qq", "-o", str(daemon.home / "trace"), "-e", f"trace={calls}", "-e", inject]
    pid = daemon.process.pid
    with subprocess.Popen([*argv, "-p", str(pid)], stderr=subprocess.DEVNULL) as strace:
        wait_for(lambda: all(map(_is_traced, Path(f"/proc/{pid}/task").iterdir())), "all threads are traced")
        try:
            yield
        finally:
            # At once, whatever it holds up; what it traced goes on.
            strace.kill()


def _is_traced(task: Path) -> bool:
    return "TracerPid:\t0\n" not in (task / "status").read_text()
