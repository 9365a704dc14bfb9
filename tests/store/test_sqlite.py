"""What only the database can get wrong: files, formats, damage, plans, and what survives being closed."""

from __future__ import annotations

import itertools
import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

import apsw
import pytest
from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.job import State
from queuectld.errors import StoreDamagedError, StoreError, StoreTooNewError
from queuectld.service.holdings import holdings
from queuectld.store import listing
from queuectld.store.base import Query, Reader, Retention, Store
from queuectld.store.memory import MemoryStore
from queuectld.store.migrate import MIGRATIONS
from queuectld.store.reader import open_reader
from queuectld.store.sqlite import SqliteStore, open_store
from tests.store.driving import NOW, Driver, draft

NEWEST = len(list(MIGRATIONS.glob("*.sql")))


def as_store(store: SqliteStore | MemoryStore) -> Store:
    """The type checker proves here that both are stores."""
    return store


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def stored(path):
    """A database with three jobs, one of them finished; closed."""
    drive = Driver(open_store(path))
    jobs = drive.add(draft("a"), draft("b"), draft("c", due=NOW + 60))
    drive.finish(jobs[0])
    drive.store.close()
    return path


def ask(path, sql, values=()):
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


# What lasts.


def test_everything_is_there_after_the_database_was_closed(stored):
    drive = Driver(open_store(stored))

    assert drive.store.counts() == {"default": {State.PENDING: 2, State.COMPLETED: 1}}
    assert [job.id for job in drive.heads()] == ["b"]
    assert drive.store.next_due() == NOW + 60
    assert drive.store.last_entry() == 5
    (job,) = drive.add(draft())
    assert job.seq == 4
    assert drive.claim(job).token == 2
    drive.store.close()


def test_the_identity_stays_and_each_database_has_its_own(stored, tmp_path):
    first, again, other = open_store(stored), open_store(tmp_path / "other.db"), open_reader(stored)

    assert first.uuid == other.uuid
    assert first.uuid != again.uuid
    for store in (first, again, other):
        store.close()


def test_what_was_not_committed_is_gone_after_a_crash(path, tmp_path):
    drive = Driver(open_store(path))
    drive.add(draft("a"))
    with drive.store.transaction():
        drive.store.add([draft("b")])
        # A crash leaves the files as they are at that moment.
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"crashed.db{suffix}")

    crashed = Driver(open_store(tmp_path / "crashed.db"))

    assert [job.id for job in crashed.store.find(Query()).jobs] == ["a"]
    assert crashed.add(draft("b"))[0].seq == 2
    drive.store.close()
    crashed.store.close()


def test_a_reader_sees_commits_and_never_what_is_under_way(path):
    drive = Driver(open_store(path))
    (job,) = drive.add(draft("a"))
    reader: Reader = open_reader(path)

    with drive.store.transaction():
        drive.store.add([draft("b")])
        assert reader.find(Query()).jobs == (job,)
        assert reader.counts() == {"default": {State.PENDING: 1}}
    assert [found.id for found in reader.find(Query()).jobs] == ["a", "b"]

    assert reader.last_entry() == 2
    assert reader.first_due() == {"default": job.due}
    assert reader.queues() == ["default"]
    reader.close()
    drive.store.close()


def test_a_snapshot_stands_still(path):
    drive = Driver(open_store(path))
    drive.add(draft("a"))
    reader = open_reader(path)

    with reader.snapshot():
        before = reader.counts()
        drive.add(draft("b"))
        assert reader.counts() == before
    assert reader.counts() != before

    reader.close()
    drive.store.close()


def test_a_reader_cannot_change_anything(stored):
    reader = open_reader(stored)

    with pytest.raises(StoreError):
        reader._database.run("DELETE FROM jobs")

    reader.close()


def test_blobs_leave_no_trace_when_their_last_job_is_gone(path):
    drive = Driver(open_store(path))
    with drive.store.transaction():
        digest = drive.store.intern(b"x" * 100_000)
        jobs = drive.store.add([draft("a", environment=digest, stdin=digest), draft("b", script=digest)])
    counted = ask(path, "SELECT refs FROM blobs")
    for job in jobs:
        drive.step(transitions.cancel, job, why="")

    drive.expire(Retention(finished=0, finished_count=0, deleted=0, events=0, requests=0), now=NOW + 1)
    drive.store.close()

    assert counted == [(3,)]
    assert ask(path, "SELECT count(*) FROM blobs") + ask(path, "SELECT count(*) FROM blob_data") == [(0,), (0,)]


def test_stored_counts_agree_with_the_jobs_and_no_index_is_wrong(stored):
    drive = Driver(open_store(stored))
    for job in drive.heads(now=NOW + 100):
        dead = drive.bury(job)
        drive.save(replace(dead, seen=True), dead)
    drive.store.close()

    jobs = ask(
        stored, "SELECT queue, iif(state = 4 AND seen, 7, state), count(*) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2"
    )
    assert ask(stored, "SELECT queue, kind, number FROM counts WHERE number > 0 ORDER BY 1, 2") == jobs
    assert ask(stored, "PRAGMA integrity_check") == [("ok",)]


