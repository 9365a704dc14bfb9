"""Group commit: nobody is told of anything that is not on disk, and one failure is nobody else's."""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from queuectld.domain.job import Job, State
from queuectld.errors import DiskFullError, DuplicateIdError, StoreDamagedError, StoreError
from queuectld.store.base import Entry, Query
from queuectld.store.memory import MemoryStore
from queuectld.store.sqlite import open_store
from queuectld.store.thread import Batcher, FatalError, StoreThread, Submission
from tests.store.driving import NOW, Driver, draft


def enqueue(*names):
    """Work that adds jobs and refuses all if one is refused."""

    def work(store):
        answers = store.add([draft(name) for name in names])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer.id for answer in answers]

    return work


def note(event):
    return lambda store: store.write_entry(Entry(at=NOW, event=event))


def run(store, *works, sheds=()):
    return Batcher(store).run([Submission(work, print, index in sheds) for index, work in enumerate(works)])


def names(store):
    return [job.id for job in store.find(Query()).jobs]


def kinds(results):
    return [type(result).__name__ if isinstance(result, Exception) else result for result in results]


class Faulty(MemoryStore):
    """Loses transactions as SQLite does when the disk is full or broken."""

    def __init__(self, *, at_commit=(), in_work=()):
        super().__init__()
        # What goes wrong with the n-th transaction.
        self.at_commit = dict(at_commit)
        self.in_work = dict(in_work)
        self.transactions = 0
        self.checkpoints = 0
        self.lost = False

    @contextmanager
    def transaction(self):
        self.transactions += 1
        number = self.transactions
        self.lost = False
        with super().transaction():
            yield
            if number in self.at_commit:
                raise self.at_commit[number]

    def write_entry(self, entry):
        if entry.event == "big" and self.transactions in self.in_work:
            self.lost = True
            raise self.in_work[self.transactions]
        super().write_entry(entry)

    def intact(self):
        return super().intact() and not self.lost

    def checkpoint(self, *, truncate=False):
        super().checkpoint(truncate=truncate)
        self.checkpoints += 1


def test_a_batch_shares_one_commit():
    store = Faulty()

    results = run(store, enqueue("a"), enqueue("b"), enqueue("c"))

    assert results == [["a"], ["b"], ["c"]]
    assert store.transactions == 1


def test_an_item_that_fails_harms_no_other(store):
    def broken(store):
        store.add([draft("lost")])
        raise ZeroDivisionError

    results = run(store, enqueue("a"), broken, enqueue("a"), enqueue("b", "a"), enqueue("c"))

    assert kinds(results) == [["a"], "ZeroDivisionError", "DuplicateIdError", "DuplicateIdError", ["c"]]
    assert names(store) == ["a", "c"]
    assert [entry.job for entry in store.take_entries()] == ["a", "c"]


@pytest.mark.parametrize("error", [DiskFullError(), StoreError("I/O error")])
def test_what_seemed_to_succeed_runs_again_when_the_transaction_is_lost(error):
    store = Faulty(in_work={1: error})

    results = run(store, note("result"), enqueue("a"), note("big"), sheds={1})

    assert results == [None, error, None]
    assert names(store) == []
    assert [entry.event for entry in store.take_entries()] == ["result", "big"]


def test_a_commit_refused_by_a_full_disk_sheds_the_enqueues_and_keeps_the_results():
    store = Faulty(at_commit={1: DiskFullError()})

    results = run(store, enqueue("a"), note("result"), enqueue("b"), sheds={0, 2})

    assert kinds(results) == ["DiskFullError", None, "DiskFullError"]
    assert [entry.event for entry in store.take_entries()] == ["result"]
    assert store.checkpoints == 1


def test_when_even_the_results_do_not_fit_together_each_is_tried_alone():
    store = Faulty(at_commit={1: DiskFullError(), 2: DiskFullError(), 4: DiskFullError()})

    results = run(store, enqueue("a"), note("first"), note("second"), note("third"), sheds={0})

    assert kinds(results) == ["DiskFullError", None, "DiskFullError", None]
    assert [entry.event for entry in store.take_entries()] == ["first", "third"]


def test_a_failed_fsync_is_fatal_and_nothing_is_tried_again():
    store = Faulty(at_commit={1: StoreError("fsync failed")})

    with pytest.raises(FatalError, match="fsync failed"):
        run(store, enqueue("a"))

    assert store.transactions == 1


def test_damage_is_fatal():
    def damaged(_store):
        raise StoreDamagedError

    store = Faulty()

    with pytest.raises(FatalError):
        run(store, enqueue("a"), damaged)

    assert names(store) == []


