"""What `queuectld db check` finds: everything that must be true of a queue, each broken once."""

from __future__ import annotations

import apsw
import pytest
from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.policy import Policy
from queuectld.errors import StoreDamagedError, StoreTooNewError
from queuectld.store.base import Retention
from queuectld.store.sqlite import open_store
from queuectld.upkeep.rules import RULES, examine
from tests.store.driving import NOW, Driver, draft
from tests.store.test_migration import load_old
from tests.store.test_outputs import end


@pytest.fixture
def path(tmp_path):
    """A database in which everything has happened."""
    path = tmp_path / "queue.db"
    drive = Driver(open_store(path))
    with drive.store.transaction():
        digest = drive.store.intern(b"environment")
        names = ("gone", "waits", "later", "runs", "done", "fails", "dead", "seen", "cancelled", "deleted")
        due = {"later": NOW + 60}
        jobs = drive.store.add([draft(name, due=due.get(name, NOW), environment=digest) for name in names])
    by = {job.id: job for job in jobs}
    end(drive, by["gone"], output_bytes=1)
    drive.expire(Retention(finished=-1, finished_count=9, deleted=9, events=-1, requests=9), now=NOW, limit=3)
    end(drive, by["done"], output_bytes=5000)
    drive.finish(by["fails"], code=1, policy=Policy())
    drive.bury(by["dead"])
    dead = drive.bury(by["seen"])
    drive.save(replace(dead, seen=True), dead)
    drive.step(transitions.cancel, by["cancelled"], why="")
    drive.step(transitions.discard, drive.bury(by["deleted"]))
    drive.claim(by["runs"])
    drive.store.close()
    return path


def do(path, sql):
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def test_a_queue_in_which_everything_happened_is_in_order(path):
    assert examine(path) == []


BREAKS = {
    "there is one store": "DELETE FROM store",
    "states are legal": "UPDATE jobs SET state = 9 WHERE id = 'waits'",
    "jobs stand where their state says": "UPDATE jobs SET place = 0 WHERE id = 'waits'",
    "queues are declared": "UPDATE jobs SET queue = 'nowhere' WHERE id = 'waits'",
    "the counts are right": "UPDATE counts SET number = number + 1 WHERE kind = 2",
    "a running job has one live attempt, its newest": "DELETE FROM attempts WHERE outcome IS NULL",
    "a live attempt has a running job": "UPDATE attempts SET outcome = NULL WHERE job = 5",
    "every attempt has its job": "UPDATE attempts SET job = 99 WHERE job = 5",
    "attempts of a job are numbered from 1 on": "UPDATE jobs SET attempts = 7 WHERE id = 'done'",
    "tokens are below the counter": "UPDATE store SET last_token = 2",
    "positions are below the counter": "UPDATE store SET last_seq = 2",
    "events have no holes": "DELETE FROM entries WHERE number = 7",
    "what jobs refer to is there, and counted": "UPDATE blobs SET refs = refs + 1",
    "output is counted": "UPDATE store SET kept_output = kept_output + 1",
}


def test_every_rule_is_tried():
    assert set(BREAKS) == {rule.name for rule in RULES}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_not_true_is_told(path, name):
    do(path, BREAKS[name])

    assert any(name in problem for problem in examine(path))


def test_a_blob_without_its_data_is_told(path):
    do(path, "DELETE FROM blob_data")

    assert any("what jobs refer to" in problem for problem in examine(path))


def test_a_job_that_cannot_be_read_is_told(path):
    do(path, "UPDATE jobs SET spec = '{' WHERE id = 'waits'")

    assert any("job waits cannot be read" in problem for problem in examine(path))


def test_what_sqlite_finds_is_told(path):
    connection = apsw.Connection(str(path))
    ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'jobs_by_id'").fetchall()
    connection.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)

    assert examine(path)


def test_an_old_database_is_in_order_as_it_is(tmp_path):
    assert examine(load_old(tmp_path / "queue.db")) == []


def test_no_database_and_a_newer_one_are_errors(path, tmp_path):
    do(path, "PRAGMA user_version = 1000")

    with pytest.raises(StoreTooNewError):
        examine(path)
    with pytest.raises(StoreDamagedError, match="there is no database"):
        examine(tmp_path / "nothing")
