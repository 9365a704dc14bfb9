from __future__ import annotations

from queuectld.worker.execution import named
from queuectld.worker.procfs import Stat


def processes(count):
    return [Stat(pid=number, name="sleep", state="S", ppid=1, pgrp=1, session=1, start=1) for number in range(count)]


def test_what_a_command_leaves_is_named():
    assert named(processes(2)) == ["0 sleep", "1 sleep"]
    assert named(processes(1), " (kept)") == ["0 sleep (kept)"]


def test_of_very_many_the_first_are_named_and_the_others_counted():
    names = named(processes(1005))

    assert len(names) == 1001
    assert names[-1] == "and 5 more"
