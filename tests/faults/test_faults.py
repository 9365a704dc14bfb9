"""A little of each attack, with every run of the tests; `python -m tests.faults` does all of it."""

from __future__ import annotations

import signal

import pytest

from tests.faults import crashpoints, cuts, fulldisk, iofaults, kills, mutants, powercut, rescue, workerpoints
from tests.faults.suite import clean, home, needs_strace, tallied
from tests.faults.tracing import attach, killing
from tests.system import processes
from tests.system.livedaemon import LiveDaemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
traced = pytest.mark.skipif(needs_strace() is not None, reason="needs strace")
on_a_disk = pytest.mark.skipif(powercut.hindrance() is not None, reason=powercut.hindrance() or "")
on_a_small_disk = pytest.mark.skipif(fulldisk.hindrance() is not None, reason=fulldisk.hindrance() or "")

# Cgroups are not everywhere; where there are none, nothing is made or removed for them.
OPTIONAL = {"group"}


@traced
@pytest.mark.parametrize("kind", crashpoints.CALLS)
def test_a_daemon_that_dies_at_its_nth_call_loses_nothing_and_runs_nothing_twice(kind: str) -> None:
    clean(tallied(crashpoints.attack, [kind], rounds=3, seed=1), faults=0 if kind in OPTIONAL else 1)


@traced
@pytest.mark.parametrize("kind", [*workerpoints.BESIDE, *workerpoints.ALONE])
def test_a_worker_that_dies_at_its_nth_call_costs_an_attempt_and_no_job(kind: str) -> None:
    clean(tallied(workerpoints.attack, [kind], rounds=2, seed=1), faults=0 if kind in OPTIONAL else 1)


@on_a_disk
def test_a_power_cut_takes_nothing_that_was_acknowledged() -> None:
    tally = clean(tallied(cuts.run, 3, seed=1))

    assert sum(tally.faults[kind] for kind in ("power cut", "power cut without a daemon")) == 3


def test_kills_at_random_under_load_lose_nothing_and_run_nothing_twice() -> None:
    assert clean(tallied(kills.run, 100, seed=1)).faults.total() == 100


def test_what_becomes_of_the_daemon_is_noticed_by_no_job() -> None:
    assert clean(tallied(kills.run_gently, 30, seed=1)).faults.total() == 30


@traced
@pytest.mark.parametrize("name", [*iofaults.DAEMON, *iofaults.WORKER])
def test_a_call_that_fails_costs_nothing_that_was_acknowledged(name: str) -> None:
    # How many files are opened depends on how many processes the host has.
    clean(tallied(iofaults.attack, [name], seed=1), faults=0 if name == "open EMFILE" else 1)


@on_a_small_disk
def test_a_full_disk_costs_nothing_that_was_acknowledged() -> None:
    clean(tallied(fulldisk.run, 3, seed=1))


def test_the_job_of_a_killed_worker_runs_again_soon_and_a_daemon_with_many_jobs_is_soon_back() -> None:
    assert clean(tallied(rescue.run, 6, seed=1)).faults["worker killed"] == 6


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_what_is_broken_on_purpose_is_noticed(name: str) -> None:
    if why := mutants.MUTANTS[name].hindrance():
        pytest.skip(why)

    clean(tallied(mutants.attack, name, seed=1))


@on_a_disk
@traced
def test_what_a_killed_daemon_had_written_and_not_fsynced_lasts_before_the_next_one_tells_of_it() -> None:
    request = {"jobs": [{"id": "a", "command": "true", "delay": 3600}], "request": "key-1"}
    with home() as place, powercut.disk(place / "state") as storage, LiveDaemon(place) as daemon:
        daemon.start()
        with daemon.wire() as wire:
            wire.call("enqueue", jobs=[{"id": "first", "command": "true", "delay": 3600}])
            # After the log was written, before it is on disk.
            tracer = attach(daemon, daemon.pid, killing("fdatasync", 1))
            with pytest.raises(ConnectionError):
                wire.call("enqueue", **request)
        tracer.wait(20)
        assert daemon.process is not None
        assert daemon.process.wait(20) == -signal.SIGKILL
        daemon.start()
        with daemon.wire() as wire:
            (again,) = wire.call("enqueue", **request)["jobs"]

            storage.cut()

        processes.end(daemon.home)
        daemon.process.wait()
        storage.again()
        daemon.start()
        with daemon.wire() as wire:
            assert wire.state("first") == "pending"
            assert wire.state("a") == "pending", again
