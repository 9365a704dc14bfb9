"""The service manager hears that the daemon gets on, and not merely lives; a hang shows where it hangs."""

from __future__ import annotations

import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.slowness import needs_strace, slow
from tests.system.waiting import wait_for

# Seconds of the watchdog: three beats in it.
PATIENCE = 1.5
HANG = 8


class Manager:
    """A service manager, as far as a daemon sees it: a socket for datagrams."""

    def __init__(self, place: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(place))
        self._lines: deque[str] = deque()
        self.environ = {"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": str(round(PATIENCE * 1e6))}

    def hears(self, line: str, *, deadline: float = 20.0) -> None:
        """Wait for a line that begins so; what came before it is forgotten."""
        limit = time.monotonic() + deadline
        while not self._next(limit).startswith(line):
            assert time.monotonic() < limit, f"{line} is not told within {deadline:g} s"

    def _next(self, limit: float) -> str:
        while not self._lines:
            self.socket.settimeout(max(0.001, limit - time.monotonic()))
            self._lines.extend(self.socket.recv(4096).decode().split("\n"))
        return self._lines.popleft()

    def misses(self, line: str, seconds: float) -> bool:
        """Whether this line does not come within so many seconds."""
        limit = time.monotonic() + seconds
        try:
            while time.monotonic() < limit:
                if self._next(limit) == line:
                    return False
        except TimeoutError:
            pass
        return True


@pytest.fixture
def manager(home: Path) -> Iterator[Manager]:
    manager = Manager(home / "notify")
    with manager.socket:
        yield manager


@pytest.fixture
def watched(home: Path, manager: Manager) -> Iterator[LiveDaemon]:
    """A daemon with a watchdog, not started. Its log holds stacks, which are no lines of the log's schema."""
    with LiveDaemon(home, workers=1) as daemon:
        daemon.env |= manager.environ
        yield daemon


def test_readiness_life_reload_and_end_are_told(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    assert watched.process is not None

    manager.hears("READY=1")
    for _ in range(3):
        manager.hears("WATCHDOG=1")
    watched.process.send_signal(signal.SIGHUP)
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    watched.process.send_signal(signal.SIGTERM)
    manager.hears("STOPPING=1")

    assert watched.process.wait(20) == 0


def test_a_reload_that_is_refused_is_told_to_be_over_too(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    assert watched.process is not None
    manager.hears("READY=1")
    watched.configure(max_retries=-1)

    watched.process.send_signal(signal.SIGHUP)

    manager.hears("RELOADING=1")
    manager.hears("MONOTONIC_USEC=")
    manager.hears("READY=1")
    manager.hears("STATUS=the configuration is not valid")


def test_a_long_end_asks_for_more_time_again_and_again(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    with watched.wire() as wire:
        wire.enqueue("sleep 1000", id="long")
    watched.worker_of("long")
    with watched.wire() as wire:
        wire.call("shutdown", mode="wait")

    for _ in range(3):
        manager.hears("EXTEND_TIMEOUT_USEC=")
    for _ in range(3):
        manager.hears("WATCHDOG=1")


def test_a_program_that_is_replaced_goes_on_telling(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    manager.hears("READY=1")

    with watched.wire() as wire:
        wire.call("reexec")

    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    manager.hears("WATCHDOG=1")


def test_workers_and_jobs_know_nothing_of_the_manager(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    with watched.wire() as wire:
        job = wire.enqueue("env", env={"PATH": "/usr/bin:/bin"})
    watched.wait_for_state(job, "completed")

    worker = watched.workers()[0]["pid"]

    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert b"WATCHDOG_" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in watched.output(job)


@needs_strace
def test_a_store_that_hangs_is_no_life(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    with slow(watched, "fdatasync", HANG, once=True), watched.wire() as wire:
        number = wire.send("enqueue", jobs=[{"command": "true", "delay": 3600}])

        wait_for(lambda: manager.misses("WATCHDOG=1", PATIENCE), "no sign of life comes any more")

        told = status(watched)
        assert "the store has not answered" in str(told["problems"])
        assert told["loop"]["stalls"] == 1
        assert "in _commit" in stacks(watched)
        assert "daemon.stalled" in watched.log_tail(50_000)
        # It gets over it.
        assert wire.line()["id"] == number
        manager.hears("WATCHDOG=1")

    wait_for(lambda: status(watched)["problems"] == [], "all is well again")
    assert watched.stop() == 0


@needs_strace
def test_a_loop_that_hangs_is_no_life(watched: LiveDaemon, manager: Manager) -> None:
    watched.start()
    with slow(watched, "epoll_wait", HANG, once=True):
        wait_for(lambda: manager.misses("WATCHDOG=1", PATIENCE), "no sign of life comes any more")

        # Printed while it hangs: no other thread of Python can be asked now.
        assert "in select" in stacks(watched)
        manager.hears("WATCHDOG=1")

    told = status(watched)
    assert told["loop"]["max_lag"] > PATIENCE
    assert told["loop"]["stalls"] == 1
    assert "the daemon stood still for" in str(told["problems"])
    assert watched.stop() == 0


def stacks(daemon: LiveDaemon) -> str:
    """Wait for stacks in the log; return them."""
    log = wait_for(lambda: "most recent call first" in (tail := daemon.log_tail(50_000)) and tail, "stacks are printed")
    return log.partition("most recent call first")[2]


def status(daemon: LiveDaemon) -> dict[str, Any]:
    with daemon.wire() as wire:
        return wire.call("status")


@needs_strace
def test_where_nobody_watches_a_loop_that_stood_still_shows_in_the_status(new_daemon: Any) -> None:
    daemon = new_daemon(vitals_interval=0.2).start()

    with slow(daemon, "epoll_wait", 3, once=True):
        wait_for(lambda: status(daemon)["loop"]["max_lag"] > 1, "it shows")

    told = status(daemon)
    assert told["loop"]["stalls"] == 1
    assert any(problem.startswith("the daemon stood still for ") for problem in told["problems"])