class Owner:
    """The owner of a store thread, on the thread of the test."""

    def __init__(self, store):
        self.calls = SimpleQueue()
        self.told = []
        self.thread = StoreThread(
            store,
            deliver=self.calls.put,
            publish=self.publish,
            on_fatal=lambda error: self.told.append(("fatal", str(error))),
        )

    def publish(self, entries):
        self.told.append([entry.event for entry in entries])

    def submit(self, work, *, sheds=False):
        self.thread.submit(work, self.told.append, sheds=sheds)

    def turn(self):
        self.calls.get(timeout=20)()

    def ask(self, work, *, sheds=False):
        self.submit(work, sheds=sheds)
        self.turn()
        return self.told[-1]


@pytest.fixture
def owner(store):
    made = Owner(store)
    yield made
    made.thread.close()


def test_what_waits_while_the_thread_is_busy_is_delivered_in_one_call(owner):
    entered, leave = threading.Event(), threading.Event()

    def slow(_store):
        entered.set()
        leave.wait(20)

    owner.submit(slow)
    entered.wait(20)
    for name in "abc":
        owner.submit(enqueue(name))
    leave.set()
    owner.turn()
    owner.turn()

    assert owner.told == [None, ["job.enqueued"] * 3, ["a"], ["b"], ["c"]]
    assert owner.calls.empty()


def test_followers_hear_of_entries_before_the_reply(owner):
    owner.ask(enqueue("a"))

    assert owner.told == [["job.enqueued"], ["a"]]


def test_a_receiver_that_fails_does_not_keep_results_from_the_others(owner):
    def fails(_result):
        raise ZeroDivisionError

    entered, leave = threading.Event(), threading.Event()
    owner.submit(lambda _store: entered.set() or leave.wait(20))
    entered.wait(20)
    owner.thread.submit(enqueue("a"), fails)
    owner.submit(enqueue("b"))
    leave.set()
    owner.turn()

    with pytest.raises(ExceptionGroup):
        owner.turn()

    assert owner.told[-1] == ["b"]


def test_a_follower_that_fails_keeps_no_result_from_anybody(store):
    class Deafened(Owner):
        def publish(self, entries):
            raise ZeroDivisionError(entries)

    owner = Deafened(store)
    owner.submit(enqueue("a"))

    with pytest.raises(ExceptionGroup):
        owner.turn()

    assert owner.told == [["a"]]
    owner.thread.close()


def test_closing_finishes_what_was_submitted_and_takes_nothing_more(tmp_path):
    owner = Owner(open_store(tmp_path / "queue.db"))
    for index in range(50):
        owner.submit(enqueue(f"j{index}"))

    owner.thread.close()

    with pytest.raises(StoreError):
        owner.submit(enqueue("late"))
    assert not (tmp_path / "queue.db-wal").exists()
    store = open_store(tmp_path / "queue.db")
    assert store.counts() == {"default": {State.PENDING: 50}}
    store.close()


def test_the_log_is_moved_into_the_database_when_nothing_waits(tmp_path):
    moved = threading.Event()
    store = open_store(tmp_path / "queue.db")
    checkpoint = store.checkpoint
    store.checkpoint = lambda *, truncate=False: (checkpoint(truncate=truncate), moved.set())
    owner = Owner(store)

    owner.ask(enqueue("a"))

    assert moved.wait(20)
    owner.thread.close()


def test_after_a_fatal_error_the_owner_is_told_and_everything_is_refused():
    owner = Owner(Faulty(at_commit={1: StoreError("fsync failed")}))

    owner.submit(enqueue("a"))
    owner.turn()
    owner.turn()
    late = owner.ask(enqueue("b"))
    owner.thread.close()

    assert owner.told[0] == ("fatal", "fsync failed")
    assert kinds(owner.told[1:]) == ["StoreError", "StoreError"]
    assert str(late) == "fsync failed"


# A real full disk.


@pytest.fixture
def small_disk(tmp_path, mount_small):
    return mount_small(tmp_path / "disk", "1m")


def big(name):
    return lambda store: store.add([draft(name, command="x" * 50_000)])[0]


def small(name):
    return lambda store: store.add([draft(name)])[0]


def fill(owner):
    """Enqueue until the disk is full; return the names of what was acknowledged."""
    acknowledged = []
    for index in range(100):
        answer = owner.ask(big(f"big{index}"), sheds=True)
        if isinstance(answer, DiskFullError):
            return acknowledged
        assert isinstance(answer, Job)
        acknowledged.append(answer.id)
    pytest.fail("the disk never became full")