def test_the_log_stays_bounded_under_load_without_an_idle_moment(path, monkeypatch):
    monkeypatch.setattr("queuectld.store.commits._LOG_LIMIT", 50)
    drive = Driver(open_store(path))

    for index in range(200):
        drive.add(draft(f"j{index}"))

    assert Path(f"{path}-wal").stat().st_size < 100 * 4200
    drive.store.close()


def test_a_rare_find_reads_a_bounded_number_of_rows_and_goes_on(path, monkeypatch):
    monkeypatch.setattr(listing, "_WINDOW", 10)
    drive = Driver(open_store(path))
    drive.add(*(draft(f"j{index}", owner="rare" if index in {3, 27} else "ann") for index in range(35)))
    query = Query(owner="rare")

    pages, after = [], None
    while not pages or after is not None:
        page = drive.store.find(query, after=after)
        pages.append([job.id for job in page.jobs])
        after = page.after

    assert pages == [["j3"], [], ["j27"], []]
    drive.store.close()


def test_pages_of_several_states_skip_nothing_at_the_edge_of_a_window(path, monkeypatch):
    monkeypatch.setattr(listing, "_WINDOW", 4)
    drive = Driver(open_store(path))
    jobs = drive.add(*(draft(f"j{index}") for index in range(30)))
    for job in jobs[::7]:
        drive.step(transitions.cancel, job, why="")
    query = Query(states=(State.CANCELLED, State.PENDING))

    for reverse in (False, True):
        found, after = [], None
        while len(found) < 30:
            page = drive.store.find(query, after=after, limit=5, reverse=reverse)
            found += [job.seq for job in page.jobs]
            after = page.after
        assert found == sorted(range(1, 31), reverse=reverse)
    drive.store.close()


@pytest.mark.parametrize(
    "condition", ["place = 1 AND queue = 'default' ORDER BY rank, seq", "place = 2 AND due <= 1 ORDER BY due"]
)
def test_claims_read_an_index_in_its_order_and_sort_nothing(stored, condition):
    (plan,) = ask(stored, f"EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE {condition}")

    assert "USING INDEX" in plan[3]


def test_figures_read_a_few_rows_however_many_jobs_there_are(path):
    """Sorting nothing and scanning nothing but the counts; the first row of an index is all that is asked for."""
    drive = Driver(open_store(path))
    with drive.store.transaction():
        drive.store.declare_queue("other")
    drive.add(*(draft(f"j{number}") for number in range(50)), draft("o", queue="other"), draft("l", due=NOW + 9))
    reader = open_reader(path)
    ran: list[str] = []
    reader._database._connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda event: ran.append(event["sql"]))

    found = holdings(reader)

    assert found.first_due == {"default": NOW, "other": NOW}
    assert found.jobs["other"] == {State.PENDING: 1}
    plans = {
        sql: [row[3] for row in ask(path, f"EXPLAIN QUERY PLAN {sql}", ("default",) * sql.count("?"))] for sql in ran
    }
    assert {step for steps in plans.values() for step in steps} == {
        "SCAN counts",
        "SCAN queues",
        "SEARCH jobs USING INDEX startable_jobs (queue=?)",
        # In its order, as far as the first row.
        "SCAN jobs USING COVERING INDEX unripe_jobs",
    }
    reader.close()
    drive.store.close()


# Formats.


def test_a_database_of_a_newer_version_is_refused_and_left_alone(stored):
    ask(stored, f"PRAGMA user_version = {NEWEST + 1}")
    before = stored.read_bytes()

    with pytest.raises(StoreTooNewError, match="newer QueueCTL"):
        open_store(stored)
    with pytest.raises(StoreTooNewError):
        open_reader(stored)

    assert stored.read_bytes() == before


@pytest.fixture
def next_format(tmp_path):
    """The migrations of a version to come, which adds a table."""
    directory = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, directory)
    script = directory / f"{NEWEST + 1:04}.sql"
    script.write_text("CREATE TABLE more (x INTEGER) STRICT; INSERT INTO more VALUES (7);")
    return directory


def test_an_older_database_is_copied_and_then_migrated(stored, next_format):
    store = open_store(stored, migrations=next_format)

    assert store.counts() == {"default": {State.PENDING: 2, State.COMPLETED: 1}}
    store.close()
    assert ask(stored, "SELECT x FROM more") == [(7,)]
    assert ask(stored, "PRAGMA user_version") == [(NEWEST + 1,)]
    copy = open_store(stored.with_name(f"queue.db.format{NEWEST}"))
    assert copy.get("a").state is State.COMPLETED
    copy.close()


def test_a_copy_never_overwrites_an_earlier_one(stored, next_format):
    taken = stored.with_name(f"queue.db.format{NEWEST}")
    taken.write_text("precious")

    open_store(stored, migrations=next_format).close()

    assert taken.read_text() == "precious"
    assert taken.with_name(f"{taken.name}.2").exists()


def test_a_migration_that_fails_changes_nothing(stored, next_format):
    (next_format / f"{NEWEST + 2:04}.sql").write_text("CREATE TABLE jobs (x);")

    with pytest.raises(StoreError):
        open_store(stored, migrations=next_format)

    assert ask(stored, "PRAGMA user_version") == [(NEWEST,)]
    assert ask(stored, "SELECT name FROM sqlite_schema WHERE name = 'more'") == []


