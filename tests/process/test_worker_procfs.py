"""What /proc says of real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from queuectld.worker import procfs
from tests.process.fake_daemon import until


@pytest.fixture
def sleeper():
    """A process that sleeps until it is killed."""
    with subprocess.Popen(["sleep", "1000"], env={"QUEUECTL_ATTEMPT_TOKEN": f"{os.getpid()}/11", "A": "b"}) as process:
        yield process
        process.kill()


def test_a_name_may_contain_anything(tmp_path):
    strange = tmp_path / "a) S (1 b"
    shutil.copy(shutil.which("sleep"), strange)

    with subprocess.Popen([strange, "1000"], start_new_session=True) as process:
        found = procfs.stat(process.pid)
        process.kill()

    assert found.name == "a) S (1 b"
    assert (found.pid, found.ppid, found.pgrp, found.session) == (process.pid, os.getpid(), process.pid, process.pid)


def test_what_is_gone_is_none(sleeper):
    sleeper.kill()
    sleeper.wait()

    assert procfs.stat(sleeper.pid) is None
    assert procfs.start_time(sleeper.pid) is None


def test_a_zombie_is_seen_and_counts_as_gone(sleeper):
    assert procfs.start_time(sleeper.pid) == procfs.stat(sleeper.pid).start
    sleeper.kill()

    until(lambda: procfs.stat(sleeper.pid).state == "Z")
    assert procfs.start_time(sleeper.pid) is None
    assert sleeper.pid in {found.pid for found in procfs.processes()}


def test_the_marker_is_matched_exactly(sleeper):
    marker = f"{os.getpid()}/11".encode()

    assert procfs.marked(marker) == [sleeper.pid]
    assert procfs.marked(marker[:-1]) == []
    assert procfs.marked(marker + b"1") == []
    assert procfs.marked(marker[1:]) == []


def test_a_signal_reaches_only_the_process_that_is_meant(sleeper):
    start = procfs.stat(sleeper.pid).start

    assert not procfs.signal_process(sleeper.pid, start + 1, signal.SIGKILL)
    assert sleeper.poll() is None
    assert procfs.signal_process(sleeper.pid, start, signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM
    assert not procfs.signal_process(sleeper.pid, start, signal.SIGTERM)


def test_a_boot_has_a_name():
    assert len(procfs.boot_id()) == 36


def test_a_subreaper_inherits_orphans():
    program = """
import os
from queuectld.worker import procfs
procfs.become_subreaper()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        os._exit(7)
    os._exit(0)
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)))
"""

    assert subprocess.check_output([sys.executable, "-c", program]) == b"[0, 7]\n"
