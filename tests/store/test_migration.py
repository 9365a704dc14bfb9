"""Databases of older versions: copied, brought up to date, and as they were, whatever comes in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from queuectld.domain.job import State
from queuectld.errors import StoreError
from queuectld.store.base import Query
from queuectld.store.migrate import MIGRATIONS
from queuectld.store.sqlite import open_store
from tests.store.driving import NOW, Driver, draft

FIXTURES = Path(__file__).with_name("fixtures")
NEWEST = len(list(MIGRATIONS.glob("*.sql")))


def load_old(path: Path) -> Path:
    """Make the database of format 1 that is kept as text."""
    connection = apsw.Connection(str(path))
    connection.execute((FIXTURES / "format1.sql").read_text())
    connection.close()
    return path


def ask(path, sql):
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.fixture
def old(tmp_path) -> Path:
    return load_old(tmp_path / "queue.db")


def test_all_that_an_old_database_knows_is_there_afterwards(old):
    jobs, attempts = (ask(old, f"SELECT * FROM {table} ORDER BY 1") for table in ("jobs", "attempts"))
    others = {table: ask(old, f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("counts", "entries", "requests")}

    store = open_store(old)

    assert store.uuid == "7ddcbc62220d42689180ab62c31d0794"
    assert store.counts() == {
        "default": {
            State.PENDING: 2,
            State.PROCESSING: 2,
            State.COMPLETED: 1,
            State.FAILED: 1,
            State.DEAD: 1,
            State.CANCELLED: 1,
            State.DELETED: 1,
        },
        "gpu": {State.PENDING: 1, State.DEAD: 1},
    }
    assert len(store.find(Query()).jobs) == 10
    assert store.blob(store.get("running").stdin) == b"some input\n" * 10
    assert [attempt.token for attempt in store.live_attempts()] == [9, 10]
    assert store.last_entry() == 33
    store.close()
    assert ask(old, "SELECT * FROM jobs ORDER BY 1") == jobs
    assert [row[:13] for row in ask(old, "SELECT * FROM attempts ORDER BY 1")] == attempts
    assert {table: ask(old, f"SELECT * FROM {table} ORDER BY 1, 2") for table in others} == others
    assert ask(old, "PRAGMA integrity_check") == [("ok",)]


def test_output_of_old_attempts_is_counted_as_if_they_had_ended_today(old):
    store = open_store(old)

    rooms = {attempt.token: attempt.output for seq in range(1, 13) for attempt in store.attempts_of(seq)}
    with store.transaction():
        lost = store.unmeasured_output(limit=9)

    assert rooms == {2: 8192, 3: 8192, 4: 12288, 5: 8192, 6: 0, 7: 0, 8: -1, 9: 0, 10: 0}
    assert store.kept_output() == 8192 * 3 + 12288
    assert [place.token for place in lost] == [8]
    store.close()


def test_work_goes_on_where_it_was(old):
    drive = Driver(open_store(old))

    (job,) = drive.add(draft("new"))
    done = drive.settle(drive.store.get("running"))

    assert job.seq == 13
    assert drive.claim(job).token == 11
    assert done.state is State.COMPLETED
    assert drive.store.next_due() is not None
    assert drive.heads("gpu", now=NOW + 3600)[0].id == "lost"
    drive.store.close()


def test_a_copy_of_the_old_one_stays_beside_it(old):
    before = ask(old, "SELECT * FROM jobs")

    open_store(old).close()

    copy = old.with_name("queue.db.format1")
    assert ask(copy, "PRAGMA user_version") == [(1,)]
    assert ask(copy, "SELECT * FROM jobs") == before
    assert ask(old, "PRAGMA user_version") == [(NEWEST,)]


# Interrupted.

OPEN = (
    "import sys; from pathlib import Path; from queuectld.store.sqlite import open_store; open_store(Path(sys.argv[1]))"
)


def calls_of_a_migration(path: Path, *faults: str) -> int:
    """Migrate under strace; return the exit code."""
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", *(f"--inject={fault}" for fault in faults)]
    done = subprocess.run(
        [*strace, sys.executable, "-P", "-c", OPEN, path], capture_output=True, text=True, check=False, timeout=60
    )
    if "strace:" in done.stderr:
        pytest.skip(f"strace cannot be used here: {done.stderr.strip()}")
    return done.returncode


def killed_at(call: str, number: int) -> str:
    return f"{call}:signal=SIGKILL:when={number}"


def every(path: Path, call: str) -> Iterator[int]:
    """Kill a migration at each of these calls, until one is through."""
    for number in range(1, 200):
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        load_old(path)
        code = calls_of_a_migration(path, killed_at(call, number))
        if code == 0:
            return
        assert code == -signal.SIGKILL
        yield number
    raise AssertionError("there is no end to it")


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "rename"])
def test_a_migration_that_is_killed_leaves_a_database_that_can_be_used(tmp_path, call):
    path = tmp_path / "queue.db"
    killed = 0

    for _ in every(path, call):
        store = open_store(path)
        assert len(store.find(Query()).jobs) == 10
        store.close()
        copy = path.with_name("queue.db.format1")
        assert ask(copy, "SELECT count(*) FROM jobs") == [(11,)]
        killed += 1

    assert killed


def test_a_migration_for_which_there_is_no_space_changes_nothing_and_says_so(old):
    before = ask(old, "SELECT * FROM attempts")
    os.sync()

    code = calls_of_a_migration(old, "pwrite64:error=ENOSPC:when=10+")

    assert code == 1
    assert ask(old, "PRAGMA user_version") == [(1,)]
    assert ask(old, "SELECT * FROM attempts") == before
    open_store(old).close()


def test_a_migration_without_space_is_told_in_a_line(old, monkeypatch):
    def refuse(*_):
        raise StoreError("no space")

    monkeypatch.setattr("queuectld.store.database.Database.backup_to", refuse)

    with pytest.raises(StoreError, match="no space"):
        open_store(old)

    assert ask(old, "PRAGMA user_version") == [(1,)]
