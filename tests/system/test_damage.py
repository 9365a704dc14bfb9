"""A database that is damaged: the daemon does not begin, or ends, and nothing is made worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from queuectld.store.sqlite import open_store
from tests.store.driving import NOW, Driver, draft
from tests.system.livedaemon import DAEMON, LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError

PAGE = 4096


def overwrite(path: Path, pages: range) -> None:
    with path.open("r+b") as file:
        file.seek((pages.start - 1) * PAGE)
        file.write(b"\xff" * PAGE * len(pages))


def root_of(path: Path, tree: str) -> int:
    connection = apsw.Connection(str(path))
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (tree,)).fetchall()
    connection.close()
    return int(root)


@pytest.fixture
def large(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    """A daemon that does not run, with a database of 40 MB."""
    daemon = new_daemon()
    daemon.state.mkdir(mode=0o700)
    drive = Driver(open_store(daemon.state / "queue.db"))
    for _ in range(10):
        drive.add(*(draft(command=f": {'x' * 2000}", due=NOW + 1e9) for _ in range(1500)))
    drive.store.close()
    assert (daemon.state / "queue.db").stat().st_size > 40_000_000
    return daemon


def test_a_damaged_database_is_refused_with_65_and_in_one_line_and_kept(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.stop()
    database = daemon.state / "queue.db"
    overwrite(database, range(1, 2))
    before = database.read_bytes()

    daemon.launch()

    assert daemon.process is not None
    assert daemon.process.wait(30) == 65
    line = daemon.log_lines()[-1]["error"]
    assert line.startswith(f"the database {database} is not a database")
    assert "queuectld db restore" in line
    assert database.read_bytes() == before


def test_damage_that_is_met_later_ends_the_daemon_with_65(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    with daemon.wire() as wire:
        for number in range(50):
            wire.enqueue(f": {'x' * 3000}", id=f"n{number}", delay=3600)
    daemon.stop()
    database = daemon.state / "queue.db"
    root = root_of(database, "jobs_by_id")
    daemon.start()
    overwrite(database, range(root, root + 1))

    assert daemon.process is not None
    wait_for(lambda: ask(daemon), "the daemon has met it")

    assert daemon.process.wait(30) == 65
    assert "queuectld db check" in daemon.log_tail()


def test_a_check_sees_what_the_start_would_meet(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.stop()
    assert daemon.run([*DAEMON, "--check"]).returncode == 0
    overwrite(daemon.state / "queue.db", range(2, 8))

    checked = daemon.run([*DAEMON, "--check"])
    doctor = daemon.cli("doctor")

    assert checked.returncode == 65
    assert b"queuectld db check" in checked.stderr
    assert doctor.code == 1
    assert "queuectld db check" in doctor.out


@pytest.mark.parametrize("tree", ["jobs", "jobs_by_state", "counts", "entries_by_seq", "removed_output"])
def test_what_everything_hangs_on_is_looked_at_however_large_the_database_is(large: LiveDaemon, tree: str) -> None:
    database = large.state / "queue.db"
    assert large.run([*DAEMON, "--check"]).returncode == 0
    overwrite(database, range(root := root_of(database, tree), root + 1))
    before = database.read_bytes()

    checked, doctor = large.run([*DAEMON, "--check"]), large.cli("doctor")
    large.launch()

    assert large.process is not None
    assert large.process.wait(60) == 65
    assert checked.returncode == 65
    assert "queuectld db restore FILE" in doctor.out
    assert database.read_bytes() == before


def test_a_job_that_is_no_job_any_more_ends_the_daemon_with_65(large: LiveDaemon) -> None:
    database = large.state / "queue.db"
    connection = apsw.Connection(str(database))
    connection.execute("UPDATE jobs SET spec = '{' WHERE seq = 7")
    connection.close()
    large.start()

    assert large.process is not None
    wait_for(lambda: ask(large, large_id(database)), "the daemon has met it")

    assert large.process.wait(60) == 65
    assert "cannot be read" in large.log_tail()


def large_id(path: Path) -> str:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    ((name,),) = connection.execute("SELECT id FROM jobs WHERE seq = 7").fetchall()
    connection.close()
    return str(name)


def ask(daemon: LiveDaemon, job: str = "n7") -> bool:
    try:
        with daemon.wire() as wire:
            wire.job(job)
    except (RefusedError, OSError):
        return True
    return False
