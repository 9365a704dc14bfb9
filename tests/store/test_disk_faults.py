"""System calls of the database fail, one at a time: what was acknowledged is there afterwards, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from queuectld.store.base import Query
from queuectld.store.sqlite import open_store

COUNT = 12

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def enqueue_with(fault, path):
    """Return the exit code and what was said of each job."""
    if not path.exists():
        open_store(path).close()
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-P", f"{path}-wal", "-e", f"inject={fault}"]
    script = Path(__file__).with_name("enqueuer.py")
    done = subprocess.run(
        [*command, sys.executable, script, path, str(COUNT)], capture_output=True, text=True, check=False, timeout=60
    )
    if "strace:" in done.stderr:
        pytest.skip(f"strace cannot be used here: {done.stderr.strip()}")
    return done.returncode, done.stdout.split()


def stored_in(path):
    store = open_store(path)
    jobs = [job.id for job in store.find(Query()).jobs]
    assert sum(store.counts().get("default", {}).values()) == len(jobs)
    assert len(store.entries(start=1, limit=100).entries) == len(jobs)
    store.close()
    connection = apsw.Connection(str(path))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    return jobs


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_a_failed_fsync_ends_the_process_and_no_acknowledged_job_is_lost(tmp_path, number):
    path = tmp_path / "queue.db"

    code, acknowledged = enqueue_with(f"fdatasync:error=EIO:when={number}", path)

    assert code == 74
    # The job whose fsync failed may be there or not; its sender was told neither.
    assert stored_in(path)[: len(acknowledged)] == acknowledged
    assert len(stored_in(path)) <= len(acknowledged) + 1


@pytest.mark.parametrize("number", [1, 3, 10, 20, 31, 44])
def test_a_write_that_fails_for_lack_of_space_refuses_one_job_and_work_goes_on(tmp_path, number):
    path = tmp_path / "queue.db"

    code, answers = enqueue_with(f"pwrite64:error=ENOSPC:when={number}", path)

    assert code == 0
    assert len(answers) == COUNT
    assert answers.count("full") <= 1
    assert stored_in(path) == [answer for answer in answers if answer != "full"]


def test_a_disk_that_stays_full_refuses_everything_and_loses_nothing(tmp_path):
    path = tmp_path / "queue.db"

    _, answers = enqueue_with("pwrite64:error=ENOSPC:when=25+", path)

    acknowledged = [answer for answer in answers if answer != "full"]
    assert 0 < len(acknowledged) < COUNT
    assert stored_in(path) == acknowledged


@pytest.mark.parametrize("number", [2, 17])
def test_a_write_error_ends_the_process_or_refuses_and_no_acknowledged_job_is_lost(tmp_path, number):
    path = tmp_path / "queue.db"

    code, acknowledged = enqueue_with(f"pwrite64:error=EIO:when={number}", path)

    assert code == 74
    assert stored_in(path)[: len(acknowledged)] == acknowledged
    assert len(stored_in(path)) <= len(acknowledged) + 1


# Fails wherever that is: at the opening, in the middle of the tables, when the log is emptied at the end.
@pytest.mark.parametrize("number", [1, 2, 8, 30, 60, 70, 80, 90, 100])
@pytest.mark.parametrize("fault", ["pwrite64:error=ENOSPC", "pwrite64:error=EIO", "fdatasync:error=EIO"])
def test_a_database_that_could_not_be_made_is_made_the_next_time(tmp_path, fault, number):
    path = tmp_path / "queue.db"
    script = Path(__file__).with_name("enqueuer.py")
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}:when={number}+"]

    subprocess.run([*command, sys.executable, script, path, "0"], capture_output=True, check=False, timeout=60)

    assert stored_in(path) == []
