"""What a job may use, from the command line to the history."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests import cgroup_place
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

HOLD = f"{sys.executable} -c 'held = b\"x\" * (200 << 20); import signal; signal.pause()'"
BURN = f"{sys.executable} -c 'while True: pass'"


@pytest.mark.parametrize(
    ("flags", "command", "reason", "code", "words"),
    [
        ("--limit-memory 100M", HOLD, "out_of_memory", 143, "100.0 MiB allowed"),
        ("--limit-cpu 200ms", BURN, "cpu_limit", 143, "0.2 s allowed"),
        ("--limit-output 1K --limit-output-action end", "yes", "output_limit", 143, "more than 1024 bytes written"),
        ("--silent-timeout 200ms", "sleep 1000", "silent", 124, "nothing written for 0.2 s"),
        ("--timeout 200ms --silent-timeout 1h", "sleep 1000", "timeout", 124, "timeout"),
    ],
)
def test_what_passes_its_limit_fails_and_says_why(
    flags: str, command: str, reason: str, code: int, words: str, daemon: LiveDaemon
) -> None:
    ran = daemon.cli("run", "--id", "greedy", *flags.split(), command)

    assert ran.code == code, ran
    assert words in ran.err
    shown = daemon.cli("show", "greedy").out
    assert reason in shown
    assert words in shown
    [attempt] = daemon.history("greedy")
    assert attempt["reason"] == reason
    assert daemon.state_of("greedy") == "dead"


# Its children are waited for by nobody, so their processor time is nowhere but in the cgroup.
FORGOTTEN = f"""{sys.executable} -c '
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(1000):
    if os.fork() == 0:
        while time.process_time() < 0.05: pass
        os._exit(0)
    try: os.wait()
    except ChildProcessError: pass
'"""


def test_a_cgroup_counts_processor_time_that_nobody_asks_for(daemon: LiveDaemon) -> None:
    # Skips where there is none.
    cgroup_place.home()

    ran = daemon.cli("run", "--limit-cpu", "500ms", FORGOTTEN)

    assert "cpu_limit" in ran.err, ran


def test_it_is_retried_unless_that_reason_is_final(daemon: LiveDaemon) -> None:
    again = ("--max-retries", "1", "--backoff-base", "0", "--limit-cpu", "100ms")
    daemon.cli("enqueue", "--id", "again", *again, BURN)
    daemon.cli("enqueue", "--id", "final", *again, "--no-retry-on", "cpu_limit", BURN)

    for name in ("again", "final"):
        daemon.wait_for_state(name, "dead")

    assert [attempt["reason"] for attempt in daemon.history("again")] == ["cpu_limit", "cpu_limit"]
    assert [attempt["reason"] for attempt in daemon.history("final")] == ["cpu_limit"]


def test_show_tells_what_was_allowed_and_what_was_used(daemon: LiveDaemon) -> None:
    flags = "--limit-memory 1G --limit-cpu 1m --limit-files 50 --limit-output 2M --silent-timeout 5m"
    ran = daemon.cli("run", "--id", "modest", *flags.split(), "ulimit -n; true")

    shown = daemon.cli("show", "modest").out

    assert (ran.code, ran.out) == (0, "50\n"), ran
    for line in ("Memory limit   1 GiB", "Cpu limit      1m", "Files limit    50", "Output limit   2 MiB"):
        assert line in shown
    assert "Silent timeout 5m" in shown
    assert "CPU" in shown
    assert "MEMORY" in shown


def test_a_job_that_floods_can_be_cancelled_and_fills_no_disk(daemon: LiveDaemon) -> None:
    daemon.cli("enqueue", "--id", "flood", "--limit-output", "1M", "yes; sleep 1000")
    output = daemon.state / "output"
    wait_for(lambda: _size(output) >= 1 << 20, "so much output")

    began = time.monotonic()
    cancelled = daemon.cli("cancel", "flood")

    assert cancelled.code == 0, cancelled
    assert time.monotonic() - began < 5
    # At its TERM: it did not have to wait for the KILL.
    assert [attempt["signal"] for attempt in daemon.history("flood")] == [signal.SIGTERM]
    # The index besides, which is bounded as well.
    assert _size(output) <= 3 << 20
    assert len(daemon.output("flood")) >= 1 << 20


def _size(place) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
