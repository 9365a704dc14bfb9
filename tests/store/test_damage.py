"""Databases that are not what they were: refused in one line that says what to do, and kept byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from queuectld.check import check_all, check_database
from queuectld.errors import StoreDamagedError, StoreTooNewError
from queuectld.keys import Config
from queuectld.store.base import Query
from queuectld.store.sqlite import open_store
from tests.store.driving import Driver, draft

PAGE = 4096


@pytest.fixture
def path(tmp_path) -> Path:
    """A database with some jobs, closed."""
    path = tmp_path / "queue.db"
    drive = Driver(open_store(path))
    for index in range(50):
        drive.add(draft(f"j{index}", command="x" * 1000))
    drive.store.close()
    return path


@pytest.fixture
def crashed(path, tmp_path) -> Path:
    """What a crash leaves: the newest jobs are in the log only."""
    (tmp_path / "crashed").mkdir()
    copy = tmp_path / "crashed" / "queue.db"
    drive = Driver(open_store(path))
    drive.add(*(draft(f"new{index}", command="y" * 1000) for index in range(50)))
    for suffix in ("", "-wal", "-shm"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    drive.store.close()
    return copy


def files_of(path):
    return {file.name: file.read_bytes() for file in path.parent.glob("queue.db*") if not file.name.endswith("-shm")}


def change(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


DAMAGE = {
    "cut off at a page": lambda path: cut(path, path.stat().st_size - PAGE),
    "cut off within a page": lambda path: cut(path, path.stat().st_size - 100),
    "cut off within the header": lambda path: cut(path, 50),
    "empty": lambda path: cut(path, 0),
    "garbage at its beginning": lambda path: change(path, 0, b"\xa5" * PAGE),
    "a wrong page size": lambda path: change(path, 16, b"\x03\x00"),
    "another program's": lambda path: change(path, 68, b"\0\0\0\1"),
    "a text": lambda path: path.write_text("not a database\n" * 100),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_database_is_refused_and_kept(path, damage):
    damage(path)
    before = files_of(path)

    with pytest.raises(StoreDamagedError, match="it is kept as it is") as refusal:
        open_store(path)

    assert "\n" not in refusal.value.message
    assert files_of(path) == before


@pytest.mark.parametrize("name", ["store", "counts", "jobs"])
def test_a_page_that_is_damaged_is_refused_by_who_needs_it(crashed, name):
    connection = apsw.Connection(str(crashed))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchall()
    connection.close()
    change(crashed, (root - 1) * PAGE, b"\xff" * PAGE)
    before = files_of(crashed)

    with pytest.raises(StoreDamagedError, match="queuectld db restore"):
        open_store(crashed).find(Query())

    assert files_of(crashed)["queue.db"] == before["queue.db"]


def test_a_log_is_not_moved_into_a_database_that_turns_out_to_be_damaged(crashed):
    change(crashed, 100, b"\xff" * 2000)
    change(crashed.with_name("queue.db-wal"), 40, b"\xff" * 8)
    before = files_of(crashed)

    with pytest.raises(StoreDamagedError):
        open_store(crashed)

    assert files_of(crashed) == before


def test_a_directory_in_its_place_is_refused(tmp_path):
    (tmp_path / "queue.db").mkdir()

    with pytest.raises(StoreDamagedError, match="is not a file"):
        open_store(tmp_path / "queue.db")


def test_one_that_may_not_be_read_is_refused(path):
    code = (
        "import os, sys; from pathlib import Path; from queuectld.errors import StoreDamagedError\n"
        "from queuectld.store.sqlite import open_store\n"
        "os.setuid(65534)\n"
        "try: open_store(Path(sys.argv[1]))\n"
        "except StoreDamagedError as error: print(error.message)"
    )
    path.chmod(0o600)
    for parent in list(path.parents)[:-2]:
        parent.chmod(0o755)

    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)

    assert "cannot be read: Permission denied" in done.stdout, done.stderr


def test_a_log_that_was_lost_is_noticed(crashed):
    crashed.with_name("queue.db-wal").unlink()
    before = files_of(crashed)

    with pytest.raises(StoreDamagedError, match="has lost its log"):
        open_store(crashed)

    assert files_of(crashed) == before


def test_an_index_from_before_the_host_went_down_tells_nothing(crashed):
    crashed.with_name("queue.db-wal").unlink()
    os.utime(crashed.with_name("queue.db-shm"), (0, 0))

    open_store(crashed).close()


def test_a_database_that_was_lost_is_noticed_by_its_log(crashed):
    crashed.unlink()
    before = files_of(crashed)

    with pytest.raises(StoreDamagedError, match="is missing"):
        open_store(crashed)

    assert files_of(crashed) == before


def test_a_crash_is_no_damage(crashed):
    store = open_store(crashed)

    assert len(store.find(Query(), limit=200).jobs) == 100
    store.close()


def test_a_crash_without_anything_in_the_log_is_no_damage(path, tmp_path):
    store = open_store(path)
    store.checkpoint(truncate=True)
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / "queue.db"
    for suffix in ("", "-shm"):
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    store.close()

    open_store(copy).close()


def test_a_checkpoint_that_was_cut_short_is_no_damage(crashed, tmp_path):
    # The beginning is written already, with the new length; the end is still in the log only.
    connection = apsw.Connection(str(shutil.copy(crashed, tmp_path / "copy.db")))
    connection.close()
    shutil.copy(crashed.with_name("queue.db-wal"), tmp_path / "copy.db-wal")
    connection = apsw.Connection(str(tmp_path / "copy.db"))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with (tmp_path / "copy.db").open("rb") as file:
        change(crashed, 0, file.read(PAGE))

    store = open_store(crashed)

    assert len(store.find(Query(), limit=200).jobs) == 100
    store.close()


def test_a_database_is_there_as_a_whole_or_not_at_all(tmp_path):
    (tmp_path / "queue.db.new").write_bytes(b"left by a crash")

    open_store(tmp_path / "queue.db").close()

    assert [file.name for file in tmp_path.iterdir()] == ["queue.db"]


def test_a_newer_one_is_not_touched(crashed):
    connection = apsw.Connection(str(crashed))
    connection.execute("PRAGMA user_version = 1000")
    connection.close()
    before = files_of(crashed)

    with pytest.raises(StoreTooNewError):
        open_store(crashed)

    assert files_of(crashed)["queue.db"] == before["queue.db"]


def test_a_check_that_has_no_time_for_all_says_so(path, monkeypatch):
    monkeypatch.setattr("queuectld.store.database._STEPS", 1)

    assert check_database(path)
    monkeypatch.setattr("queuectld.check._PATIENCE", 0.0)
    assert not check_database(path)

    notes = list(check_all(Config(), path.parent))
    assert len(notes) == 1
    assert "`queuectld db check` looks at everything" in notes[0]


@pytest.mark.parametrize("name", ["store", "counts", "jobs", "live_attempts", "sqlite_autoindex_blobs_1"])
def test_however_little_time_there_is_the_beginning_of_everything_is_looked_at(path, monkeypatch, name):
    monkeypatch.setattr("queuectld.store.database._STEPS", 1)
    monkeypatch.setattr("queuectld.store.sqlite._SURVEY", 0.0)
    connection = apsw.Connection(str(path))
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchall()
    connection.close()
    change(path, (root - 1) * PAGE, b"\xff" * PAGE)

    with pytest.raises(StoreDamagedError, match="queuectld db restore"):
        open_store(path)


def test_a_text_that_is_none_is_damage(path):
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE jobs SET owner = CAST(x'ff' AS TEXT) WHERE id = 'j7'")
    connection.close()

    with pytest.raises(StoreDamagedError):
        open_store(path).get("j7")


def test_a_store_without_its_numbers_is_damaged(path):
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM store")
    connection.close()

    with pytest.raises(StoreDamagedError):
        open_store(path)
