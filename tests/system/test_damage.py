"""A database that is damaged: the daemon does not begin, or ends, and nothing is made worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import apsw

from tests.system.livedaemon import DAEMON, LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError

PAGE = 4096


def overwrite(path: Path, pages: range) -> None:
    with path.open("r+b") as file:
        file.seek((pages.start - 1) * PAGE)
        file.write(b"\xff" * PAGE * len(pages))


def test_a_damaged_database_is_refused_with_65_and_in_one_line_and_kept(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.stop()
    database = daemon.state / "queue.db"
    overwrite(database, range(1, 2))
    before = database.read_bytes()

    daemon.launch()

    assert daemon.process is not None
    assert daemon.process.wait(30) == 65
    line = daemon.log_tail().splitlines()[-1]
    assert line.startswith(f"queuectld: the database {database} is not a database")
    assert "queuectld db restore" in line
    assert database.read_bytes() == before


def test_damage_that_is_met_later_ends_the_daemon_with_65(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    with daemon.wire() as wire:
        for number in range(50):
            wire.enqueue(f": {'x' * 3000}", id=f"n{number}", delay=3600)
    daemon.stop()
    database = daemon.state / "queue.db"
    connection = apsw.Connection(str(database))
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_id'").fetchall()
    connection.close()
    overwrite(database, range(root, root + 1))
    daemon.start()

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


def ask(daemon: LiveDaemon) -> bool:
    try:
        with daemon.wire() as wire:
            wire.job("n7")
    except (RefusedError, OSError):
        return True
    return False