def test_a_reader_does_not_read_an_older_format(stored):
    ask(stored, "PRAGMA user_version = 0")

    with pytest.raises(StoreError, match="migrated first"):
        open_reader(stored)


# Damage.


def test_a_file_that_is_no_database_is_refused_and_kept(path):
    path.write_bytes(b"not a database " * 1000)

    with pytest.raises(StoreDamagedError, match="away to begin with an empty queue"):
        open_store(path)
    with pytest.raises(StoreDamagedError):
        open_reader(path)

    assert path.read_bytes() == b"not a database " * 1000


def test_a_database_of_somebody_else_is_refused_and_kept(path):
    ask(path, "CREATE TABLE photos (name)")

    with pytest.raises(StoreDamagedError, match="not one of QueueCTL"):
        open_store(path)

    assert ask(path, "SELECT name FROM sqlite_schema") == [("photos",)]


def test_damage_met_later_is_named_as_such_and_the_file_is_kept(stored):
    size = stored.stat().st_size
    with stored.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * (size - 4096 * 2))

    with pytest.raises(StoreDamagedError):
        Driver(open_store(stored)).heads()

    assert stored.stat().st_size == size


def test_a_directory_that_is_not_there_is_an_error_for_people(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(tmp_path / "nowhere" / "queue.db")


# Large jobs.


def seqs_by_pages(store, query, **more):
    pages, after = [], None
    while True:
        page = store.find(query, after=after, **more)
        pages.append([job.seq for job in page.jobs])
        if (after := page.after) is None:
            return pages


@pytest.mark.parametrize("query", [Query(), Query(states=(State.PENDING,)), Query(command="x*")])
def test_a_page_of_large_jobs_is_short_and_none_is_left_out(path, query):
    drive = Driver(open_store(path))
    drive.add(*(draft(command="x" * 1_000_000) for _ in range(6)))

    assert seqs_by_pages(drive.store, query) == [[1, 2, 3, 4], [5, 6]]
    assert seqs_by_pages(drive.store, query, reverse=True) == [[6, 5, 4, 3], [2, 1]]
    drive.store.close()


def test_large_jobs_that_do_not_match_make_short_pages_too(path):
    drive = Driver(open_store(path))
    drive.add(*(draft(command="x" * 1_000_000) for _ in range(6)), draft(command="rare"))

    assert seqs_by_pages(drive.store, Query(command="rare")) == [[], [7]]
    drive.store.close()


def test_large_jobs_of_several_states_come_in_their_order(path):
    drive = Driver(open_store(path))
    jobs = drive.add(*(draft(command="x" * 1_000_000) for _ in range(12)))
    for job in jobs[::2]:
        drive.finish(job)

    pages = seqs_by_pages(drive.store, Query(states=(State.PENDING, State.COMPLETED)))

    assert [seq for page in pages for seq in page] == list(range(1, 13))
    drive.store.close()


# The log.


def test_the_log_becomes_small_again_after_a_reader_has_held_it_up(path, monkeypatch):
    monkeypatch.setattr("queuectld.store.commits._MOST_PATIENCE", 0.001)
    drive = Driver(open_store(path))
    drive.add(draft())
    log, reader = path.with_name("queue.db-wal"), open_reader(path)

    def store_megabytes(count):
        for _ in range(count):
            drive.add(draft(command="x" * 1_000_000))

    with reader.snapshot():
        reader.counts()
        store_megabytes(40)
        assert log.stat().st_size > 40_000_000
    drive.store.checkpoint()
    store_megabytes(1)

    assert log.stat().st_size <= 20_000_000
    reader.close()
    drive.store.close()


def overlap(path, inside, over):
    """Let two readers overlap: the one goes only when the other is in."""
    readers = [open_reader(path), open_reader(path)]
    looks = [None, None]
    for turn in itertools.cycle([0, 1]):
        with ExitStack() as look:
            look.enter_context(readers[turn].snapshot())
            readers[turn].counts()
            inside.set()
            if looks[1 - turn]:
                looks[1 - turn].close()
            looks[turn] = look.pop_all()
        if over.is_set():
            break
    for look, reader in zip(looks, readers, strict=True):
        if look:
            look.close()
        reader.close()


def test_the_log_stays_bounded_where_one_reader_is_always_inside(path, monkeypatch):
    monkeypatch.setattr("queuectld.store.commits._LOG_LIMIT", 100)
    monkeypatch.setattr("queuectld.store.commits._LOG_STEP", 25)
    drive, over, inside = Driver(open_store(path)), threading.Event(), threading.Event()
    drive.add(draft())

    reading = threading.Thread(target=overlap, args=(path, inside, over))
    reading.start()
    inside.wait(10)
    largest = 0
    for index in range(400):
        drive.add(draft(f"j{index}"))
        largest = max(largest, Path(f"{path}-wal").stat().st_size)
    over.set()
    reading.join()

    assert largest < 250 * 4200
    drive.store.close()
