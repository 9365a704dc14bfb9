"""The limits of an attempt where a cgroup holds to them: directories that look like one."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from queuectld.protocol.worker_messages import Reason, RunSpec
from queuectld.worker import cgroups, oom
from queuectld.worker.limits import LimitGuard

MIB = 1 << 20


@pytest.fixture
def cgroup(tmp_path):
    """The files of a cgroup with the memory controller."""
    for name, text in (
        ("memory.max", "max\n"),
        ("memory.swap.max", "max\n"),
        ("memory.oom.group", "0\n"),
        ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 0\noom_group_kill 0\n"),
        ("cpu.stat", "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def limits(cgroup, **fields):
    spec = RunSpec(job="j", argv=("true",), cwd="/", env=msgspec.Raw(b"{}"), output="/o", output_limit=10, **fields)
    return LimitGuard(msgspec.structs.replace(spec, cgroup=str(cgroup)), 0.0)


def test_where_the_kernel_holds_to_the_limit_of_memory_nobody_else_looks(cgroup):
    held = limits(cgroup, memory=64 * MIB)

    assert (cgroup / "memory.max").read_text() == f"{64 * MIB}"
    assert (cgroup / "memory.swap.max").read_text()[0] == "0"
    assert (cgroup / "memory.oom.group").read_text()[0] == "1"
    assert held.due() is None


def test_a_cgroup_without_the_controller_is_watched(cgroup):
    (cgroup / "memory.max").unlink()

    assert limits(cgroup, memory=64 * MIB).due() is not None
    assert not (cgroup / "memory.max").exists()


def test_a_worker_does_not_confine_itself(cgroup):
    (cgroup / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")

    assert limits(cgroup, memory=64 * MIB).due() is not None
    assert (cgroup / "memory.max").read_text() == "max\n"


def test_a_job_without_a_limit_of_memory_leaves_its_cgroup_alone(cgroup):
    limits(cgroup, cpu=1.0)

    assert (cgroup / "memory.max").read_text() == "max\n"


def test_a_cgroup_counts_the_processor_time_of_all_that_ran_in_it(cgroup):
    assert limits(cgroup, cpu=3.0).look(1000.0, reaped=99.0) is None

    excess = limits(cgroup, cpu=2.0).look(1000.0, reaped=0.0)

    assert (excess.reason, excess.text) == (Reason.CPU_LIMIT, "2.50 s used, 2 s allowed")


def test_nothing_is_looked_at_before_its_time(cgroup):
    assert limits(cgroup, cpu=0.5).look(0.001, reaped=0.0) is None


def test_what_is_no_cgroup_says_nothing(tmp_path):
    assert cgroups.cpu_seconds(str(tmp_path)) is None
    assert cgroups.oom_kills(str(tmp_path)) is None
    assert not cgroups.confine(str(tmp_path), 1)


@pytest.mark.parametrize(
    ("code", "kills", "reason"),
    [
        (-signal.SIGKILL, 1, Reason.OUT_OF_MEMORY),
        # A shell outlived what it ran.
        (137, 1, Reason.OUT_OF_MEMORY),
        (-signal.SIGKILL, 0, None),
        (-signal.SIGTERM, 1, None),
        (0, 1, None),
    ],
)
def test_the_cgroup_tells_whose_kill_it_was(code, kills, reason, cgroup, monkeypatch):
    # The host as a whole has nothing to add.
    monkeypatch.setattr(oom, "killed", lambda *_: True)
    (cgroup / "memory.events").write_text(f"oom 9\noom_kill {kills}\n")

    assert limits(cgroup, memory=MIB).verdict(17, code, 0) is reason


def told(monkeypatch, answers):
    """Let the kernel say that it has killed so many processes, one answer after the other."""
    answers = iter(answers)
    monkeypatch.setattr(oom, "kills", lambda: next(answers))
    monkeypatch.setattr(oom, "logged", lambda: None)


def test_a_short_command_costs_no_question(tmp_path, monkeypatch):
    told(monkeypatch, [])

    limits(tmp_path).note_host(0.01)


def test_only_kills_of_the_last_seconds_are_taken_for_that_of_the_command(tmp_path, monkeypatch):
    held = limits(tmp_path)
    # Somebody else was killed in the first seconds, and nobody since.
    told(monkeypatch, [5, 6, 6, 6])
    for now in (0.03, 1.0, 6.0, 7.0, 12.0):
        held.note_host(now)

    assert held.verdict(17, -signal.SIGKILL, 0) is None


def test_a_kill_that_was_counted_before_its_victim_was_gone_is_not_missed(tmp_path, monkeypatch):
    held = limits(tmp_path)
    told(monkeypatch, [5, 5, 6, 6])
    for now in (0.03, 6.0, 12.0):
        held.note_host(now)

    assert held.verdict(17, -signal.SIGKILL, 0) is Reason.OUT_OF_MEMORY


def test_what_the_kernel_killed_names_limit_and_use(cgroup):
    (cgroup / "memory.events").write_text("oom_kill 1\n")
    held = limits(cgroup, memory=64 * MIB)

    text = held.text(Reason.OUT_OF_MEMORY, peak=60 * MIB)

    assert text == "killed by the kernel; 60.0 MiB used by its largest process, 64.0 MiB allowed"
