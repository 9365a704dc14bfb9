"""What a real daemon and its workers do with cgroups, and what they keep and end, with and without them."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queuectld.worker import cgroups
from tests import cgroup_place
from tests.faults.tracing import attach, killing
from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.witness import Witness

# Leaves its session, its group, its parent, its environment and its directory, and says who it is.
ESCAPE = "(cd /; setsid env -i sh -c 'echo $$ >>{0}; exec sleep 1000' &) ; while [ ! -s {0} ]; do sleep 0.01; done; "
# A service that a job starts, and that has nothing more to do with it.
SERVE = "sh -c 'echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000' >/dev/null 2>&1 </dev/null & "
# The same, and neither parent, session nor environment tell of it.
HIDE = "setsid env -i " + SERVE
# Until then it is a shell, with another one for `mv`.
SERVES = 'until [ "$(cat /proc/$(cat {0})/comm)" = sleep ]; do sleep 0.01; done'

BOTH = pytest.mark.parametrize("mode", ["auto", "off"])


def root_of(daemon: LiveDaemon) -> str:
    with daemon.wire() as wire:
        isolation = wire.call("status")["isolation"]
    assert isolation["reason"] is None, isolation
    return str(isolation["cgroup"])


def number_in(path: Path) -> int:
    wait_for(path.exists, f"{path} is written")
    return int(path.read_text())


def enqueue(daemon: LiveDaemon, command: str, **fields: Any) -> None:
    with daemon.wire() as wire:
        wire.enqueue(command, **fields)


def idle_worker_gone(daemon: LiveDaemon, count: int = 0) -> None:
    wait_for(lambda: len(daemon.workers()) == count, f"there are {count} workers")


# Isolation.


def test_status_tells_which_isolation_is_active(daemon: LiveDaemon) -> None:
    home = cgroup_place.home()
    with daemon.wire() as wire:
        status = wire.call("status")

    assert status["isolation"] == {
        "cgroup": f"{home}/queuectl.{status['store'][:12]}",
        "controllers": [],
        "reason": None,
    }


def test_status_tells_why_there_is_none(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(cgroups="off").start()
    with daemon.wire() as wire:
        isolation = wire.call("status")["isolation"]

    assert isolation == {"cgroup": None, "controllers": [], "reason": "`cgroups` is `off` in the configuration"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("mount -o remount,bind,ro {mount}", "mounted read-only"),
        ("umount -l {mount}", "no cgroup of version 2"),
    ],
)
def test_a_daemon_starts_whatever_becomes_of_the_cgroups(
    new_daemon: Callable[..., LiveDaemon], change: str, reason: str
) -> None:
    daemon = new_daemon()
    daemon.start("unshare", "--mount", "sh", "-c", f'{change.format(mount=cgroup_place.top())} && exec "$@"', "sh")

    with daemon.wire() as wire:
        isolation = wire.call("status")["isolation"]
        wire.enqueue("true", id="a")

    assert isolation["cgroup"] is None
    assert reason in isolation["reason"]
    daemon.wait_for_state("a", "completed")


def test_nothing_is_left_of_a_thousand_attempts_and_nothing_at_all_when_the_daemon_stops(daemon: LiveDaemon) -> None:
    root = root_of(daemon)
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"argv": ["true"], "limits": {"cpu": 60}} for _ in range(1000)])
    daemon.wait_for_counts(completed=1000)

    assert len(list(cgroups.below(root))) - 1 <= len(daemon.workers())
    assert daemon.stop() == 0
    assert not cgroup_place.there(root)


# What flees.


def test_what_fled_is_found_even_if_its_worker_is_killed_after_its_daemon(
    daemon: LiveDaemon, witness: Witness, gate: Gate
) -> None:
    pids = daemon.home / "pids"
    enqueue(daemon, witness.command(f"[ $QUEUECTL_ATTEMPT != 1 ] || {{ {ESCAPE.format(pids)} sleep 1000; }}"), id="a")
    fled = number_in(pids)
    root_of(daemon)
    daemon.again()
    worker = daemon.worker_of("a")

    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: witness.started("a", 2), "the job runs again")

    assert not processes.alive(fled)
    daemon.wait_for_state("a", "completed")
    assert witness.overlaps() == []


def test_what_fled_is_found_even_if_worker_and_daemon_are_killed(daemon: LiveDaemon, witness: Witness) -> None:
    pids = daemon.home / "pids"
    enqueue(daemon, witness.command(f"[ $QUEUECTL_ATTEMPT != 1 ] || {{ {ESCAPE.format(pids)} sleep 1000; }}"), id="a")
    fled = number_in(pids)
    worker = daemon.worker_of("a")
    root = root_of(daemon)

    daemon.kill()
    processes.kill(worker)
    assert processes.alive(fled)
    daemon.start()
    wait_for(lambda: witness.started("a", 2), "the job runs again")

    assert not processes.alive(fled)
    daemon.wait_for_state("a", "completed")
    wait_for(lambda: len(list(cgroups.below(root))) - 1 <= len(daemon.workers()), "its cgroup is gone")


def test_what_is_left_in_a_cgroup_of_an_attempt_that_is_long_over_is_ended_at_the_start(daemon: LiveDaemon) -> None:
    root = root_of(daemon)
    daemon.kill()
    strays = {}
    for name in ("4711", "w4711-1"):
        cgroups.make(f"{root}/{name}")
        strays[name] = cgroup_place.sleeper(f"{root}/{name}")

    daemon.start()

    for name, stray in strays.items():
        assert stray.wait() == -signal.SIGKILL
        assert not cgroup_place.there(f"{root}/{name}")


def test_a_daemon_that_starts_elsewhere_finds_what_is_left(daemon: LiveDaemon, witness: Witness) -> None:
    pids = daemon.home / "pids"
    enqueue(daemon, witness.command(f"[ $QUEUECTL_ATTEMPT != 1 ] || {{ {ESCAPE.format(pids)} sleep 1000; }}"), id="a")
    fled = number_in(pids)
    root, worker = root_of(daemon), daemon.worker_of("a")
    daemon.kill()
    processes.kill(worker)

    with cgroup_place.place(f"queuectl-test.{os.getpid()}") as other:
        cgroups.make(other)
        daemon.start("sh", "-c", f'echo 0 >{other}/cgroup.procs && exec "$@"', "sh")
        assert root_of(daemon).startswith(f"{other}/")
        daemon.wait_for_state("a", "completed")

        assert not processes.alive(fled)
        assert daemon.stop() == 0
        assert not cgroup_place.there(root)


def test_a_worker_that_is_killed_while_idle_leaves_no_cgroup(daemon: LiveDaemon) -> None:
    root = root_of(daemon)
    enqueue(daemon, "true", id="a")
    daemon.wait_for_state("a", "completed")
    killed = daemon.workers()[0]["pid"]
    wait_for(lambda: any(f"/w{killed}-" in place for place in cgroups.below(root)), "it has a cgroup")

    processes.kill(killed)

    wait_for(lambda: not any(f"/w{killed}-" in place for place in cgroups.below(root)), "its cgroup is gone")


def test_a_worker_from_before_there_were_cgroups_finishes_and_goes(
    new_daemon: Callable[..., LiveDaemon], gate: Gate
) -> None:
    daemon = new_daemon(cgroups="off", workers=1).start()
    enqueue(daemon, gate.wait(), id="a")
    before = daemon.worker_of("a")
    daemon.configure(workers=1, shutdown_grace=1, orphan_timeout=10)

    daemon.again()
    root = root_of(daemon)
    enqueue(daemon, "true", id="b")
    gate.open()
    daemon.wait_for_state("b", "completed")

    assert daemon.history("a")[0]["reason"] == "exited"
    wait_for(lambda: not processes.alive(before), "the old worker has gone")
    (now,) = daemon.workers()
    assert now["pid"] != before
    wait_for(lambda: now["pid"] in cgroups.members(root), "the new one is in its cgroup")


def test_a_worker_from_the_same_place_goes_on(daemon: LiveDaemon) -> None:
    root = root_of(daemon)
    enqueue(daemon, "true", id="a")
    daemon.wait_for_state("a", "completed")
    (before,) = (worker["pid"] for worker in daemon.workers())
    wait_for(lambda: before in cgroups.members(root), "it is in its cgroup")

    daemon.again()
    enqueue(daemon, "true", id="b")
    daemon.wait_for_state("b", "completed")

    assert before in [worker["pid"] for worker in daemon.workers()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("calls", "number"), [("mkdir,mkdirat", 1), ("mkdir,mkdirat", 2), ("rmdir", 1)])
def test_a_worker_may_die_at_each_step_with_a_cgroup(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, calls: str, number: int
) -> None:
    daemon = new_daemon(workers=1).start()
    root, pids = root_of(daemon), daemon.home / "pids"
    enqueue(daemon, "true", id="first")
    daemon.wait_for_state("first", "completed")
    (worker,) = (worker["pid"] for worker in daemon.workers())
    tracer = attach(daemon, worker, killing(calls, number))

    enqueue(daemon, witness.command(f"{ESCAPE.format(pids)} :"), id="a", limits={"cpu": 60})
    daemon.wait_for_state("a", "completed")

    tracer.wait(20)
    assert [attempt["reason"] for attempt in daemon.history("a")] == ["lost", "exited"]
    assert witness.overlaps() == []
    assert not any(processes.alive(int(pid)) for pid in pids.read_text().split())
    wait_for(lambda: len(list(cgroups.below(root))) - 1 <= len(daemon.workers()), "no cgroup is left")


# What is kept.


@BOTH
@pytest.mark.parametrize("service", [SERVE, HIDE], ids=["plain", "hidden"])
def test_what_is_kept_lives_through_all_that_happens_to_daemon_and_workers(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, gate: Gate, mode: str, service: str
) -> None:
    daemon = new_daemon(cgroups=mode, vitals_interval=0.1).start()
    pid_file = daemon.home / "service"
    enqueue(daemon, (service + SERVES).format(pid_file), id="service", leftovers="keep")
    daemon.wait_for_state("service", "completed")
    kept = number_in(pid_file)
    assert daemon.history("service")[0]["leftovers"] == [f"{kept} sleep (kept)"]

    # A worker dies.
    enqueue(daemon, witness.command(f"[ $QUEUECTL_ATTEMPT != 1 ] || sleep 1000; {gate.wait()}"), id="a")
    os.kill(daemon.worker_of("a"), signal.SIGKILL)
    wait_for(lambda: witness.started("a", 2), "the job runs again")
    assert processes.alive(kept)
    # The daemon dies, and a worker after it.
    daemon.again()
    os.kill(daemon.worker_of("a"), signal.SIGKILL)
    wait_for(lambda: witness.started("a", 3), "the job runs again")
    assert processes.alive(kept)
    # Both die.
    worker = daemon.worker_of("a")
    daemon.kill()
    processes.kill(worker)
    gate.open()
    daemon.start()
    daemon.wait_for_state("a", "dead", "completed")
    assert processes.alive(kept)
    # The daemon stops, and is started again.
    assert daemon.stop() == 0
    assert processes.alive(kept)
    daemon.start()
    enqueue(daemon, "true", id="b")
    daemon.wait_for_state("b", "completed")
    assert processes.alive(kept)

    # And when it ends, nothing tells of it any more.
    files = list((daemon.state / "kept").iterdir())
    assert len(files) == 1
    processes.kill(kept)
    wait_for(lambda: not list((daemon.state / "kept").iterdir()), "it is forgotten")
    if mode == "auto":
        token = files[0].name.rpartition(".")[2]
        assert not cgroup_place.there(f"{root_of(daemon)}/{token}")


@BOTH
@pytest.mark.parametrize("end", ["cancel", "timeout", "stop"])
def test_what_a_job_that_keeps_has_started_is_ended_when_the_job_is(
    new_daemon: Callable[..., LiveDaemon], mode: str, end: str
) -> None:
    daemon = new_daemon(cgroups=mode, shutdown_grace=0).start()
    pid_file = daemon.home / "service"
    extra = {"timeout": 0.5} if end == "timeout" else {}
    enqueue(daemon, f"{HIDE.format(pid_file)} sleep 1000", id="a", leftovers="keep", max_retries=0, **extra)
    started = number_in(pid_file)

    if end == "cancel":
        with daemon.wire() as wire:
            wire.call("cancel", select={"ids": ["a"]})
    if end == "stop":
        assert daemon.stop() == 0
    else:
        daemon.wait_for_state("a", "cancelled", "dead")

    assert not processes.alive(started)
    assert not list((daemon.state / "kept").glob("*"))


@BOTH
def test_what_an_attempt_meant_to_keep_is_ended_if_its_end_was_never_told(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, mode: str
) -> None:
    daemon = new_daemon(cgroups=mode).start()
    pid_file = daemon.home / "service"
    # The worker is killed once it has written down what is kept, and before it can tell the daemon, which stands still.
    command = witness.command(f"[ $QUEUECTL_ATTEMPT != 1 ] || {{ {SERVE.format(pid_file)} : ; }}")
    enqueue(daemon, f"[ $QUEUECTL_ATTEMPT != 1 ] || until [ -e {daemon.home}/go ]; do sleep 0.01; done; {command}",
            id="a", leftovers="keep")  # fmt: skip
    worker = daemon.worker_of("a")
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGSTOP)
    (daemon.home / "go").touch()
    started = number_in(pid_file)
    wait_for(lambda: list((daemon.state / "kept").glob("[!.]*")), "it is written down")
    daemon.kill()
    processes.kill(worker)
    for filed in (daemon.state / "outcomes").iterdir():
        filed.unlink()

    daemon.start()
    daemon.wait_for_state("a", "completed")

    assert [attempt["reason"] for attempt in daemon.history("a")] == ["lost", "exited"]
    assert not processes.alive(started)
    assert not list((daemon.state / "kept").iterdir())
