"""The long command: replays exactly, wherever it runs; fails for what was never met; leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psutil
import pytest

from queuectld.domain.job import State
from queuectld.domain.transitions import Event
from tests.readme_block import README
from tests.simulation import __main__ as main
from tests.simulation.figures import Figures


def command(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", *words],
        cwd=README.parent,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_work(process: psutil.Process) -> bool:
    return process.is_running() and process.cpu_times().user > 0.5


def test_seeds_live_through_the_same_in_any_process() -> None:
    runs = [
        command("--seeds", "6", "--seed", str(seed), "--jobs", "1", PYTHONHASHSEED=salt)
        for seed, salt in ((1, "0"), (1, "42"), (2, "0"))
    ]

    traces = [re.findall("trace ([0-9a-f]{8})$", run.communicate(timeout=100)[0], re.MULTILINE) for run in runs]

    assert len(traces[0]) == 1
    assert traces[0] == traces[1] != traces[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_all", [False, True], ids=["to it alone", "to its processes too"])
def test_who_ends_it_leaves_no_process_and_gets_one_line(number: signal.Signals, to_all: bool) -> None:  # noqa: FBT001
    run = command("--seeds", "1000", "--jobs", "2")
    until(lambda: len(psutil.Process(run.pid).children()) == 2)
    children = psutil.Process(run.pid).children()
    until(lambda: all(map(at_work, children)))

    (os.killpg if to_all else os.kill)(run.pid, number)

    told, errors = run.communicate(timeout=30)
    assert (told, errors) == ("", f"Ended by {number.name}.\n")
    assert run.returncode == 128 + number
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert not any(map(psutil.Process.is_running, children))


def test_mutants_are_given_up_as_quickly() -> None:
    run = command("--mutants")
    until(lambda: at_work(psutil.Process(run.pid)))

    run.terminate()

    _, errors = run.communicate(timeout=30)
    assert (errors, run.returncode) == ("Ended by SIGTERM.\n", 143)


def met(times: int) -> Figures:
    figures = Figures()
    for counts in figures.counts.values():
        counts.update(dict.fromkeys(counts, times))
    return figures


@pytest.mark.parametrize(("seeds", "code"), [(299, 0), (300, 1)])
def test_what_was_never_met_in_many_worlds_fails_it(
    seeds: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = met(1)
    figures.counts["attack that hit"]["reboot"] = 0
    chunk: Future[Any] = Future()
    chunk.set_result((figures, [], 1.0))
    monkeypatch.setattr(main, "_submitted", lambda *_: [chunk])

    assert main._simulate(0, seeds, 1) == code
    assert capsys.readouterr().out.endswith("\nnever met: attack that hit reboot\n")


def test_the_table_of_moves_tells_the_refused_ones_apart() -> None:
    figures = met(0)
    figures.move(State.DEAD, Event.DISCARD)
    figures.move(State.PENDING, Event.DISCARD, refused=True)

    head, _, *rows = main._moves(figures)

    column = [cell.strip() for cell in head.split("|")].index("discarded")
    cells = {row.split("|")[1].strip(): row.split("|")[column].strip() for row in rows}
    assert cells["dead"] == "1"
    assert cells["pending"] == "(1)"
    assert cells["failed"] == "(0)"
