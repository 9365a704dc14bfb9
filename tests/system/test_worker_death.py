"""A worker is killed in the middle of a job: nothing of the job is left, and it runs again at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.witness import Witness

# Leaves its session, its group, its parent, its environment and its directory, and says who it is.
ESCAPE = "(cd /; setsid env -i sh -c 'echo $$ >>{pids}; exec sleep 1000' &) ; "
# Keeps all of these and only stays.
CHILD = "sleep 1000 & echo $! >>{pids}; "


def numbers(pids: Path) -> list[int]:
    return [int(word) for word in pids.read_text().split()] if pids.exists() else []


@pytest.fixture
def busy(new_daemon: Callable[..., LiveDaemon], gate: Gate) -> LiveDaemon:
    """A daemon whose two workers run `a` and `b`, each with processes around it; `pids` names all of them."""
    daemon = new_daemon().start()
    # The first attempt stays until it is killed; the next ones end when the gate opens.
    body = (ESCAPE + CHILD).format(pids=daemon.home / "pids")
    command = Witness(daemon.home / "witness").command(
        f"if [ $QUEUECTL_ATTEMPT = 1 ]; then {body} wait; fi; {gate.wait()}"
    )
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"id": name, "command": command} for name in ("a", "b")])
    wait_for(lambda: len(numbers(daemon.home / "pids")) == 4, "all processes of both jobs have started")
    return daemon


def test_the_job_of_a_killed_worker_runs_again_at_once_and_none_of_its_processes_is_left(
    busy: LiveDaemon, witness: Witness, gate: Gate, record_property: Callable[[str, object], None]
) -> None:
    worker = busy.worker_of("a")
    children = set(numbers(busy.home / "pids")) - _of_job(busy, "b")

    killed = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: witness.started("a", 2), "the job runs again", deadline=5, every=0.001)
    took = time.monotonic() - killed
    left = [pid for pid in children if processes.alive(pid)]

    record_property("rescue_seconds", took)
    print(f"a killed worker's job ran again after {took * 1000:.0f} ms")
    assert left == []
    gate.open()
    done = busy.wait_for_state("a", "completed")
    assert [attempt["reason"] for attempt in busy.history("a")] == ["lost", "exited"]
    assert (done["attempts"], done["retries_left"]) == (2, 3)
    assert busy.state_of("b") == "processing"
    assert witness.overlaps() == []


def _of_job(daemon: LiveDaemon, job: str) -> set[int]:
    """Return those of the noted processes that belong to a job: by its session, or as descendants of its worker."""
    # This waits until the leader is on record too.
    worker = daemon.worker_of(job)
    leader = daemon.history(job)[-1]["pid"]
    noted = numbers(daemon.home / "pids")
    # The worker is the subreaper: what left its parent is its child.
    near = set(processes.children(worker)) | set(processes.children(leader))
    return {pid for pid in noted if pid in near}


# Kills its worker, and waits for its own end.
POISON = "kill -9 $PPID; sleep 1000"


def test_a_job_that_loses_its_worker_every_time_is_dead_and_harms_no_other(new_daemon, witness: Witness) -> None:
    daemon: LiveDaemon = new_daemon(max_lost=3).start()
    good = [f"good{number}" for number in range(20)]
    jobs = [{"id": name, "command": witness.command("sleep 0.05"), "max_retries": 0} for name in good]
    jobs.insert(3, {"id": "poison", "command": witness.command(POISON), "max_retries": 5})
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=jobs)

    job = daemon.wait_for_state("poison", "dead")
    daemon.wait_for_counts(completed=len(good), dead=1)

    assert (job["reason"], job["attempts"], job["retries_left"]) == ("lost", 3, 5)
    runs = witness.runs()
    assert runs.pop("poison") == ["1 start", "2 start", "3 start"]
    assert runs == {name: ["1 start", "1 end"] for name in good}


def test_losses_count_in_a_row_and_an_honest_end_begins_anew(new_daemon, witness: Witness) -> None:
    daemon: LiveDaemon = new_daemon(max_lost=3).start()
    body = f"case $QUEUECTL_ATTEMPT in 3) exit 7;; 6) exit 0;; *) {POISON};; esac"
    with daemon.wire() as wire:
        wire.enqueue(body, id="unlucky", max_retries=1, backoff_base=0)

    daemon.wait_for_state("unlucky", "completed")

    reasons = [attempt["reason"] for attempt in daemon.history("unlucky")]
    assert reasons == ["lost", "lost", "exited", "lost", "lost", "exited"]


def another_boot(daemon: LiveDaemon) -> str:
    """Return a script that runs its arguments, and lets them believe that the host was down."""
    boot = daemon.home / "boot_id"
    boot.write_text("00000000-0000-0000-0000-000000000000\n")
    return f'mount --bind {boot} /proc/sys/kernel/random/boot_id && exec "$@"'


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can let a daemon believe that the host went down")
def test_a_reboot_is_no_sign_against_a_job(new_daemon, gate: Gate) -> None:
    daemon: LiveDaemon = new_daemon(max_lost=3).start()
    with daemon.wire() as wire:
        wire.enqueue(f"[ $QUEUECTL_ATTEMPT -gt 2 ] || {{ {POISON}; }}; {gate.wait()}", id="brave")
    wait_for(lambda: len(daemon.history("brave")) == 3, "it was lost twice, and runs again")
    daemon.worker_of("brave")
    # All at once, as when the power fails.
    daemon.clean()

    daemon.start("unshare", "--mount", "sh", "-c", another_boot(daemon), "sh")
    gate.open()
    daemon.wait_for_state("brave", "completed")

    assert [attempt["reason"] for attempt in daemon.history("brave")] == ["lost", "lost", "lost", "exited"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can let a daemon believe that the host went down")
def test_what_a_worker_had_not_finished_of_an_outcome_is_removed_after_a_reboot(new_daemon, gate: Gate) -> None:
    daemon: LiveDaemon = new_daemon().start()
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="a")
        daemon.worker_of("a")
        draft = daemon.state / "outcomes" / f".{wire.greeting['store']}.{daemon.history('a')[0]['token']}"
    daemon.clean()
    draft.write_text('{"event":"en')

    daemon.start("unshare", "--mount", "sh", "-c", another_boot(daemon), "sh")
    gate.open()
    daemon.wait_for_state("a", "completed")

    assert not list((daemon.state / "outcomes").iterdir())


def test_a_job_that_may_run_only_once_is_dead_when_its_worker_is_lost(daemon: LiveDaemon, gate: Gate) -> None:
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="once", rerun="never")

    os.kill(daemon.worker_of("once"), signal.SIGKILL)

    job = daemon.wait_for_state("once", "dead")
    assert (job["reason"], job["attempts"]) == ("lost", 1)


def test_a_cancel_is_not_forgotten_when_the_worker_is_lost(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("trap '' TERM; while :; do sleep 0.05; done", id="stubborn", kill_after=3600)
        worker = daemon.worker_of("stubborn")
        wire.call("cancel", select={"ids": ["stubborn"]}, no_wait=True)

    os.kill(worker, signal.SIGKILL)

    assert daemon.wait_for_state("stubborn", "cancelled")["attempts"] == 1


def test_a_worker_that_hangs_is_replaced_and_its_job_rescued(new_daemon, gate: Gate) -> None:
    daemon: LiveDaemon = new_daemon(vitals_interval=0.2).start()
    with daemon.wire() as wire:
        wire.enqueue(f"[ $QUEUECTL_ATTEMPT = 2 ] || {gate.wait()}", id="stuck")
    worker = daemon.worker_of("stuck")

    os.kill(worker, signal.SIGSTOP)

    daemon.wait_for_state("stuck", "completed")
    assert [attempt["reason"] for attempt in daemon.history("stuck")] == ["lost", "exited"]
    assert not processes.alive(worker)


def test_what_a_command_leaves_behind_ends_with_it_and_is_named(daemon: LiveDaemon) -> None:
    pids = daemon.home / "pids"
    with daemon.wire() as wire:
        wire.enqueue((ESCAPE + f"until [ -s {pids} ]; do sleep 0.01; done").format(pids=pids), id="litter")

    daemon.wait_for_state("litter", "completed")

    [left] = numbers(pids)
    assert not processes.alive(left)
    assert daemon.history("litter")[0]["leftovers"] == [f"{left} sleep"]
