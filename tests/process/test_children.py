from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from queuectld.host.children import Children, Command
from tests.system import processes
from tests.system.waiting import wait_for


class Parent:
    """Notes whom it knows."""

    def __init__(self):
        self.known = set()

    def start_child(self, start):
        self.known.add(pid := start())
        return pid

    def disown(self, pid):
        self.known.remove(pid)


PARENT = Parent()


@pytest.fixture(autouse=True)
def known_no_longer_than_it_lives():
    yield
    assert not PARENT.known


def run(code, *, within=20.0):
    """Run Python `code` as the daemon runs a check; return how it ended."""

    async def whole():
        children = Children()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, children.reap)
        command = Command([sys.executable, "-c", code], {"PATH": os.defpath}, "/")
        return await children.run(command, PARENT, within=within)

    return asyncio.run(whole())


@pytest.mark.parametrize(("code", "expected"), [("", 0), ("raise SystemExit(78)", 78), ("import os; os.abort()", -6)])
def test_how_a_program_ends_is_told(code, expected):
    assert run(code).code == expected


def test_what_it_says_is_told_wherever_it_says_it():
    finished = run("import sys; print('here', flush=True); print('and there', file=sys.stderr)")

    assert finished.said == "here\nand there\n"


def test_of_one_that_says_too_much_the_end_is_kept():
    finished = run("print('x' * 1_000_000); print('last words')")

    assert finished.said.endswith("xxx\nlast words\n")
    assert len(finished.said) == 64 * 1024


def test_one_that_takes_too_long_is_killed_with_what_it_has_started(tmp_path):
    pids = tmp_path / "pids"

    finished = run(
        "import os, subprocess, time; child = subprocess.Popen(['sleep', '1000']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(1000)",
        within=2.0,
    )

    assert finished.code is None
    both = [int(pid) for pid in pids.read_text().split()]
    assert len(both) == 2
    wait_for(lambda: not any(map(processes.alive, both)), "they are gone")


def test_one_that_cannot_be_started_is_an_error():
    with pytest.raises(FileNotFoundError):
        asyncio.run(Children().run(Command(["/nowhere"], {}, "/"), PARENT, within=1.0))


def test_others_that_end_meanwhile_are_reaped_and_not_taken_for_it():
    async def whole():
        children = Children()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, children.reap)
        command = Command([sys.executable, "-c", "raise SystemExit(3)"], {}, "/")
        return await children.run(command, PARENT, within=20.0)

    other = os.posix_spawn("/bin/true", ["true"], {})

    finished = asyncio.run(whole())

    assert finished.code == 3
    with pytest.raises(ChildProcessError):
        os.waitpid(other, 0)
