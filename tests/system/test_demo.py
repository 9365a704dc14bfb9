"""The demonstration does what it says, as it would be run from a fresh clone; only the installation is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.livedaemon import PROGRAMS

DEMO = Path(__file__).parents[2] / "deploy" / "demo"


def run_demo(home: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "PYTHON": sys.executable}
    return subprocess.run(
        [DEMO, "--bin", programs],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.slow
def test_the_demonstration_succeeds_and_leaves_nothing_behind(home: Path) -> None:
    done = run_demo(home, PROGRAMS)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "All of it happened as it says" in done.stdout
    assert list(home.iterdir()) == []
    assert processes.of(home) == []


def test_the_demonstration_fails_if_something_does_not_happen(home: Path) -> None:
    programs = home / "bin"
    programs.mkdir()
    (programs / "queuectld").write_text("#!/bin/sh\nexec sleep 1000\n")
    # Succeeds and does nothing.
    (programs / "queuectl").write_text("#!/bin/sh\nexit 0\n")
    for program in programs.iterdir():
        program.chmod(0o755)

    done = run_demo(home, programs)

    assert done.returncode == 1, done.stdout
    assert "FAILED: job1 said hello" in done.stderr
    assert list(home.iterdir()) == [programs]
    assert processes.of(home) == []
