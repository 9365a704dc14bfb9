"""The tests' own instruments: what is meant to notice a fault does notice it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.waiting import wait_for
from tests.system.witness import Witness


def told(home: Path, *lines: str) -> Witness:
    (home / "witness").write_text("".join(f"{line} 1 {line.split()[1]}\n" for line in lines))
    return Witness(home / "witness")


def test_a_witness_sees_an_attempt_that_goes_on_after_the_next_has_started(home: Path) -> None:
    bad = told(home, "a 1 start", "a 2 start", "a 1 end", "a 2 end")
    assert bad.overlaps() == ["a"]

    good = told(home, "a 1 start", "b 1 start", "a 2 start", "b 1 end", "a 2 end")
    assert good.overlaps() == []


def test_a_witness_sees_two_starts_of_one_attempt(home: Path) -> None:
    assert told(home, "a 1 start", "a 1 start").repeated() == ["a attempt 1 token 1"]
    assert told(home, "a 1 start", "b 1 start").repeated() == ["b attempt 1 token 1"]
    assert told(home, "a 1 start", "a 2 start").repeated() == []


def test_a_witness_testifies_with_the_exit_code_of_what_it_saw(home: Path) -> None:
    witness = Witness(home / "witness")
    env = {"QUEUECTL_JOB_ID": "a", "QUEUECTL_ATTEMPT": "1", "QUEUECTL_ATTEMPT_TOKEN": "store/5"}

    done = subprocess.run(["/bin/sh", "-c", witness.command("(exit 7)")], env=env, check=False)

    assert done.returncode == 7
    assert witness.runs() == {"a": ["1 start", "1 end"]}
    assert {line.token for line in witness.lines()} == {5}


@pytest.mark.parametrize("trace", ["argument", "environment", "directory"])
def test_a_process_is_found_by_each_trace_of_its_place(home: Path, trace: str) -> None:
    words = ["sleep", "1000"]
    env: dict[str, str] = {}
    match trace:
        case "argument":
            words = ["sh", "-c", "sleep 1000; :", str(home)]
        case "environment":
            env = {"PLACE": f"{home}/x"}
        case _:
            pass
    child = subprocess.Popen(words, env=env, cwd=home if trace == "directory" else "/", start_new_session=True)
    try:
        wait_for(lambda: child.pid in [process.pid for process in processes.of(home)], "it is found")
    finally:
        os.killpg(child.pid, 9)
        child.wait()

    # What a shell had just forked still bears its name, and may be dying.
    wait_for(lambda: processes.of(home) == [], "nothing is found any more")


SKIPPED = """
import pytest

def test_skips():
    pytest.skip("no reason at all")

@pytest.mark.xfail(strict=True)
def test_is_known_to_fail():
    assert False
"""


@pytest.mark.parametrize(("variable", "outcome"), [("", "1 skipped, 1 xfailed"), ("1", "1 failed, 1 xfailed")])
def test_a_skip_is_a_failure_where_skips_are_forbidden(home: Path, variable: str, outcome: str) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", home)
    (home / "test_some.py").write_text(SKIPPED)
    env = {"PATH": os.environ["PATH"], "QUEUECTL_TESTS_NO_SKIPS": variable}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", home, home],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome in done.stdout
    assert done.returncode == (1 if variable else 0)