def test_on_a_full_disk_nothing_acknowledged_is_lost_and_it_goes_on_when_there_is_space(small_disk):
    owner = Owner(open_store(small_disk / "queue.db"))
    acknowledged = fill(owner)
    assert acknowledged

    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    answers = [owner.ask(big(f"more{index}"), sheds=True) for index in range(20)]
    owner.thread.close()

    store = open_store(small_disk / "queue.db")
    assert names(store) == acknowledged + [answer.id for answer in answers]
    assert [job.version for job in store.find(Query()).jobs] == [0] * len(names(store))
    assert [entry.number for entry in store.entries(start=1, limit=100).entries] == list(
        range(1, len(acknowledged) + 21)
    )
    store.close()


def test_on_a_full_disk_a_batch_keeps_its_results_and_sheds_its_enqueues(small_disk):
    store = open_store(small_disk / "queue.db")
    drive = Driver(store)
    (job,) = drive.add(draft("runs"))
    running = drive.claim(job)
    store.checkpoint()

    results = Batcher(store).run(
        [
            Submission(lambda s: s.save(running, was=running), print),
            *(Submission(big(f"big{index}"), print, sheds=True) for index in range(30)),
            Submission(lambda s: s.write_entry(Entry(at=NOW, event="result")), print),
        ]
    )

    assert results[0].version == running.version + 1
    assert results[-1] is None
    assert {type(result) for result in results[1:-1]} == {DiskFullError}
    assert names(store) == ["runs"]
    assert store.counts() == {"default": {State.PROCESSING: 1}}
    assert [entry.event for entry in store.take_entries()] == ["job.enqueued", "job.started", "result"]
    store.close()


def test_duplicates_are_found_across_items_of_a_batch(store):
    assert kinds(run(store, small("a"), small("a")))[0].id == "a"
    assert isinstance(run(store, small("b"), small("a"))[1], DuplicateIdError)


# A full disk.


class Slices:
    """A reserve of so many slices, on a disk that is full until it has `space`."""

    def __init__(self, slices=0, *, space=False):
        self.slices = slices
        self.space = space
        self.looks = 0

    def make(self):
        self.looks += 1
        return self.space

    def release(self):
        self.slices -= 1
        return self.slices >= 0


def full_for(transactions):
    return {number: DiskFullError() for number in range(1, transactions + 1)}


def test_the_reserve_is_given_up_until_what_is_under_way_fits():
    store, reserve = Faulty(at_commit=full_for(3)), Slices(8)

    results = Batcher(store, reserve).run([Submission(enqueue("a"), print, True), Submission(note("result"), print)])

    assert kinds(results) == ["DiskFullError", None]
    assert reserve.slices == 5


def test_once_the_disk_was_full_new_work_is_refused_untried_until_there_is_space():
    store, reserve = Faulty(at_commit=full_for(1)), Slices(8)
    batcher = Batcher(store, reserve)
    new = [Submission(enqueue("a"), print, True)]

    first, second, still = batcher.run(new), batcher.run(new), batcher.has_space()
    reserve.space = True
    space, third = batcher.has_space(), batcher.run(new)

    assert [kinds(results) for results in (first, second, third)] == [["DiskFullError"], ["DiskFullError"], [["a"]]]
    assert (still, space) == (False, True)
    assert reserve.slices == 7


def test_when_the_reserve_is_used_up_results_are_refused_one_by_one():
    store = Faulty(at_commit=full_for(4))

    results = Batcher(store, Slices(1)).run([Submission(note("first"), print), Submission(note("second"), print)])

    assert kinds(results) == ["DiskFullError", None]


def test_the_thread_looks_for_space_while_there_is_none_and_never_else(monkeypatch):
    monkeypatch.setattr("queuectld.store.thread._LOOK", 0.01)
    told = SimpleQueue()
    reserve = Slices(8)
    thread = StoreThread(
        MemoryStore(),
        deliver=lambda call: call(),
        publish=print,
        on_fatal=print,
        reserve=reserve,
        on_space=told.put,
    )

    full = told.get(timeout=10)
    reserve.space = True
    over = told.get(timeout=10)
    looks = reserve.looks
    thread.submit(enqueue("a"), told.put, sheds=True)
    answer = told.get(timeout=10)
    thread.close()

    assert (full, over, answer) == (False, True, ["a"])
    assert reserve.looks == looks
