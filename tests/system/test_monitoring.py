"""Figures of a real daemon: what they say adds up, whatever becomes of workers, disks, and the daemon itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.scrape import Answer, Figures, figures, free_port, get
from tests.system.slowness import needs_strace, slow
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire


class Seen(NamedTuple):
    """A daemon and the port of its figures."""

    daemon: LiveDaemon
    port: int

    def figures(self) -> Figures:
        return figures(self.port)

    def get(self, path: str) -> Answer:
        return get(self.port, path)

    def problems(self) -> list[str]:
        with self.daemon.wire() as wire:
            return wire.call("status")["problems"]


@pytest.fixture
def new_seen(new_daemon: Callable[..., LiveDaemon]) -> Callable[..., Seen]:
    def new(**config: Any) -> Seen:
        port = free_port()
        return Seen(new_daemon(metrics=f"127.0.0.1:{port}", **config), port)

    return new


@pytest.fixture
def seen(new_seen: Callable[..., Seen]) -> Seen:
    seen = new_seen()
    seen.daemon.start()
    return seen


# What must add up.


def balance(figures: Figures) -> None:
    """Nothing is counted twice or left out, at a moment at which nothing moves."""
    running = figures("jobs", state="processing")
    assert figures("attempts_started_total") == figures("attempts_ended_total") + running
    assert figures("job_waiting_seconds_count") == figures("attempts_started_total")
    assert figures("job_running_seconds_count") == figures("attempts_ended_total")
    assert figures("jobs_enqueued_total") == figures("jobs")
    assert figures("dead_letters_total") == figures("jobs", state="dead") == figures("dead_letters_unseen")
    assert figures("retries_total") == figures("attempts_ended_total", state="failed")


def test_under_workers_that_are_killed_every_start_has_its_end(new_seen: Callable[..., Seen]) -> None:
    seen = new_seen(workers=3, max_retries=1, backoff_base=0, max_lost=100)
    seen.daemon.start()
    with seen.daemon.wire() as wire:
        for number in range(40):
            wire.enqueue("sleep 0.05" if number % 4 else "sleep 0.05; exit 1")

    killed = 0
    while killed < 6:
        for worker in seen.daemon.workers():
            if worker["phase"] == "running" and killed < 6:
                with suppress(ProcessLookupError):
                    os.kill(worker["pid"], signal.SIGKILL)
                killed += 1
        wait_for(lambda before=killed: seen.figures()("worker_events_total", event="lost") >= before, "it is told")
    seen.daemon.wait_for_counts(completed=30, dead=10)

    told = seen.figures()
    balance(told)
    assert told("jobs") == 40
    assert told("attempts_ended_total", reason="lost", state="pending") >= 1
    assert told("retries_total") == 10
    assert told("worker_events_total", event="lost") == 6
    assert told("worker_events_total", event="started") == told("worker_events_total", event="ended") + told("workers")


def test_waiting_is_from_due_to_start_and_running_from_start_to_end(seen: Seen, gate: Gate) -> None:
    with seen.daemon.wire() as wire:
        for _ in range(2):
            wire.enqueue(gate.wait())
        wait_for(lambda: wire.counts().get("processing") == 2, "both workers are busy")
        # Due at its retry, or after its delay, and not when it was stored.
        wire.enqueue("true", delay=0.3)
        began = time.monotonic()
        oldest = wait_for(lambda: (told := seen.figures())("overdue_seconds") > 0.5 and told, "it is overdue")
        waited = time.monotonic() - began

        gate.open()
        wait_for(lambda: wire.counts() == {"completed": 3}, "all are done")

    assert oldest("overdue_seconds") <= waited
    told = seen.figures()
    balance(told)
    assert told("overdue_seconds") == 0
    assert told("job_waiting_seconds_count") == 3
    # The third job waited, and the other two ran, for at least as long as it was seen to be overdue.
    assert told("job_waiting_seconds_sum") >= oldest("overdue_seconds")
    assert told("job_running_seconds_sum") >= 2 * oldest("overdue_seconds")


def test_workers_that_were_stopped_leave_jobs_overdue(seen: Seen) -> None:
    with seen.daemon.wire() as wire:
        wire.call("worker_stop")
        wait_for(lambda: seen.figures()("workers") == 0, "no worker is left")
        wire.enqueue("true", delay=0.1)

    wait_for(lambda: seen.figures()("overdue_seconds") > 0, "it is overdue though nobody looks for work")
    assert seen.figures()("workers_limit") == 0


def test_a_new_daemon_counts_anew_and_knows_what_is_stored(seen: Seen, gate: Gate) -> None:
    with seen.daemon.wire() as wire:
        wire.enqueue("true")
        wire.enqueue(gate.wait(), id="long")
    seen.daemon.wait_for_counts(completed=1, processing=1)
    before = seen.figures()

    seen.daemon.again()
    gate.open()
    seen.daemon.wait_for_state("long", "completed")

    told = seen.figures()
    assert told("start_timestamp_seconds") > before("start_timestamp_seconds")
    assert told("jobs_enqueued_total") == told("attempts_started_total") == 0
    # Its start was told by the daemon before.
    assert told("attempts_ended_total") == told("job_running_seconds_count") == 1
    assert told("jobs", state="completed") == 2


def test_a_program_that_takes_over_offers_figures_again(seen: Seen) -> None:
    before = seen.figures()("start_timestamp_seconds")
    with seen.daemon.wire() as wire:
        wire.call("reexec")

    def begun() -> bool:
        with suppress(OSError):
            return seen.figures()("start_timestamp_seconds") > before
        return False

    wait_for(begun, "figures of the next program")
    assert seen.problems() == []


def test_a_configuration_that_is_not_valid_is_told(seen: Seen) -> None:
    assert seen.daemon.process is not None
    before = seen.figures()("config_reload_success_timestamp_seconds")
    (seen.daemon.home / "queuectld.toml").write_text("workers = -1\n")

    seen.daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: seen.figures()("config_reload_successful") == 0, "it is told")

    assert seen.figures()("config_reload_success_timestamp_seconds") == before


# Health.


def test_a_daemon_that_drains_is_healthy_and_takes_no_jobs(new_seen: Callable[..., Seen], gate: Gate) -> None:
    seen = new_seen(shutdown_grace=60)
    seen.daemon.start()
    assert (seen.get("/healthz"), seen.get("/readyz")) == (Answer(200, "ok\n"), Answer(200, "ok\n"))
    with seen.daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="long")
    seen.daemon.worker_of("long")

    assert seen.daemon.process is not None
    seen.daemon.process.send_signal(signal.SIGTERM)
    told = wait_for(lambda: (answer := seen.get("/readyz")).status == 503 and answer, "it is not ready")

    assert told.text == "draining: the daemon is on its way out\n"
    assert seen.get("/healthz").status == 200
    assert seen.figures()("draining") == 1
    gate.open()
    assert seen.daemon.process.wait(30) == 0


def is_refused(wire: Wire) -> bool:
    """Store one more large job, or be told that it cannot be."""
    try:
        wire.enqueue("true", delay=3600, stdin=os.urandom(30_000).hex())
    except RefusedError as refusal:
        return refusal.code == "disk_full"
    return False


def test_on_a_full_disk_it_is_healthy_and_takes_no_jobs(
    home: Path, mount_small: Callable[[Path, str], Path], new_seen: Callable[..., Seen]
) -> None:
    state = mount_small(home / "state", "32m")
    seen = new_seen()
    seen.daemon.start()
    ballast = state / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 1024 * 1024)
    with seen.daemon.wire() as wire:
        wait_for(lambda: is_refused(wire), "jobs are refused")

    ready = wait_for(lambda: (answer := seen.get("/readyz")).status == 503 and answer, "it is not ready")

    assert "is full: new jobs are refused" in ready.text
    assert ready.text.count("\n") == 1
    assert seen.get("/healthz").status == 200
    told = seen.figures()
    assert (told("disk_full"), told("ready"), told("healthy")) == (1, 0, 1)
    assert told("requests_total", op="enqueue", result="disk_full") >= 1
    ballast.unlink()
    wait_for(lambda: seen.get("/readyz").status == 200, "it takes jobs again")


@needs_strace
def test_a_store_that_hangs_is_not_healthy_and_does_not_hold_up_figures(home: Path) -> None:
    port = free_port()
    with LiveDaemon(home, metrics=f"127.0.0.1:{port}") as daemon:
        # Patience of one second; nobody listens at the other end.
        daemon.env |= {"NOTIFY_SOCKET": str(home / "nobody"), "WATCHDOG_USEC": "1000000"}
        daemon.start()
        with slow(daemon, "fdatasync", 8, once=True), daemon.wire() as wire:
            number = wire.send("enqueue", jobs=[{"command": "true", "delay": 3600}])

            told = wait_for(lambda: (answer := get(port, "/healthz")).status == 503 and answer, "it is not healthy")

            assert told.text.startswith("the store has not answered for ")
            assert get(port, "/readyz").status == 503
            stuck = figures(port)
            assert (stuck("stuck"), stuck("store_writes_waiting"), stuck("store_readable")) == (1, 1, 1)
            assert wire.line()["id"] == number
        wait_for(lambda: get(port, "/healthz").status == 200, "it gets over it")
        assert figures(port)("store_commit_seconds_bucket", le="5") < figures(port)("store_commit_seconds_count")


# Where they are offered.


def test_figures_are_for_everybody_on_the_host_also_on_a_unix_socket(home: Path, new_daemon: Callable[..., LiveDaemon]):
    place = home / "metrics.sock"
    new_daemon(metrics=str(place)).start()

    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(place))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\nqueuectl_ready 1\n" in answer
    assert place.stat().st_mode & 0o777 == 0o666


def test_a_port_that_is_taken_is_a_problem_and_jobs_run(new_seen: Callable[..., Seen]) -> None:
    seen = new_seen()
    with socket.socket() as other:
        other.bind(("127.0.0.1", seen.port))
        other.listen()

        seen.daemon.start()

        (problem,) = seen.problems()
        assert problem.startswith("`metrics`: ")
        assert "address already in use" in problem
        with seen.daemon.wire() as wire:
            job = wire.enqueue("true")
        seen.daemon.wait_for_state(job, "completed")


def test_the_file_is_written_again_and_again_whole_and_gone_after_the_end(
    home: Path, new_daemon: Callable[..., LiveDaemon]
) -> None:
    file = home / "node" / "queuectl.prom"
    file.parent.mkdir()
    daemon = new_daemon(metrics_file=str(file), metrics_interval=1).start()

    first = wait_for(lambda: file.exists() and file.stat(), "it is written")
    wait_for(lambda: file.stat().st_ino != first.st_ino, "it is written again, in one step")

    assert first.st_mode & 0o777 == 0o644
    assert Figures(file.read_text())("ready") == 1
    # Another one from the next start on.
    daemon.configure(metrics_file=str(file.parent / "other.prom"))
    assert daemon.cli("daemon", "reload").code == 0
    assert daemon.stop() == 0
    assert list(file.parent.iterdir()) == []


def test_a_directory_that_vanishes_is_a_problem_until_it_is_back(home: Path, new_daemon: Callable[..., LiveDaemon]):
    file = home / "node" / "queuectl.prom"
    daemon = new_daemon(metrics_file=str(file), metrics_interval=1).start()

    def problems() -> list[str]:
        with daemon.wire() as wire:
            return wire.call("status")["problems"]

    (problem,) = wait_for(problems, "it is told")
    assert problem.startswith("`metrics_file`: ")
    assert "No such file or directory" in problem
    file.parent.mkdir()
    wait_for(file.exists, "it is written")

    wait_for(lambda: problems() == [], "all is well")
    shutil.rmtree(file.parent)
    wait_for(problems, "it is told again")
    events = [line["event"] for line in daemon.log_lines() if line["event"].startswith("metrics.")]
    assert events == ["metrics.failed", "metrics.recovered", "metrics.failed"]


# Whoever comes to the port.


def resident(daemon: LiveDaemon) -> int:
    """MiB."""
    assert daemon.process is not None
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * 4096 // 2**20


def test_whatever_comes_to_the_port_the_queue_goes_on_and_memory_stays(seen: Seen) -> None:
    address = ("127.0.0.1", seen.port)
    seen.figures()
    before = resident(seen.daemon)

    with ExitStack() as stack:
        # More of those who say nothing, or half of something, than there may be.
        for number in range(60):
            silent = stack.enter_context(socket.create_connection(address))
            if number % 2:
                with suppress(OSError):
                    silent.sendall(b"GET /metrics HTTP/1.1\r\nX: y")
        with seen.daemon.wire() as wire:
            job = wire.enqueue("true")
        seen.daemon.wait_for_state(job, "completed")
    for _ in range(150):
        with socket.create_connection(address) as sock, suppress(OSError):
            sock.sendall(os.urandom(2000) + b"\r\n\r\n" + b"x" * 100_000)
    for _ in range(30):
        with socket.create_connection(address) as sock, suppress(OSError):
            # Never reads what it is answered.
            for _ in range(50):
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)

    answer = wait_for(lambda: _answered(seen), "there is room again")
    assert answer.status == 200
    assert resident(seen.daemon) - before < 8
    assert seen.problems() == []


def _answered(seen: Seen) -> Answer | None:
    with suppress(OSError):
        answer = seen.get("/metrics")
        return answer if answer.status == 200 else None
    return None
