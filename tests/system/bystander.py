"""Somebody who uses the daemon while others misuse it, and how long he waits."""

from __future__ import annotations

import resource
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

# What somebody else waits for an answer meanwhile, in seconds: usually, and at most. The machine that runs the tests
# does other things, too.
USUALLY, AT_MOST = 0.1, 2.0
MIB = 1024 * 1024
LATER = [{"command": "true", "delay": 3600}]


def memory(daemon: LiveDaemon) -> float:
    """Return MiB that the daemon has for itself."""
    assert daemon.process is not None
    return psutil.Process(daemon.process.pid).memory_full_info().uss / MIB


@contextmanager
def others_are_served(daemon: LiveDaemon, *, pause: float = 0.0) -> Iterator[list[float]]:
    """Ask the daemon all the time meanwhile; yields how long the answers took, in seconds."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with daemon.wire() as wire:
            while not over.is_set():
                for request in ({"op": "status"}, {"op": "list", "limit": 10}, {"op": "enqueue", "jobs": LATER}):
                    begin = time.perf_counter()
                    wire.call(**request)
                    took.append(time.perf_counter() - begin)
                over.wait(pause)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        # Who begins before anybody asks may be through by then.
        wait_for(lambda: took, "it has been answered once")
        yield took
    finally:
        over.set()
        asking.join()
    assert took


def served_in_time(took: list[float]) -> bool:
    return statistics.median(took) < USUALLY and max(took) < AT_MOST


def told(took: list[float]) -> str:
    """Return how long answers took, for people."""
    ordered = sorted(took)
    middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"{middle * 1000:.1f} ms, p99 {late * 1000:.0f} ms, at most {ordered[-1] * 1000:.0f} ms"


@contextmanager
def many_files(count: int = 4096) -> Iterator[None]:
    """Let this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
