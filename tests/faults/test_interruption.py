"""Whoever ends the command early is told what was done so far, and finds nothing of it on his machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import powercut
from tests.system import processes
from tests.system.waiting import wait_for

PROJECT = Path(__file__).parents[2]
# A suite that is interrupted where nothing can be raised, and goes on for ever.
DEAF = """
import os, signal, sys, threading
from tests.faults import __main__ as command
from tests.faults.suite import Suite

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def run(tally, rounds, seed):
    tally.fault("deaf")
    Deaf()
    threading.Event().wait()

command.SUITES = {"deaf": Suite("deaf", "", run, 1, "times")}
sys.exit(command.main())
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the command has its files."""
    with tempfile.TemporaryDirectory(prefix="queuectl-cut-") as place:
        yield Path(place)


def mentions(table: str, place: Path) -> list[str]:
    return [line for line in Path(table).read_text().splitlines() if str(place) in line]


def loops(place: Path) -> list[str]:
    """Return the files in it, also such as are removed, that loop devices have."""
    files = [file.read_text() for file in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [file for file in files if str(place) in file]


def starts(place: Path) -> int:
    """Return how many daemons have begun there."""
    logs = place.glob("queuectl-faults-*/queuectld.log")
    return sum(log.read_text().count('"event":"daemon.starting"') for log in logs)


# The one that has most to take away: processes, cgroups, a mount, a loop device.
@pytest.mark.skipif(powercut.hindrance() is not None, reason=powercut.hindrance() or "")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_tells_what_it_did_and_leaves_nothing(number: int, place: Path) -> None:
    results = place / "results.json"
    command = subprocess.Popen(
        [sys.executable, "-m", "tests.faults", "power-cuts", "--json", results],
        cwd=PROJECT,
        env=os.environ | {"TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: starts(place) > 2, "a fault has been got over", deadline=60)
    assert mentions("/proc/self/mountinfo", place)
    assert loops(place)

    # As a terminal does it: all of them get it, and it may come once more.
    os.killpg(command.pid, number)
    command.send_signal(number)
    out, err = command.communicate(timeout=60)

    assert command.returncode == 128 + number
    assert f"Ended by {signal.Signals(number).name}; this is what was done so far." in err
    assert "Traceback" not in err
    assert re.search(r"^power-cuts: [1-9].* (daemon killed|power cut)", out, re.MULTILINE), out
    assert re.search(r"^  checked: ", out, re.MULTILINE), out
    assert not results.exists()
    assert processes.of(place) == []
    assert mentions("/proc/self/mountinfo", place) == []
    assert loops(place) == []
    assert list(place.iterdir()) == []


def test_an_interruption_that_is_lost_in_a_finalizer_comes_again(place: Path) -> None:
    command = [sys.executable, "-c", DEAF, "deaf", "--json", place / "results.json"]

    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 128 + signal.SIGTERM
    assert "deaf: 1 deaf" in done.stdout
    assert "Traceback" not in done.stderr
