"""The supervisor at moments that are hard to hit from outside: the store, the disk or the clock is held up there."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from queuectld.domain.attempt import Reason
from queuectld.domain.job import State
from queuectld.domain.transitions import request_cancel
from queuectld.errors import DiskFullError
from queuectld.host.children import Children
from queuectld.protocol.worker_messages import CHANNEL_VERSION
from queuectld.supervisor import dispatch, endings, files, link, linux, rescue
from queuectld.worker import procfs
from tests.process.supervisor_rig import Rig, until
from tests.system import processes

LONG = "touch $QUEUECTL_JOB_ID; exec sleep 1000"


@pytest.fixture
def home():
    place = Path(tempfile.mkdtemp(prefix="queuectl-test-"))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def play(home):
    """Run a scenario with a rig that has these configuration keys; at the end nothing of it is left."""

    def run(scenario, **keys):
        async def whole():
            async with Rig(home, **keys) as rig:
                await scenario(rig)

        asyncio.run(asyncio.wait_for(whole(), 60))
        assert processes.of(home) == []

    return run


def hold_inputs(monkeypatch):
    """Hold up the writing of inputs until what is returned is set."""
    write, gate = files._write_inputs, threading.Event()

    def wait_and_write(*arguments):
        gate.wait(30)
        return write(*arguments)

    monkeypatch.setattr(files, "_write_inputs", wait_and_write)
    return gate


def hold_claims(rig):
    """Let claims be committed, and hold their answers back until what is returned is called."""
    claim, answers = rig.records.claim, []

    def hold(offers, done, *, ripen):
        claim(offers, lambda claims: answers.append(partial(done, claims)), ripen=ripen)

    def release():
        rig.records.claim = claim
        while answers:
            answers.pop(0)()

    rig.records.claim = hold
    return release


async def claimed_on_its_way(rig):
    """Have a job that is claimed, while the supervisor does not know it yet; return what tells it."""
    await rig.idle()
    release = hold_claims(rig)
    await rig.add("a", command=LONG)
    await rig.reach("a", State.PROCESSING)
    return release


async def all_gone(pids):
    return not any(processes.alive(pid) for pid in pids)


async def attempts_of(rig, name):
    job = await rig.job(name)
    return await rig.ledger.write(lambda store: store.attempts_of(job.seq))


def test_a_cancel_between_a_claim_and_its_command_is_not_lost(play, monkeypatch):
    async def scenario(rig):
        gate = hold_inputs(monkeypatch)
        await rig.add("a", command=LONG, stdin=b"input")
        token = (await rig.reach("a", State.PROCESSING)).token

        def cancel(store):
            job = store.get("a")
            store.save(request_cancel(job, why="", now=rig.clock()), was=job)

        await rig.ledger.write(cancel)
        assert [(worker.phase, worker.job) for worker in rig.supervisor.workers()] == [("running", "a")]
        rig.supervisor.cancel(token, kill_after=None)
        gate.set()

        await rig.reach("a", State.CANCELLED)
        assert not (rig.home / "a").exists()
        assert list(rig.state.input.iterdir()) == []

    play(scenario)


@pytest.mark.parametrize("mode", ["drain", "now", "wait"])
def test_a_job_that_is_being_claimed_when_the_daemon_stops_goes_back_to_its_queue(home, mode):
    async def scenario():
        async with Rig(home) as rig:
            release = await claimed_on_its_way(rig)
            ended = asyncio.ensure_future(rig.stop(mode))
            await asyncio.sleep(0.1)
            release()

            assert await ended < 2
        return rig.store

    store = asyncio.run(asyncio.wait_for(scenario(), 60))

    assert processes.of(home) == []
    assert not (home / "a").exists()
    assert (store.get("a").state, store.get("a").retries_spent, store.live_attempts()) == (State.PENDING, 0, [])


def test_a_job_whose_input_is_being_written_when_the_daemon_stops_goes_back_to_its_queue(home, monkeypatch):
    async def scenario():
        async with Rig(home) as rig:
            gate = hold_inputs(monkeypatch)
            await rig.add("a", command=LONG, stdin=b"input")
            await rig.reach("a", State.PROCESSING)
            ended = asyncio.ensure_future(rig.stop("drain"))
            await asyncio.sleep(0.1)
            gate.set()

            assert await ended < 2
        return rig.store

    store = asyncio.run(asyncio.wait_for(scenario(), 60))

    assert not (home / "a").exists()
    assert (store.get("a").state, store.live_attempts()) == (State.PENDING, [])


def test_workers_that_are_stopped_at_once_do_not_start_what_was_just_claimed(play):
    async def scenario(rig):
        release = await claimed_on_its_way(rig)
        rig.bound(0)
        rig.supervisor.interrupt_all()
        release()

        job = await rig.reach("a", State.PENDING)
        assert (job.reason, job.retries_spent) == (Reason.INTERRUPTED, 0)
        assert not (rig.home / "a").exists()

    play(scenario)


def test_jobs_that_come_together_start_together(play):
    async def scenario(rig):
        await rig.idle()
        since = time.monotonic()
        await rig.add("a", "b", "c", command=LONG)

        for name in "abc":
            await rig.running(name)
        # Without waiting for the next look at the workers' health.
        assert time.monotonic() - since < 10

    play(scenario, workers=3)


def test_a_lower_bound_interrupts_nobody_and_holds_for_what_comes_after(play):
    async def scenario(rig):
        await rig.add("a", "b", "c", command="touch $QUEUECTL_JOB_ID; until [ -e go ]; do sleep 0.01; done")
        for name in "abc":
            await rig.running(name)
        await rig.add("d", "e", command="mkdir alone && sleep 0.1 && rmdir alone", max_retries=0)

        rig.bound(1)
        (rig.home / "go").touch()

        for name in "abcde":
            await rig.reach(name, State.COMPLETED)
            assert [one.outcome.reason for one in await attempts_of(rig, name)] == [Reason.EXITED]
        await until(lambda: rig.has_workers(1), "the others have ended")

    play(scenario, workers=3)


def test_workers_may_be_forbidden_and_allowed_in_any_phase(play):
    async def scenario(rig):
        # Before they are there, while they idle, and while they have a job.
        rig.bound(0)
        await until(lambda: rig.has_workers(0), "the starting one has ended")
        rig.bound(2)
        await rig.idle()
        rig.bound(0)
        await until(lambda: rig.has_workers(0), "the idle ones have ended")
        rig.bound(1)
        await rig.add("a", command="touch a; until [ -e go ]; do sleep 0.01; done")
        await rig.running("a")
        rig.bound(0)
        rig.bound(1)
        await rig.add("b")
        (rig.home / "go").touch()

        for name in "ab":
            await rig.reach(name, State.COMPLETED)

    play(scenario)


def test_jobs_that_wait_for_their_time_start_though_the_store_failed_when_one_was_due(play, monkeypatch):
    monkeypatch.setattr(dispatch, "_CLAIM_AGAIN", 0.1)

    async def scenario(rig):
        await rig.idle()
        claim, refused = rig.records.claim, []

        def refuse(_offers, done, *, ripen):
            rig.records.claim = claim
            refused.append(ripen)
            asyncio.get_running_loop().call_soon(done, DiskFullError())

        await rig.add("a", due=rig.clock() + 0.2)
        await rig.add("b", due=rig.clock() + 0.8)
        rig.records.claim = refuse

        for name in "ab":
            await rig.reach(name, State.COMPLETED)
        assert refused == [True]

    play(scenario)


def test_an_attempt_that_ends_while_it_is_lent_makes_no_room_for_two(play):
    async def scenario(rig):
        await rig.add("outer", command="touch outer; until [ -e go ]; do sleep 0.01; done", max_retries=0)
        await rig.running("outer")
        release = rig.supervisor.lend((await rig.job("outer")).token)
        await rig.add("inner", command=LONG)
        await rig.running("inner")
        await rig.add("next")

        (rig.home / "go").touch()
        await rig.reach("outer", State.COMPLETED)
        release()

        # What was claimed along with the end would be on record by now.
        assert (await rig.job("next")).state is State.PENDING

    play(scenario)


def test_silence_is_judged_only_along_with_a_reading_that_came_in_time(play):
    async def scenario(rig):
        await rig.add("a", command=LONG)
        worker = await rig.running("a")
        [known] = rig.supervisor._crew
        known.heard_at -= 1000

        rig.supervisor.replan()

        assert known.pid == worker
        await asyncio.sleep(0.1)
        assert processes.alive(worker)

    play(scenario)


def test_a_stall_of_the_loop_does_not_count_against_workers_that_are_expected(play):
    async def scenario(rig):
        await rig.idle()
        rig.bound(2)
        rig.supervisor.start_workers(2)
        pids = {worker.pid for worker in rig.supervisor.workers()}
        assert len(pids) == 2

        # The loop stands still, which is the point: meanwhile the second one comes to the door.
        time.sleep(2)  # noqa: ASYNC251
        await until(rig.all_idle, "both are there")

        assert {worker.pid for worker in rig.supervisor.workers()} == pids

    play(scenario, adopt_timeout=0.5)


def test_what_cannot_be_killed_holds_up_neither_the_daemons_end_nor_its_threads(home, monkeypatch):
    async def scenario():
        async with Rig(home, workers=8) as rig:
            names = [f"j{number}" for number in range(8)]
            await rig.add(*names, command=LONG)
            workers = [await rig.running(name) for name in names]
            immortal = procfs.Stat(1, "immortal", "D", 0, 1, 1, 0)
            rounds = []

            async def tried_again():
                return len(rounds) > 2 * len(workers)

            monkeypatch.setattr(rescue, "_kill_round", lambda *_: rounds.append(1) or ([immortal], False))
            for worker in workers:
                processes.kill(worker)
            await until(lambda: all_gone(workers), "they are dead")
            await until(tried_again, "it is tried again and again")

            assert await asyncio.wait_for(asyncio.to_thread(lambda: "a thread is free"), 5)
            assert await rig.stop("now") < 2
            # Their commands have come to us.
            rig.clean()
            Children().reap()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_job_is_rescued_though_the_host_could_not_be_looked_at_once(play, monkeypatch):
    async def scenario(rig):
        await rig.add("a", command="[ $QUEUECTL_ATTEMPT = 2 ] || { touch a; exec sleep 1000; }")
        worker = await rig.running("a")
        look, failed = rescue._kill_round, []

        def fail_once(*arguments):
            if not failed:
                failed.append(True)
                raise OSError(24, "Too many open files")
            return look(*arguments)

        monkeypatch.setattr(rescue, "_kill_round", fail_once)
        processes.kill(worker)

        await rig.reach("a", State.COMPLETED)
        assert failed
        assert [attempt.outcome.reason for attempt in await attempts_of(rig, "a")] == [Reason.LOST, Reason.EXITED]

    play(scenario)


def test_a_job_that_may_run_only_once_is_not_run_again_after_its_worker_was_overdue(home):
    async def scenario():
        async with Rig(home) as rig:
            await rig.add("a", command=LONG, rerun="never")
            worker = await rig.running("a")
            await until(lambda: leader_known(rig), "its process is known")
            # It cannot do what it is told.
            processes.kill(worker, 19)

            assert await rig.stop("now") < 0.2 + 1 + 0.5
        return rig.store

    store = asyncio.run(asyncio.wait_for(scenario(), 60))

    assert (store.get("a").state, store.get("a").reason) == (State.DEAD, Reason.INTERRUPTED)
    assert processes.of(home) == []


async def leader_known(rig):
    return next(iter(rig.supervisor._crew)).started


def test_an_outcome_that_cannot_be_recorded_before_the_daemon_ends_is_kept_by_its_worker(home):
    async def scenario():
        async with Rig(home) as rig:
            await rig.add("a", command="touch a; until [ -e go ]; do sleep 0.01; done")
            await rig.running("a")
            rig.records.finish = lambda _token, _outcome, done, **_: asyncio.get_running_loop().call_soon(
                done, DiskFullError()
            )
            (rig.home / "go").touch()
            await asyncio.sleep(0.1)
            await rig.stop("now")
            await until(lambda: filed(rig), "the outcome is in a file")
            rig.clean()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_an_end_that_the_store_can_never_take_is_not_tried_for_ever(play, monkeypatch):
    monkeypatch.setattr(endings, "_AGAIN", 0.05)

    async def scenario(rig):
        finish, tried = rig.records.finish, []

        def refuse(token, outcome, done, **others):
            tried.append(outcome.reason)
            if outcome.reason is Reason.LOST:
                finish(token, outcome, done, **others)
            else:
                asyncio.get_running_loop().call_soon(done, OverflowError("too large for the store"))

        await rig.add("a", command="true", rerun="never")
        rig.records.finish = refuse

        await rig.reach("a", State.DEAD)
        assert tried == [Reason.EXITED, Reason.LOST]
        rig.records.finish = finish
        await rig.add("b")
        await rig.reach("b", State.COMPLETED)

    play(scenario)


async def filed(rig):
    return list(rig.state.outcomes.glob("[!.]*"))


def test_a_daemon_that_is_told_to_stop_while_it_starts_ends_what_it_finds(home):
    async def scenario():
        async with Rig(home) as first:
            await first.add("a", command=LONG)
            await first.running("a")
            await first.stop("leave")
        second = Rig(home, first.store)
        await second.prepare()
        second.supervisor.shutdown("drain")
        await asyncio.sleep(0)
        await second.supervisor.start()
        assert await second.stop("drain") < 3
        return first.store

    store = asyncio.run(asyncio.wait_for(scenario(), 60))

    assert processes.of(home) == []
    assert (store.get("a").state, store.live_attempts()) == (State.PENDING, [])


def test_a_worker_cannot_come_back_before_the_daemon_knows_what_it_runs(home):
    async def scenario():
        async with Rig(home) as first:
            await first.add("a", command=LONG)
            worker = await first.running("a")
            await first.stop("leave")
        second = Rig(home, first.store)
        await second.prepare()
        look = second.records.live_attempts

        async def look_while_nobody_listens():
            with pytest.raises(OSError, match=r"refused|No such file"):
                procfs.connect_unix(str(second.state.path), "worker.sock")
            return await look()

        second.records.live_attempts = look_while_nobody_listens
        await second.supervisor.start()
        assert await second.running("a") == worker
        assert (await second.job("a")).attempts == 1
        await second.stop("now")

    asyncio.run(asyncio.wait_for(scenario(), 60))

    assert processes.of(home) == []


def test_idle_workers_of_an_earlier_daemon_are_known_before_they_come_back(home):
    async def scenario():
        async with Rig(home) as first:
            await first.idle()
            [worker] = first.supervisor.workers()
            await first.stop("leave")
        async with Rig(home, first.store) as second:
            assert [one.pid for one in second.supervisor.workers()] == [worker.pid]
            await second.idle()

            assert [one.pid for one in second.supervisor.workers()] == [worker.pid]

    asyncio.run(asyncio.wait_for(scenario(), 60))

    assert processes.of(home) == []


def test_a_job_that_waits_starts_when_the_clock_is_set_behind_its_time_and_not_when_it_is_set_back(play, monkeypatch):
    rings = []

    class Alarm(linux.Alarm):
        def __init__(self, loop, ring):
            super().__init__(loop, ring)
            rings.append(ring)

    monkeypatch.setattr(linux, "Alarm", Alarm)

    async def scenario(rig):
        await rig.idle()
        await rig.add("a", due=rig.clock() + 1000)

        # What the kernel does when somebody sets the clock.
        rig.ahead = -5000
        rings[0]()
        await rig.idle()
        assert (await rig.job("a")).state is State.PENDING
        rig.ahead = 2000
        rings[0]()

        await rig.reach("a", State.COMPLETED)

    play(scenario)


def test_a_job_that_is_being_claimed_when_the_daemon_leaves_runs_under_the_next(home):
    async def scenario():
        async with Rig(home) as first:
            release = await claimed_on_its_way(first)
            ended = asyncio.ensure_future(first.stop("leave"))
            await asyncio.sleep(0)
            release()
            await ended
        async with Rig(home, first.store) as second:
            await second.running("a")
            assert (await second.job("a")).retries_spent == 0

    asyncio.run(asyncio.wait_for(scenario(), 60))

    assert processes.of(home) == []


async def retiring(rig):
    # Which job a worker of the daemon before runs is known a moment after the worker.
    return [worker for worker in rig.supervisor.workers() if worker.phase == "stopping" and worker.job]


def test_a_worker_of_the_version_before_sees_its_job_to_the_end_and_gets_no_other(home, monkeypatch):
    async def scenario():
        async with Rig(home) as first:
            await first.add("a", command="touch a; until [ -e go ]; do sleep 0.01; done")
            old = await first.running("a")
            await first.stop("leave")
        monkeypatch.setattr(link, "CHANNEL_VERSION", CHANNEL_VERSION + 1)
        async with Rig(home, first.store) as rig:
            # There is room for one worker, and the old one is it.
            await rig.add("b", command="exit 9", max_retries=0)
            [worker] = await until(lambda: retiring(rig), "it is known, and has to go")
            assert (worker.pid, worker.job) == (old, "a")
            # The workers of the next one are what it says they are.
            monkeypatch.undo()
            (home / "go").touch()

            assert (await rig.reach("a", State.COMPLETED)).attempts == 1
            await rig.reach("b", State.DEAD)
            assert [attempt.worker_pid for attempt in await attempts_of(rig, "a")] == [old]
            assert [attempt.worker_pid == old for attempt in await attempts_of(rig, "b")] == [False]
            await until(lambda: all_gone([old]), "the old worker has ended")

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_claim_that_waits_for_its_answer_can_be_seen(play):
    async def scenario(rig):
        release = await claimed_on_its_way(rig)
        asked, answered, neglected = rig.supervisor.claims()
        assert (asked - answered, neglected) == (1, False)

        release()

        await rig.running("a")
        asked, answered, _ = rig.supervisor.claims()
        assert asked == answered

    play(scenario)


def test_work_that_nobody_asks_for_while_a_worker_is_free_can_be_seen(play):
    async def scenario(rig):
        await rig.idle()
        await until(lambda: quiet(rig), "nothing is asked for")

        # As if news of a job had come, and nobody had acted on it.
        rig.supervisor._dispatcher.demand.expect(1)
        assert rig.supervisor.claims()[2]

        rig.supervisor.reconfigure()
        assert not rig.supervisor.claims()[2]

    async def quiet(rig):
        asked, answered, neglected = rig.supervisor.claims()
        return asked == answered and not neglected

    play(scenario)
