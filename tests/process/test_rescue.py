"""What is ended in place of a dead worker, where numbers of processes were given out again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from queuectld.protocol.replies import Isolation
from queuectld.supervisor.groups import Groups
from queuectld.supervisor.kept import KeptProcesses
from queuectld.supervisor.rescue import Host, Household, Remains, end_remains
from queuectld.worker import procfs

# Says the number of a child in the same session.
FAMILY = "import subprocess as s; child = s.Popen(['sleep', '1000']); print(child.pid, flush=True); child.wait()"


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_a_worker_that_got_the_number_of_a_command_keeps_what_it_has_just_forked(
    leader: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    groups = Groups(Isolation(cgroup=None, controllers=(), reason="not wanted"), None)
    host = Host(Household([leader.pid]), groups, KeptProcesses(tmp_path, "store", procfs.boot_id(), groups))
    start = procfs.start_time(leader.pid)
    assert start is not None
    earlier = Remains("store/1", leader.pid, start - 1, 1, worker=(0, 0), ended=False)
    same = earlier._replace(pid_start=start)

    assert asyncio.run(end_remains(earlier, host, pytest.fail)) == []
    assert asyncio.run(end_remains(same, host, pytest.fail)) == [f"{child} sleep"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start something as others")
def test_what_somebody_else_gave_the_marker_to_is_none_of_it(tmp_path: Path) -> None:
    groups = Groups(Isolation(cgroup=None, controllers=(), reason="not wanted"), None)
    kept = KeptProcesses(tmp_path, "store", procfs.boot_id(), groups)
    marked = os.environ | {procfs.MARKER_VARIABLE: "store/1"}
    remains = Remains("store/1", None, None, 1, worker=(0, 0), ended=False)
    # Not a child of ours, which would have fled to us: its parent is known, and no part of it.
    with subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True, env=marked, user=4242
    ) as it:
        assert it.stdout is not None
        child = int(it.stdout.readline())
        host = Host(Household([it.pid]), groups, kept)

        assert asyncio.run(end_remains(remains._replace(user=4243), host, pytest.fail)) == []
        assert asyncio.run(end_remains(remains._replace(user=4242), host, pytest.fail)) == [f"{child} sleep"]
        it.wait()
