"""What the tree of a command uses, of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from queuectld.worker import usage

MIB = 1 << 20
# Two children, one of them of another thread, and a grandchild; each says its number.
FAMILY = """
import os, signal, threading
def child(then=lambda: None):
    if os.fork() == 0:
        then()
        os.write(1, f"{os.getpid()} {os.getppid()}\\n".encode())
        signal.pause()
child(child)
thread = threading.Thread(target=child)
thread.start()
thread.join()
held = b"x" * (50 << 20)
os.write(1, b"all\\n")
signal.pause()
"""
# Holds 40 MiB that a child has as well.
SHARERS = """
import os, signal
held = b"x" * (40 << 20)
if os.fork() == 0:
    signal.pause()
print("all", flush=True)
signal.pause()
"""


@pytest.fixture
def start():
    started = []

    def start(program):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def numbers(process):
    """Read the numbers of a family, as (process, parent)."""
    lines = []
    while len(lines) < 4:
        lines.append(process.stdout.readline().split())
    return [(int(line[0]), int(line[1])) for line in lines if line != ["all"]]


@pytest.mark.parametrize("told", [True, False])
def test_all_processes_of_a_tree_are_found_parents_first(told, start, monkeypatch):
    monkeypatch.setattr(usage, "_TOLD", told)
    process = start(FAMILY)
    family = numbers(process)

    found = list(usage.descendants(process.pid))

    assert sorted(found) == sorted(pid for pid, _ in family)
    assert all(parent == process.pid or found.index(parent) < found.index(pid) for pid, parent in family)


def test_a_storm_of_processes_is_not_looked_at_for_long(start, monkeypatch):
    process = start(FAMILY)
    numbers(process)
    monkeypatch.setattr(usage, "_LONGEST_LOOK", 0.0)

    assert list(usage.descendants(process.pid)) == []


def test_the_memory_of_a_tree_is_at_least_what_it_filled(start):
    process = start(FAMILY)
    numbers(process)
    tree = [process.pid, *usage.descendants(process.pid)]

    assert 50 * MIB < usage.memory(tree, enough=1 << 40) < 120 * MIB


def test_shared_memory_is_counted_once_where_it_matters(start):
    process = start(SHARERS)
    process.stdout.readline()
    tree = [process.pid, *usage.descendants(process.pid)]

    assert usage.memory(tree, enough=1 << 40) > 80 * MIB
    assert 40 * MIB < usage.memory(tree, enough=60 * MIB) < 60 * MIB


def test_without_time_for_all_the_others_are_taken_to_share_as_much(start, monkeypatch):
    process = start(SHARERS)
    process.stdout.readline()
    tree = [process.pid, *usage.descendants(process.pid)]
    monkeypatch.setattr(usage, "_LONGEST_LOOK", -1.0)

    assert 30 * MIB < usage.memory(tree, enough=60 * MIB) < 60 * MIB


def test_what_may_not_be_looked_into_is_charged_with_all_that_it_has(start, monkeypatch):
    process = start(SHARERS)
    process.stdout.readline()
    tree = [process.pid, *usage.descendants(process.pid)]
    real = usage._read

    def read(path):
        if path.endswith("smaps_rollup"):
            raise PermissionError
        return real(path)

    monkeypatch.setattr(usage, "_read", read)

    assert usage.memory(tree, enough=60 * MIB) > 80 * MIB


def test_processes_that_are_gone_use_nothing():
    with subprocess.Popen(["true"]) as process:
        process.wait()

    assert usage.memory([process.pid, process.pid], enough=0) == 0
    assert usage.cpu([process.pid]) == 0.0
    assert list(usage.descendants(process.pid)) == []


def test_processor_time_includes_that_of_children_that_were_waited_for(start):
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    process = start(
        f"import subprocess, sys, signal; subprocess.run([sys.executable, '-c', {burn!r}]); "
        "print('all', flush=True); signal.pause()"
    )
    process.stdout.readline()

    # Less by what two ticks cut off.
    assert usage.cpu([process.pid]) > 0.15
