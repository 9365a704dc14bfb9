"""A daemon of today on a database of yesterday."""

from __future__ import annotations

import os
import pwd
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.store.test_migration import load_old
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for


def of_somebody_here(database: Path) -> None:
    """Root runs each job as its owner, who has to be a user of this host."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE jobs SET owner = ?", (pwd.getpwuid(os.geteuid()).pw_name,))


def test_jobs_of_an_older_version_go_on_where_they_were(home: Path, new_daemon: Callable[..., LiveDaemon]) -> None:
    (home / "state").mkdir(mode=0o700)
    load_old(home / "state" / "queue.db")
    of_somebody_here(home / "state" / "queue.db")
    daemon = new_daemon(**{"retention.finished": "3650d", "retention.events": "3650d", "retention.deleted": "3650d"})

    daemon.start()

    with daemon.wire() as wire:
        # What ran when the machine went down runs again, no retry spent; what could start has run.
        for job in ("running", "ended", "pending", "lost"):
            assert daemon.wait_for_state(job, "completed")["retries_left"] == 3
        assert [attempt["reason"] for attempt in wire.history("ended")] == ["lost", "exited"]
        assert [attempt["output_bytes"] for attempt in wire.history("completed")] == [1200]
        # Its retry was due long ago; its fourth one has its own time.
        wait_for(
            lambda: [attempt["exit_code"] for attempt in wire.history("failed")] == [3, 3, 3], "it was tried again"
        )
        assert {job: wire.state(job) for job in ("later", "dead", "seen", "cancelled")} == {
            "later": "pending",
            "dead": "dead",
            "seen": "dead",
            "cancelled": "cancelled",
        }
        assert wire.enqueue("true", id="new") == "new"
    daemon.wait_for_state("new", "completed")
    assert (home / "state" / "queue.db.format1").exists()
    assert daemon.stop() == 0
