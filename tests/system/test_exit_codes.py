"""What the daemon ends with, by which a service manager knows whether to start it again."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable

import pytest

from queuectld.errors import (
    BadConfigError,
    DiskFullError,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreTooNewError,
)
from queuectld.exits import code_of
from tests.log_schema import check_log
from tests.system.livedaemon import LiveDaemon


@pytest.fixture
def daemon(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    return new_daemon()


def start_and_fail(daemon: LiveDaemon, code: int, says: str) -> None:
    """Start a daemon; it ends with this code, and the last line of its log says why."""
    ended = daemon.run(daemon.program)
    assert ended.returncode == code, ended
    last = check_log(ended.stderr)[-1]
    assert (last["event"], last["level"], last["exit_code"]) == ("daemon.failed", "critical", code)
    assert says in last["error"]
    assert "traceback" not in last


def test_0_as_asked(daemon: LiveDaemon) -> None:
    daemon.start()

    assert daemon.stop() == 0


def test_65_a_database_that_is_none(daemon: LiveDaemon) -> None:
    daemon.start().stop()
    database = daemon.state / "queue.db"
    database.write_bytes(b"this is no database at all" * 1000)

    start_and_fail(daemon, 65, "is damaged")

    assert database.read_bytes().startswith(b"this is no database")


def test_65_a_database_of_a_newer_version(daemon: LiveDaemon) -> None:
    daemon.start().stop()
    with sqlite3.connect(daemon.state / "queue.db") as database:
        database.execute("PRAGMA user_version = 9999")
    database.close()

    start_and_fail(daemon, 65, "install the newer QueueCTL again")


def test_74_a_state_directory_that_cannot_be_used(daemon: LiveDaemon) -> None:
    daemon.state.mkdir()
    daemon.state.chmod(0o777)

    start_and_fail(daemon, 74, "others may write to")


def test_75_another_daemon(daemon: LiveDaemon) -> None:
    daemon.start()

    start_and_fail(daemon, 75, "another daemon")

    assert daemon.stop() == 0


def test_78_a_configuration_that_is_not_valid(daemon: LiveDaemon) -> None:
    daemon.configure(worker=3)

    start_and_fail(daemon, 78, "worker")


def test_78_a_socket_that_cannot_be_made(daemon: LiveDaemon) -> None:
    daemon.configure(socket="/proc/queuectl.sock")

    start_and_fail(daemon, 78, "cannot listen on /proc/queuectl.sock")


def test_a_kill_is_no_exit_code(daemon: LiveDaemon) -> None:
    daemon.start().kill()

    assert daemon.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadConfigError(), 78),
        (StoreLockedError(), 75),
        (StoreDamagedError(), 65),
        (StoreTooNewError(), 65),
        (StoreError(), 74),
        (DiskFullError(), 74),
    ],
)
def test_what_keeps_a_daemon_from_going_on_decides(error, code) -> None:
    assert code_of(error) == code
