"""A host that has no processes or descriptors left: jobs wait for it, spend no retry, and run when it has."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.livedaemon import DAEMON, LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError

# A user that has no other processes: what its daemon and workers are is all that counts against its limit.
NOBODY = 54_321
# It may read what is installed wherever that is, and has no more rights.
RIGHTS = "-all,+dac_read_search"
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *(f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}"),
)
# Threads and processes of that user. Fewer than there are then, it needs for itself.
PROCESSES = 30


def worker(daemon: LiveDaemon) -> int:
    """Return the process of the only worker, once it waits for work."""
    return next(int(found["pid"]) for found in wait_for(lambda: _idle(daemon), "a worker is idle"))


def _idle(daemon: LiveDaemon) -> list[dict[str, Any]]:
    return [found for found in daemon.workers() if found["phase"] == "idle"]


def reasons(daemon: LiveDaemon, job: str) -> list[str | None]:
    return [attempt["reason"] for attempt in daemon.history(job)]


def events(daemon: LiveDaemon, name: str) -> list[dict[str, Any]]:
    return [line for line in daemon.log_lines() if line["event"] == name]


@contextlib.contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Not one more than it has.
    count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, hard))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_processes(_: int) -> Iterator[None]:
    # Somebody else of the same user has taken all that it may have.
    crowd = [subprocess.Popen([*AS_NOBODY, "sleep", "1000"]) for _ in range(PROCESSES)]
    try:
        for process in crowd:
            wait_for(lambda name=Path(f"/proc/{process.pid}/comm"): name.read_text() == "sleep\n", "it is one of them")
        yield
    finally:
        for process in crowd:
            process.kill()
            process.wait()


@contextlib.contextmanager
def no_memory(pid: int) -> Iterator[None]:
    calls = "fork,vfork,clone,clone3"
    tracer = subprocess.Popen(
        ["strace", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:error=ENOMEM", "-p", str(pid)],
        stderr=subprocess.DEVNULL,
    )
    traced = f"TracerPid:\t{tracer.pid}\n"
    wait_for(lambda: traced in Path(f"/proc/{pid}/status").read_text(), "strace holds the worker")
    yield
    # It lets go of the worker.
    tracer.send_signal(signal.SIGTERM)
    tracer.wait()


def waits_for_its_host(daemon: LiveDaemon, shortage: Callable[[int], contextlib.AbstractContextManager[None]]) -> None:
    only = worker(daemon)
    with shortage(only):
        with daemon.wire() as wire:
            wire.enqueue("echo ran", id="a", max_retries=0, rerun="never")
        wait_for(lambda: len(reasons(daemon, "a")) >= 2, "it was tried again")
        assert daemon.state_of("a") != "dead"

    job = daemon.wait_for_state("a", "completed")

    *before, last = reasons(daemon, "a")
    assert set(before) == {"host_error"}
    assert last == "exited"
    assert job["retries_left"] == 0
    # The same worker: it rested, and was neither killed nor replaced.
    assert worker(daemon) == only
    rests = events(daemon, "worker.resting")
    assert len(rests) == len(before)
    assert "the host could not start it" in rests[0]["error"]


def test_a_host_without_descriptors(new_daemon: Callable[..., LiveDaemon]) -> None:
    waits_for_its_host(new_daemon(workers=1).start(), no_descriptors)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_host_without_memory(new_daemon: Callable[..., LiveDaemon]) -> None:
    waits_for_its_host(new_daemon(workers=1).start(), no_memory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without other processes")
def test_a_user_without_processes(new_daemon: Callable[..., LiveDaemon], home: Path) -> None:
    daemon = new_daemon(workers=1)
    for place in (home, home / "queuectld.toml"):
        os.chown(place, NOBODY, NOBODY)
    daemon.start("prlimit", f"--nproc={PROCESSES}", *AS_NOBODY)

    waits_for_its_host(daemon, no_processes)


def test_other_workers_take_the_job_of_one_that_rests(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(workers=2).start()
    with daemon.wire() as wire:
        wire.call("worker_start", count=2)
    wait_for(lambda: len(_idle(daemon)) == 2, "both workers are idle")
    poor = int(_idle(daemon)[0]["pid"])

    with no_descriptors(poor), daemon.wire() as wire:
        for number in range(4):
            wire.enqueue("true", id=f"j{number}", max_retries=0)
        for number in range(4):
            daemon.wait_for_state(f"j{number}", "completed")

    assert daemon.counts() == {"completed": 4}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without other processes")
def test_a_daemon_that_may_have_no_threads_says_so(new_daemon: Callable[..., LiveDaemon], home: Path) -> None:
    daemon = new_daemon()
    for place in (home, home / "queuectld.toml"):
        os.chown(place, NOBODY, NOBODY)

    daemon.launch("prlimit", "--nproc=1", *AS_NOBODY)

    # Started anew: somebody may end.
    assert daemon.process.wait(20) == 74
    assert "the host does not let it run: " in daemon.log_tail()
    assert "no thread can be started" in daemon.log_tail()
    assert "Traceback" not in daemon.log_tail()


# What the host does to the state directory.

READ_ONLY = ("unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')


def may_use(*prefix: str | Path) -> None:
    """Skip the test where this is not to be had."""
    tried = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"needs root: {tried.stderr.strip()}")


def ended(daemon: LiveDaemon, *prefix: str) -> tuple[int, str]:
    """Start a daemon that ends soon; return its exit code, and the last thing that it said."""
    daemon.launch(*prefix)
    assert daemon.process is not None
    return daemon.process.wait(30), daemon.log_tail().splitlines()[-1]


def test_on_a_disk_that_may_only_be_read_the_daemon_says_so(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.stop()
    read_only = (*READ_ONLY, str(daemon.state))
    may_use(*read_only)

    code, said = ended(daemon, *read_only)
    checked = daemon.run([*read_only, *DAEMON, "--check"])

    assert (code, checked.returncode) == (74, 74)
    assert "mounted read-only" in said
    assert b"mounted read-only" in checked.stderr


def test_where_files_may_not_be_as_large_as_the_database_the_daemon_says_so(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon().start()
    with daemon.wire() as wire:
        wire.enqueue("true", id="kept", delay=3600)
    daemon.stop()
    size = (daemon.state / "queue.db").stat().st_size

    daemon.start("prlimit", f"--fsize={size // 2}")
    with contextlib.suppress(OSError, RefusedError), daemon.wire() as wire:
        for _ in range(1000):
            wire.enqueue(f": {'x' * 3000}", delay=3600)

    assert daemon.process is not None
    assert daemon.process.wait(30) == 74
    assert "ulimit -f" in daemon.log_tail().splitlines()[-1]
    daemon.start()
    assert daemon.state_of("kept") == "pending"


def test_a_state_directory_in_which_its_own_user_may_not_write_is_refused(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    may_use(*AS_NOBODY)
    daemon = new_daemon()
    daemon.state.mkdir(mode=0o500)
    os.chown(daemon.state, NOBODY, NOBODY)

    code, said = ended(daemon, *AS_NOBODY)

    assert code == 74
    assert f"chmod 700 {daemon.state}" in said
    assert list(daemon.state.iterdir()) == []


def test_what_is_no_file_among_the_outcomes_holds_up_no_start(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    with daemon.wire() as wire:
        store = wire.call("status")["store"]
    daemon.stop()
    for name in (f"{store}.7", "other.8"):
        os.mkfifo(daemon.state / "outcomes" / name)

    daemon.start()

    with daemon.wire() as wire:
        done = wire.enqueue("true")
    daemon.wait_for_state(done, "completed")
