"""The disk fails, or is full: what was acknowledged stays, what cannot be stored is refused, nothing is made up."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError
from tests.system.witness import Witness

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def faulty(calls: str, error: str, when: str) -> tuple[str, ...]:
    """Return what makes these calls of a program fail; the programs that it starts are let go."""
    inject = f"inject={calls}:error={error}:when={when}"
    return ("strace", "-f", "-b", "execve", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject)


def submit_until_refused(daemon: LiveDaemon, command: str) -> tuple[list[str], Exception]:
    """Store jobs one by one; return those that were acknowledged, and what came instead of the next answer."""
    acknowledged: list[str] = []
    with daemon.wire() as wire:
        for number in range(1000):
            try:
                acknowledged.append(wire.enqueue(command, id=f"n{number}"))
            except (RefusedError, OSError) as error:
                return acknowledged, error
    raise AssertionError("nothing was refused")


def test_a_failed_fsync_ends_the_daemon_with_74_and_the_next_one_has_what_was_acknowledged(
    new_daemon: Callable[..., LiveDaemon], witness: Witness
) -> None:
    # Late enough for the start of the daemon and a few jobs.
    daemon = new_daemon().start(*faulty("fsync,fdatasync", "EIO", "40+"))

    acknowledged, _ = submit_until_refused(daemon, witness.command())
    assert daemon.process is not None
    code = daemon.process.wait(30)
    daemon.start()

    assert code == 74
    assert acknowledged
    wait_for(lambda: set(daemon.counts()) == {"completed"}, "all jobs are over")
    with daemon.wire() as wire:
        assert set(acknowledged) <= set(wire.ids())
    assert witness.overlaps() == []
    assert witness.repeated() == []


def test_on_a_full_disk_jobs_are_refused_and_taken_again_when_there_is_space(
    new_daemon: Callable[..., LiveDaemon], witness: Witness
) -> None:
    # Late enough for the start of the daemon.
    daemon = new_daemon().start(*faulty("pwrite64", "ENOSPC", "250..270"))

    acknowledged, error = submit_until_refused(daemon, witness.command())

    assert isinstance(error, RefusedError)
    assert error.code == "disk_full"
    assert acknowledged
    wait_for(lambda: stored(daemon, witness), "jobs are taken again")
    wait_for(lambda: set(daemon.counts()) == {"completed"}, "all jobs are over")
    with daemon.wire() as wire:
        assert set(acknowledged) <= set(wire.ids())
    assert witness.overlaps() == []
    assert witness.repeated() == []


def stored(daemon: LiveDaemon, witness: Witness) -> bool:
    try:
        with daemon.wire() as wire:
            wire.enqueue(witness.command())
    except RefusedError:
        return False
    return True
