"""Both stores give the same answers: every test here runs on the one in memory and on SQLite."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.attempt import Outcome, Reason
from queuectld.domain.ids import job_id
from queuectld.domain.job import State
from queuectld.domain.policy import Policy
from queuectld.domain.spec import Duration, JobSpec
from queuectld.errors import (
    AmbiguousIdError,
    DuplicateIdError,
    NoSuchJobError,
    NoSuchQueueError,
    StaleError,
    StoreError,
)
from queuectld.store.base import Entry, Query, Retention
from tests.store.driving import NOW, attempt, draft

KEEP_ALL = Retention(finished=1e9, finished_count=10**9, deleted=1e9, events=1e9, requests=1e9)


class BoomError(Exception):
    pass


# Adding.


def test_an_added_job_reads_back_as_it_was_with_seq_and_id(drive):
    spec = JobSpec(
        argv=("a", "ö\n"),
        tags={"k": "v"},
        env={"A": "b"},
        timeout=Duration(2.5),
        no_retry_on=(3, "timeout"),
        success_codes=(0, 9),
        note="x",
    )

    (job,) = drive.add(draft("one", spec=spec))

    assert job == replace(draft("one", spec=spec), seq=1)
    assert drive.store.get("one") == job
    assert drive.store.by_seq(1) == job


def test_a_job_without_an_id_gets_the_one_made_of_its_seq(drive):
    jobs = drive.add(draft(), draft("mine"), draft())

    assert [job.id for job in jobs] == [job_id(1), "mine", job_id(3)]


def test_a_made_up_id_that_a_user_has_chosen_already_is_left_out(drive):
    drive.add(draft(job_id(2)), draft(job_id(4)))

    jobs = drive.add(draft(), draft(job_id(6)), draft(), draft())

    assert [job.seq for job in jobs] == [3, 4, 5, 7]
    assert [job.id for job in jobs] == [job_id(3), job_id(6), job_id(5), job_id(7)]


def test_each_refused_job_has_its_error_and_the_others_are_stored(drive):
    drive.add(draft("old"))

    answers = drive.add(draft("a"), draft("old"), draft("a"), draft("b", queue="defalt"), draft("c"))

    assert [type(answer).__name__ for answer in answers] == [
        "Job",
        "DuplicateIdError",
        "DuplicateIdError",
        "NoSuchQueueError",
        "Job",
    ]
    assert isinstance(answers[3], NoSuchQueueError)
    assert "did you mean 'default'?" in answers[3].message
    assert [job.id for job in drive.store.find(Query()).jobs] == ["old", "a", "c"]


def test_adding_writes_an_entry_for_each_job(drive):
    drive.add(draft("a"), draft("b", due=NOW + 60), by="bob")

    entries = drive.store.entries(start=1, limit=10).entries

    assert [(entry.number, entry.event, entry.job, entry.run_at, entry.by) for entry in entries] == [
        (1, "job.enqueued", "a", None, "bob"),
        (2, "job.enqueued", "b", NOW + 60, "bob"),
    ]
    assert list(drive.store.take_entries()) == list(entries)
    assert list(drive.store.take_entries()) == []


def test_a_job_may_stand_in_a_queue_once_it_is_declared(drive):
    with drive.store.transaction():
        drive.store.declare_queue("gpu")
        drive.store.declare_queue("gpu")

    (job,) = drive.add(draft(queue="gpu"))

    assert drive.store.queues() == ["default", "gpu"]
    assert drive.heads("gpu") == [job]


def test_the_id_of_a_deleted_job_is_free_and_the_visible_one_is_found(drive):
    (old,) = drive.add(draft("a"))
    old = drive.step(transitions.discard, drive.bury(old))

    (new,) = drive.add(draft("a"))

    assert drive.store.get("a") == new
    assert drive.store.resolve("a") == new
    assert drive.store.by_seq(old.seq) == old


def test_a_deleted_job_cannot_come_back_while_its_id_is_taken(drive):
    (old,) = drive.add(draft("a"))
    old = drive.step(transitions.discard, drive.bury(old))
    drive.add(draft("a"))

    with pytest.raises(DuplicateIdError):
        drive.step(transitions.undelete, old)

    assert drive.store.by_seq(old.seq) == old
    assert drive.store.counts() == {"default": {State.PENDING: 1, State.DELETED: 1}}


# Saving.


def test_a_save_makes_a_new_version(drive):
    (job,) = drive.add(draft("a"))

    saved = drive.save(replace(job, error="hm", updated_at=NOW + 1), job)

    assert saved == replace(job, error="hm", updated_at=NOW + 1, version=1)
    assert drive.store.get("a") == saved


def test_a_late_report_cannot_undo_a_second_claim(drive):
    (first,) = drive.add(draft("a"))
    lost = drive.claim(first)
    given_back = drive.settle(lost, reason=Reason.INTERRUPTED)
    taken = drive.claim(given_back)

    with pytest.raises(StaleError):
        drive.save(transitions.request_cancel(lost, why="", now=NOW), lost)

    assert drive.store.get("a") == taken


def test_a_stale_save_writes_no_entry_and_counts_nothing(drive):
    (job,) = drive.add(draft("a"))
    drive.step(transitions.cancel, job, why="")
    before = drive.store.last_entry()

    with pytest.raises(StaleError):
        drive.step(transitions.cancel, job, why="again")

    assert drive.store.last_entry() == before
    assert drive.store.counts() == {"default": {State.CANCELLED: 1}}


def test_an_edit_may_change_what_was_asked_for(drive):
    with drive.store.transaction():
        drive.store.declare_queue("gpu")
    (job,) = drive.add(draft("a"))
    spec = replace(job.spec, command="false", queue="gpu")

    saved = drive.save(replace(job, spec=spec), job)

    assert drive.store.get("a") == saved
    assert saved.spec == spec
    assert drive.store.counts() == {"gpu": {State.PENDING: 1}}
    assert drive.heads("gpu") == [saved]
    assert drive.heads() == []


# Order.


def test_heads_come_by_rank_and_then_by_arrival(drive):
    drive.add(
        draft("late", due=NOW - 1),
        draft("first", due=NOW - 10),
        draft("second", due=NOW - 10),
        draft("urgent", priority=1),
        draft("patient", priority=-1, due=NOW - 20),
    )

    heads = drive.heads()

    assert [job.id for job in heads] == ["urgent", "first", "second", "late", "patient"]
    assert [job.id for job in drive.heads(limit=2)] == ["urgent", "first"]


def test_only_waiting_jobs_that_are_due_can_start(drive, numbered):
    with drive.store.transaction():
        drive.store.declare_queue("other")
    drive.add(draft("elsewhere", queue="other"), draft("tomorrow", due=NOW + 86400))
    drive.claim(numbered[0])
    drive.finish(numbered[1])
    drive.bury(numbered[2])
    drive.step(transitions.cancel, numbered[3], why="")
    drive.finish(numbered[4], code=1)

    assert [job.id for job in drive.heads()] == ["j5", "j6", "j7", "j8", "j9"]


def test_a_failed_job_can_start_when_its_time_has_come(drive):
    (job,) = drive.add(draft("a"))
    failed = drive.finish(job, code=1)

    assert failed.due == NOW + 2
    assert drive.store.next_due() == NOW + 2
    assert drive.heads(now=NOW + 1) == []
    assert drive.heads(now=NOW + 2) == [failed]
    assert drive.store.next_due() is None


def test_ripening_goes_in_steps_by_time(drive):
    drive.add(*(draft(f"j{index}", due=NOW + 10 - index) for index in range(5)))

    with drive.store.transaction():
        counts = [drive.store.ripen(NOW + 9, limit=2) for _ in range(3)]

    assert counts == [2, 2, 0]
    assert drive.store.next_due() == NOW + 10
    assert [job.id for job in drive.heads()] == ["j4", "j3", "j2", "j1"]


def test_the_first_due_are_the_heads_of_the_queues_in_which_something_could_start(drive):
    with drive.store.transaction():
        drive.store.declare_queue("other")
        drive.store.declare_queue("idle")
    assert drive.store.first_due() == {}

    drive.add(
        draft("a", priority=9),
        draft("b", due=NOW - 99),
        draft("c", queue="other", due=NOW - 5),
        draft("later", queue="idle", due=NOW + 5),
    )

    # The head of the default queue is `a`, however long `b` has waited behind it.
    assert drive.store.first_due() == {"default": NOW, "other": NOW - 5}


def test_dead_jobs_count_as_unseen_until_somebody_takes_notice_or_brings_them_back(drive):
    with drive.store.transaction():
        drive.store.declare_queue("other")
    jobs = drive.add(draft("a"), draft("b"), draft("c"), draft("d", queue="other"), draft("fine"))
    first, second, third, _ = [drive.bury(job) for job in jobs[:4]]
    assert drive.store.unseen_dead() == {"default": 3, "other": 1}

    drive.save(replace(first, seen=True), first)
    drive.step(transitions.discard, second)
    drive.step(transitions.revive, third, policy=Policy())

    assert drive.store.unseen_dead() == {"other": 1}
    assert drive.store.counts()["default"][State.DEAD] == 1


# Attempts.


def test_tokens_grow(store):
    with store.transaction():
        tokens = [store.next_token() for _ in range(3)]

    assert tokens == [1, 2, 3]


def test_an_attempt_is_live_until_it_has_an_outcome(drive, numbered):
    first, second = drive.claim(numbered[0]), drive.claim(numbered[1])
    assert [attempt.token for attempt in drive.store.live_attempts()] == [1, 2]

    drive.settle(first)

    assert [attempt.token for attempt in drive.store.live_attempts()] == [second.token]
    assert drive.store.attempt(first.token).outcome == Outcome(reason=Reason.EXITED, ended_at=NOW, exit_code=0)
    assert drive.store.attempt(99) is None


def test_an_attempt_takes_note_of_its_start_and_keeps_everything(store):
    started = replace(attempt(1, 7), pid=5, pid_start=6, started_at=NOW)
    outcome = Outcome(
        reason=Reason.SIGNALLED,
        ended_at=NOW + 1,
        signal=9,
        pid=5,
        cpu_seconds=0.25,
        peak_memory=1 << 40,
        output_bytes=3,
        output_missing=1,
        leftovers=("12 sleep",),
        message="ö",
    )

    with store.transaction():
        store.open_attempt(attempt(1, 7))
        store.save_attempt(started)
        assert store.attempt(1) == started
        store.save_attempt(replace(started, outcome=outcome))

    assert list(store.attempts_of(7)) == [replace(started, outcome=outcome, output=8192)]


@pytest.mark.parametrize("token", [1, 2])
def test_an_attempt_ends_once_and_must_exist(store, token):
    ended = replace(attempt(1, 7), outcome=Outcome(reason=Reason.EXITED, ended_at=NOW, exit_code=0))
    with store.transaction():
        store.open_attempt(attempt(1, 7))
        store.save_attempt(ended)

    with pytest.raises(StaleError), store.transaction():
        store.save_attempt(replace(ended, token=token, outcome=Outcome(reason=Reason.LOST, ended_at=NOW)))

    assert store.attempt(1) == ended


def test_a_token_names_one_attempt(store):
    with store.transaction():
        store.open_attempt(attempt(1, 7))

    with pytest.raises(StoreError), store.transaction():
        store.open_attempt(attempt(1, 8))

    assert store.attempt(1).job == 7


def test_the_history_of_a_job_holds_all_its_attempts(drive):
    (job,) = drive.add(draft("a"))

    again = drive.finish(job, code=1)
    drive.finish(again, now=NOW + 2)

    assert [attempt.number for attempt in drive.store.attempts_of(job.seq)] == [1, 2]
    assert [attempt.outcome.exit_code for attempt in drive.store.attempts_of(job.seq)] == [1, 0]


# Counting.


def test_counts_follow_every_move(drive, numbered):
    drive.claim(numbered[0])
    drive.finish(numbered[1])
    drive.finish(numbered[2], code=1)
    dead = [drive.bury(job) for job in numbered[3:6]]
    drive.step(transitions.discard, dead[0])
    drive.save(replace(dead[1], seen=True), dead[1])
    drive.step(transitions.cancel, numbered[6], why="")

    assert drive.store.counts() == {
        "default": {
            State.PENDING: 3,
            State.PROCESSING: 1,
            State.COMPLETED: 1,
            State.FAILED: 1,
            State.DEAD: 2,
            State.CANCELLED: 1,
            State.DELETED: 1,
        }
    }


# Finding.


def all_pages(store, query, *, limit=3, reverse=False):
    found, after = [], None
    while True:
        page = store.find(query, after=after, limit=limit, reverse=reverse)
        assert len(page.jobs) <= limit
        found += page.jobs
        if page.after is None:
            return [job.id for job in found]
        after = page.after


def test_pages_follow_each_other_in_both_directions(drive, numbered):
    names = [job.id for job in numbered]

    assert all_pages(drive.store, Query()) == names
    assert all_pages(drive.store, Query(), reverse=True) == names[::-1]
    assert drive.store.find(Query(), limit=10).after is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), "abcdef"),
        (Query(states=(State.PENDING,)), "abc"),
        (Query(states=(State.DEAD, State.COMPLETED)), "df"),
        (Query(states=(State.DELETED,)), "g"),
        (Query(states=(State.PENDING, State.PENDING)), "abc"),
        (Query(states=(State.PENDING,), seqs=(1, 3, 3, 4)), "ac"),
        (Query(queues=("gpu",)), "b"),
        (Query(queues=("gpu", "default"), states=(State.PENDING, State.PROCESSING)), "abce"),
        (Query(tags=(("color", "red"),)), "ab"),
        (Query(tags=(("color", "red"), ("size", "1"))), "b"),
        (Query(owner="bob"), "c"),
        (Query(since=NOW + 3), "cdef"),
        (Query(until=NOW + 3), "ab"),
        (Query(since=NOW + 2, until=NOW + 4), "bc"),
        (Query(ended_since=NOW + 20), "df"),
        (Query(ended_since=NOW + 21), "f"),
        (Query(command="echo *"), "c"),
        (Query(exit_code=1), "f"),
        (Query(seen=True), "f"),
        (Query(seqs=(3, 1, 99, 7)), "ac"),
        (Query(seqs=(3, 1), owner="bob"), "c"),
        (Query(seqs=()), ""),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_all_conditions_of_a_query_hold(drive, query, expected, reverse):
    with drive.store.transaction():
        drive.store.declare_queue("gpu")
    jobs = drive.add(
        draft("a", tags={"color": "red"}, created=NOW + 1),
        draft("b", queue="gpu", tags={"color": "red", "size": "1"}, created=NOW + 2),
        draft("c", owner="bob", command="echo hi", created=NOW + 3),
        *(draft(name, created=NOW + 4) for name in "defg"),
    )
    drive.finish(jobs[3], now=NOW + 20)
    drive.claim(jobs[4], now=NOW + 20)
    dead = drive.bury(jobs[5], now=NOW + 21)
    drive.save(replace(dead, seen=True), dead)
    drive.step(transitions.discard, drive.bury(jobs[6]))

    assert "".join(all_pages(drive.store, query, limit=2, reverse=reverse)) == (expected[::-1] if reverse else expected)


def test_an_id_may_be_abbreviated(drive):
    drive.add(draft("build-1"), draft("build-10"), draft("deploy"))

    assert drive.store.resolve("build-1").id == "build-1"
    assert drive.store.resolve("depl").id == "deploy"
    assert drive.store.resolve("@last").id == "deploy"
    with pytest.raises(AmbiguousIdError, match="build-1, build-10"):
        drive.store.resolve("build")


@pytest.mark.parametrize("name", ["dep", "nope", "gone", "", "deployé", "buil%"])
def test_what_is_not_there_is_not_found(drive, name):
    (gone,) = drive.add(draft("gone"))
    drive.add(draft("deploy"))
    drive.step(transitions.discard, drive.bury(gone))

    with pytest.raises(NoSuchJobError):
        drive.store.resolve(name)


def test_an_empty_store_has_no_last_job(store):
    with pytest.raises(NoSuchJobError, match="no job yet"):
        store.resolve("@last")
    with pytest.raises(NoSuchJobError):
        store.get("a")
    with pytest.raises(NoSuchJobError):
        store.by_seq(1)


def test_a_deleted_job_can_still_be_got_by_its_id(drive):
    (job,) = drive.add(draft("gone"))
    gone = drive.step(transitions.discard, drive.bury(job))

    assert drive.store.get("gone") == gone


# Entries.


def test_entries_are_numbered_without_holes_and_can_be_asked_for_one_job(drive, numbered):
    drive.finish(numbered[2])
    with drive.store.transaction():
        drive.store.write_entry(Entry(at=NOW, event="config.set", by="ann"))

    history = drive.store.entries(start=0, limit=100)

    assert [entry.number for entry in history.entries] == list(range(1, 14))
    assert not history.gap
    assert drive.store.last_entry() == 13
    assert [entry.event for entry in drive.store.entries(start=1, limit=9, seq=3).entries] == [
        "job.enqueued",
        "job.started",
        "job.completed",
    ]
    assert [entry.number for entry in drive.store.entries(start=12, limit=1).entries] == [12]


def test_a_follower_who_comes_late_is_told_of_the_gap(drive, numbered):
    drive.claim(numbered[9], now=NOW + 50)

    removed = drive.expire(replace(KEEP_ALL, events=10), now=NOW + 30)

    assert removed.entries == 10
    assert drive.store.entries(start=10, limit=5).gap
    assert not drive.store.entries(start=11, limit=5).gap
    assert drive.store.last_entry() == 11
    assert [entry.number for entry in drive.store.entries(start=1, limit=5).entries] == [11]


# Blobs.


def test_equal_blobs_are_kept_once_as_long_as_a_job_refers_to_them(drive):
    with drive.store.transaction():
        first, second = drive.store.intern(b"PATH=/bin"), drive.store.intern(b"PATH=/bin")
        jobs = drive.store.add([draft("a", environment=first), draft("b", environment=first, stdin=second)])
    assert first == second
    done = [drive.finish(job, now=NOW + index) for index, job in enumerate(jobs)]

    drive.expire(replace(KEEP_ALL, finished_count=1), now=NOW)
    assert drive.store.blob(first) == b"PATH=/bin"
    drive.expire(replace(KEEP_ALL, finished_count=0), now=NOW)

    assert len(done) == 2
    with pytest.raises(KeyError):
        drive.store.blob(first)


def test_a_blob_that_no_job_took_is_dropped_with_the_commit(store):
    with store.transaction():
        digest = store.intern(b"x")
        assert store.blob(digest) == b"x"

    with pytest.raises(KeyError):
        store.blob(digest)


def test_a_blob_survives_a_rolled_back_removal_and_an_edit_lets_it_go(drive):
    with drive.store.transaction():
        digest = drive.store.intern(b"x")
        (job,) = drive.store.add([draft("a", script=digest)])
    with pytest.raises(BoomError), drive.store.transaction(), drive.store.item(), failing():
        drive.store.save(replace(job, script=None), was=job)
    assert drive.store.blob(digest) == b"x"

    drive.save(replace(job, script=None), job)

    with pytest.raises(KeyError):
        drive.store.blob(digest)


def test_a_job_cannot_refer_to_a_blob_that_is_not_there(drive):
    with pytest.raises(StoreError, match="not there"):
        drive.add(draft("a", stdin="0" * 40))

    assert drive.store.counts() == {}


# Requests.


def test_the_answer_to_a_request_is_remembered_for_a_time(drive):
    with drive.store.transaction():
        drive.store.remember("ann:1", b"old", now=NOW)
        drive.store.remember("ann:1", b"new", now=NOW)
        drive.store.remember("ann:2", b"young", now=NOW + 50)
    assert drive.store.recall("ann:1") == b"new"

    drive.expire(replace(KEEP_ALL, requests=60), now=NOW + 61)

    assert drive.store.recall("ann:1") is None
    assert drive.store.recall("ann:2") == b"young"


def test_a_file_is_taken_once_until_it_is_forgotten(drive):
    with drive.store.transaction():
        assert [drive.store.take_file(name) for name in ("b", "a", "b")] == [True, True, False]
    with pytest.raises(BoomError):  # noqa: SIM117, PT012  (what is undone)
        with drive.store.transaction():
            drive.store.take_file("c")
            drive.store.forget_files(["a"])
            raise BoomError
    with drive.store.transaction():
        assert not drive.store.take_file("a")
        assert drive.store.taken_files() == ["a", "b"]
        drive.store.forget_files(["a", "unknown"])

    with drive.store.transaction():
        assert drive.store.taken_files() == ["b"]
        assert drive.store.take_file("a")


def test_a_step_says_how_many_answers_it_removed(drive):
    with drive.store.transaction():
        for number in range(3):
            drive.store.remember(f"ann/{number}", b"{}", now=NOW)
        steps = [drive.store.expire(replace(KEEP_ALL, requests=0), now=NOW + 1, limit=2).requests for _ in range(3)]

    assert steps == [2, 1, 0]


# Retention.


def test_finished_jobs_go_by_age_with_their_attempts_and_dead_ones_stay_until_seen(drive, numbered):
    drive.finish(numbered[0])
    drive.finish(numbered[1], now=NOW + 50)
    dead = [drive.bury(job) for job in numbered[2:4]]
    drive.save(replace(dead[1], seen=True), dead[1])
    drive.step(transitions.cancel, numbered[4], why="")
    drive.claim(numbered[5])

    removed = drive.expire(replace(KEEP_ALL, finished=60), now=NOW + 61)

    assert removed.jobs == 3
    assert [job.id for job in drive.store.find(Query()).jobs] == ["j1", "j2", "j5", "j6", "j7", "j8", "j9"]
    assert list(drive.store.attempts_of(1)) == []
    assert drive.store.counts() == {
        "default": {State.PENDING: 4, State.PROCESSING: 1, State.COMPLETED: 1, State.DEAD: 1}
    }


def test_the_oldest_finished_jobs_go_when_there_are_too_many(drive, numbered):
    for index, job in enumerate(reversed(numbered)):
        drive.finish(job, now=NOW + index)

    removed = drive.expire(replace(KEEP_ALL, finished_count=3), now=NOW)

    assert removed.jobs == 7
    assert [job.id for job in drive.store.find(Query()).jobs] == ["j0", "j1", "j2"]


def test_deleted_jobs_go_after_their_own_time(drive, numbered):
    drive.step(transitions.discard, drive.bury(numbered[0]), now=NOW + 10)

    kept = drive.expire(replace(KEEP_ALL, deleted=60), now=NOW + 70)
    removed = drive.expire(replace(KEEP_ALL, deleted=60), now=NOW + 71)

    assert (kept.jobs, removed.jobs) == (0, 1)
    with pytest.raises(NoSuchJobError):
        drive.store.get("j0")


def test_retention_goes_in_steps(drive, numbered):
    for job in numbered:
        drive.finish(job)
    old = Retention(finished=0, finished_count=0, deleted=0, events=0, requests=0)

    steps = [drive.expire(old, now=NOW + 1, limit=4) for _ in range(9)]

    assert [step.jobs for step in steps] == [4, 4, 2, 0, 0, 0, 0, 0, 0]
    assert [step.entries for step in steps] == [4, 4, 4, 4, 4, 4, 4, 2, 0]
    assert drive.store.counts() == {}


def test_numbers_are_never_used_again_even_if_the_newest_are_gone(drive):
    (job,) = drive.add(draft("a"))
    drive.finish(job)
    drive.expire(Retention(finished=0, finished_count=0, deleted=0, events=0, requests=0), now=NOW + 1)

    (next_job,) = drive.add(draft("a"))

    assert next_job.seq == 2
    assert drive.claim(next_job).token == 2
    assert [entry.number for entry in drive.store.entries(start=4, limit=9).entries] == [4, 5]


# Undoing.


@contextmanager
def failing():
    """Let the block end in an error that only a test can raise."""
    yield
    raise BoomError


def everything(store):
    return (
        store.find(Query(), limit=1000),
        store.find(Query(states=(State.DELETED,)), limit=1000),
        store.counts(),
        list(store.queues()),
        store.entries(start=0, limit=1000),
        store.last_entry(),
        list(store.live_attempts()),
        store.next_due(),
        store.recall("k"),
        store.first_due(),
        store.unseen_dead(),
    )


def turn_everything_upside_down(store, jobs):
    digest = store.intern(b"environment")
    store.declare_queue("gpu")
    store.add([draft("new", queue="gpu", environment=digest), draft("later", due=NOW + 9)])
    step = transitions.claim(jobs[0], token=store.next_token(), now=NOW)
    store.open_attempt(attempt(step.job.token, jobs[0].seq))
    store.save(step.job, was=jobs[0], entry=Entry(at=NOW, event=step.event))
    store.save(transitions.cancel(jobs[1], why="", now=NOW).job, was=jobs[1])
    store.ripen(NOW + 100, limit=100)
    store.remember("k", b"v", now=NOW)
    store.write_entry(Entry(at=NOW, event="config.set"))
    store.expire(Retention(finished=-1, finished_count=0, deleted=0, events=-1, requests=1e9), now=NOW, limit=100)
    return digest


def test_a_failed_transaction_leaves_nothing_behind(drive, numbered):
    drive.add(draft("due-later", due=NOW + 50))
    before = everything(drive.store)

    digests, meanwhile = [], []

    def work():
        with drive.store.item():
            digests.append(turn_everything_upside_down(drive.store, numbered))
        meanwhile.append(everything(drive.store))

    with pytest.raises(BoomError), drive.store.transaction(), failing():
        work()

    assert meanwhile != [before]
    assert everything(drive.store) == before
    with pytest.raises(KeyError):
        drive.store.blob(digests[0])
    assert len(drive.store.take_entries()) == 11
    (job,) = drive.add(draft())
    assert job.seq == 12


def test_a_failed_item_leaves_what_came_before_and_after_it(drive, numbered):
    drive.add(draft("due-later", due=NOW + 50))
    drive.store.take_entries()
    before = everything(drive.store)

    with drive.store.transaction():
        with drive.store.item():
            drive.store.add([draft("before")])
        with pytest.raises(BoomError), drive.store.item(), failing():
            turn_everything_upside_down(drive.store, numbered)
        assert drive.store.intact()
        with drive.store.item():
            drive.store.add([draft("after")])

    assert [entry.job for entry in drive.store.take_entries()] == ["before", "after"]
    assert [job.seq for job in drive.store.find(Query(), after=11).jobs] == [12, 13]
    assert everything(drive.store)[2:4] == ({"default": {State.PENDING: 13}}, before[3])
    assert drive.heads(now=NOW + 49, limit=1) == [numbered[0]]
    assert "due-later" in {job.id for job in drive.heads(now=NOW + 50)}


def test_a_job_lost_too_often_is_stored_as_dead(drive):
    (job,) = drive.add(draft("a"))

    buried = drive.finish(job, reason=Reason.LOST, policy=Policy(max_lost=1))

    assert buried.state is State.DEAD
    assert drive.store.get("a") == buried


def test_a_store_has_an_identity(store):
    assert len(store.uuid) == 32
    assert int(store.uuid, 16)
