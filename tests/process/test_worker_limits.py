"""What a job may use: real commands that use more, and what becomes of them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from queuectld.protocol.worker_messages import Reason, Stop
from queuectld.worker import oom
from tests.process.fake_daemon import FakeDaemon, until

MIB = 1 << 20
# Holds so many MiB, says so, and waits.
HOLD = "import os, signal; held = b'x' * ({mib} << 20); print('held', flush=True); signal.pause()"
BURN = "while True: pass"


def run_python(daemon, program, **fields):
    daemon.start(sys.executable, "-c", program, **fields)
    return daemon.end()


# Memory.


def test_more_memory_than_allowed_ends_the_command(daemon):
    outcome = run_python(daemon, HOLD.format(mib=200), memory=100 * MIB)

    assert (outcome.reason, outcome.signal) == (Reason.OUT_OF_MEMORY, signal.SIGTERM)
    assert "100.0 MiB allowed" in outcome.message


def test_less_memory_than_allowed_does_not(daemon):
    program = "held = b'x' * (100 << 20); import time; time.sleep(0.3)"

    assert run_python(daemon, program, memory=400 * MIB).reason is Reason.EXITED


def test_the_memory_of_all_processes_counts(daemon):
    one = f'{sys.executable} -c "{HOLD.format(mib=60)}"'

    outcome = daemon.run(f"{one} & {one} & {one} & wait", memory=120 * MIB)

    assert outcome.reason is Reason.OUT_OF_MEMORY


def test_what_processes_share_counts_once(daemon, tmp_path):
    program = f"""
import os, signal
held = b'x' * (100 << 20)
children = []
for _ in range(4):
    if (child := os.fork()) == 0:
        signal.pause()
    children.append(child)
open({str(tmp_path / "up")!r}, "w").close()
open({str(tmp_path / "go")!r}).read()
for child in children:
    os.kill(child, 9)
"""
    daemon.start(sys.executable, "-c", program, memory=200 * MIB)
    until((tmp_path / "up").exists)
    # Long enough for several looks.
    looked = until_looked(daemon, 5)
    daemon.say("go")

    assert daemon.end().reason is Reason.EXITED
    assert looked


def until_looked(daemon, times):
    """Wait until the worker has slept and woken so often."""

    def switches():
        line = next(line for line in daemon.status().splitlines() if line.startswith("voluntary_ctxt_switches"))
        return int(line.split()[1])

    before = switches()
    return until(lambda: switches() >= before + times, "a look of the worker")


def test_pages_of_files_do_not_count_since_the_kernel_can_drop_them(daemon, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * (200 * MIB))
    program = f"""
import mmap
with open({str(file)!r}, "rb") as file:
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    sum(view[at] for at in range(0, len(view), 4096))
    open({str(tmp_path / "up")!r}, "w").close()
    open({str(tmp_path / "go")!r}).read()
"""
    daemon.start(sys.executable, "-c", program, memory=100 * MIB)
    until((tmp_path / "up").exists)
    until_looked(daemon, 5)
    daemon.say("go")

    assert daemon.end().reason is Reason.EXITED


def test_shared_memory_counts(daemon):
    program = "import mmap, signal; held = mmap.mmap(-1, 200 << 20); held.write(b'x' * (200 << 20)); signal.pause()"

    assert run_python(daemon, program, memory=150 * MIB).reason is Reason.OUT_OF_MEMORY


def test_what_ends_well_when_it_has_too_much_is_over_its_limit_all_the_same(daemon):
    program = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); " + HOLD.format(mib=100)

    outcome = run_python(daemon, program, memory=100 * MIB)

    assert (outcome.reason, outcome.exit_code) == (Reason.OUT_OF_MEMORY, 0)


def test_what_ignores_term_and_goes_on_growing_is_killed_long_before_its_time(daemon):
    program = """
import signal, time
signal.signal(15, signal.SIG_IGN)
held = []
while True:
    held.append(b'x' * (1 << 20))
    time.sleep(0.001)
"""
    began = time.monotonic()
    outcome = run_python(daemon, program, memory=64 * MIB, kill_after=1000.0)

    assert (outcome.reason, outcome.signal) == (Reason.OUT_OF_MEMORY, signal.SIGKILL)
    assert outcome.peak_memory < 256 * MIB
    assert time.monotonic() - began < 100


def test_what_stops_growing_has_its_time_to_end(daemon, tmp_path):
    program = f"""
import signal
def term(*_):
    open({str(tmp_path / "go")!r}).read()
    raise SystemExit(5)
signal.signal(15, term)
held = b'x' * (100 << 20)
open({str(tmp_path / "up")!r}, "w").close()
signal.pause()
"""
    daemon.start(sys.executable, "-c", program, memory=100 * MIB, kill_after=1000.0)
    until((tmp_path / "up").exists)
    until_looked(daemon, 5)
    daemon.say("go")

    outcome = daemon.end()
    assert (outcome.reason, outcome.exit_code) == (Reason.OUT_OF_MEMORY, 5)


# The kernel's killer.


class MemoryCgroup:
    """A cgroup of either version in which the kernel kills what holds too much."""

    def __init__(self, limit):
        self.path = None
        name = f"queuectl-test-{os.getpid()}"
        for root, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            path = Path(root) / name
            try:
                path.mkdir()
            except OSError:
                continue
            try:
                # Opened, not made: only a controller has this file.
                with (path / file).open("r+") as control:
                    control.write(str(limit))
            except OSError:
                path.rmdir()
                continue
            self.path = path
            return

    def take(self, pid):
        (self.path / "cgroup.procs").write_text(str(pid))

    def remove(self):
        until(lambda: not (self.path / "cgroup.procs").read_text())
        self.path.rmdir()


@pytest.fixture
def small():
    """A cgroup of 64 MiB."""
    cgroup = MemoryCgroup(64 * MIB)
    if cgroup.path is None:
        pytest.skip("a cgroup with the memory controller cannot be made here")
    yield cgroup
    cgroup.remove()


GROW = """
import pathlib, sys
open(sys.argv[1]).read()
held = b'x' * (200 << 20)
"""


def starve(daemon, small, **fields):
    started = daemon.start(sys.executable, "-c", GROW, str(daemon.state / "go"), **fields)
    small.take(started.pid)
    daemon.say("go")
    return daemon.end()


def test_a_kill_of_the_kernels_is_told_from_that_of_a_person(daemon, small):
    before = oom.kills()

    by_kernel = starve(daemon, small)
    started = daemon.start(sys.executable, "-c", GROW, str(daemon.state / "go"))
    os.kill(started.pid, signal.SIGKILL)
    by_person = daemon.end()

    assert oom.kills() > before
    assert (by_kernel.reason, by_kernel.signal) == (Reason.OUT_OF_MEMORY, signal.SIGKILL)
    assert "killed by the kernel" in by_kernel.message
    assert (by_person.reason, by_person.signal) == (Reason.SIGNALLED, signal.SIGKILL)


def test_a_kill_of_the_kernels_elsewhere_is_no_excuse_for_that_of_a_person(daemon, small):
    if oom.logged() is None:
        pytest.skip("the log of the kernel cannot be read here")
    started = daemon.start(sys.executable, "-c", GROW, str(daemon.state / "on"))
    with subprocess.Popen([sys.executable, "-c", GROW, str(daemon.state / "go")]) as other:
        small.take(other.pid)
        daemon.say("go")
        assert other.wait() == -signal.SIGKILL
    os.kill(started.pid, signal.SIGKILL)

    assert daemon.end().reason is Reason.SIGNALLED


def test_without_the_kernels_log_its_counter_tells(monkeypatch):
    monkeypatch.setattr(oom, "logged", lambda: None)
    monkeypatch.setattr(oom, "kills", lambda: 8)

    assert oom.killed(17, before=7)
    assert not oom.killed(17, before=8)
    assert not oom.killed(17, before=None)


def test_of_the_log_only_what_came_since_counts(monkeypatch):
    monkeypatch.setattr(oom, "logged", lambda: [17, 18])
    monkeypatch.setattr(oom, "kills", lambda: 8)

    assert oom.killed(18, before=7)
    # An older process of that number.
    assert not oom.killed(17, before=7)
    assert oom.killed(17, before=6)


def test_nobody_but_the_kernel_is_believed_in_its_log(tmp_path):
    read, write = os.pipe()
    os.set_blocking(read, False)
    records = [
        b"12,1,5,-;Out of memory: Killed process 11 (user)\n",
        b"3,2,6,-;Out of memory: Killed process 12 (kernel) total-vm:1kB\n",
        b"6,3,7,-;oom_reaper: reaped process 12 (kernel)\n",
    ]
    found = []
    for record in records:
        os.write(write, record)
        found += oom._victims(read)

    assert found == [12]


# Processor time.


def test_more_processor_time_than_allowed_ends_the_command(daemon):
    outcome = run_python(daemon, BURN, cpu=0.3)

    assert (outcome.reason, outcome.signal) == (Reason.CPU_LIMIT, signal.SIGTERM)
    assert "0.3 s allowed" in outcome.message
    assert outcome.cpu_seconds >= 0.3


def test_processor_time_of_children_that_have_ended_counts(daemon):
    child = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.1: pass'"

    outcome = daemon.run(f"while :; do {child}; done", cpu=0.5)

    assert outcome.reason is Reason.CPU_LIMIT


def test_processor_time_of_orphans_that_have_ended_counts(daemon):
    child = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.1: pass'"

    outcome = daemon.run(f"while :; do (setsid {child} &); sleep 0.2; done", cpu=0.5)

    assert outcome.reason is Reason.CPU_LIMIT


def test_time_that_is_waited_is_no_processor_time(daemon):
    assert daemon.run("sleep 0.5", cpu=0.3).reason is Reason.EXITED


# Files.


def test_the_limit_of_open_files_holds_in_the_command(daemon):
    outcome = daemon.run("ulimit -Sn; ulimit -Hn", files=40)

    assert outcome.exit_code == 0
    assert daemon.file(".log").read_text() == "40\n40\n"


def test_files_and_nice_go_together(daemon):
    daemon.run("ulimit -n; nice", files=40, nice=5)

    assert daemon.file(".log").read_text() == "40\n5\n"


def test_more_files_than_the_worker_may_give_are_refused(tmp_path):
    daemon = FakeDaemon(tmp_path)
    try:
        limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))  # noqa: E731 - one line, one use
        daemon.spawn_worker(preexec_fn=limit)
        daemon.welcome()

        outcome = daemon.run("true", files=513)
        given = daemon.run("ulimit -n", files=512)
    finally:
        daemon.clean_up()

    assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 126)
    assert outcome.message == "it asks for 513 open files, and its worker may give it 512 at most"
    assert given.exit_code == 0


# Silence.


def test_a_silent_command_is_ended(daemon):
    outcome = daemon.run("echo begin; sleep 1000", silent_timeout=0.2)

    assert (outcome.reason, outcome.signal) == (Reason.SILENT, signal.SIGTERM)
    assert outcome.message == "nothing written for 0.2 s"


@pytest.mark.parametrize("stream", [1, 2])
def test_each_output_begins_the_wait_anew(daemon, stream):
    began = time.monotonic()

    outcome = daemon.run(f"for i in 1 2 3 4 5 6; do sleep 0.5; echo $i >&{stream}; done; exit 3", silent_timeout=2.5)

    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 3)
    assert time.monotonic() - began > 2.5


def test_a_stopped_command_is_silent_and_is_ended(daemon):
    started = daemon.shell("while :; do echo x; sleep 0.05; done", silent_timeout=0.5)
    os.killpg(started.pid, signal.SIGSTOP)

    assert daemon.end().reason is Reason.SILENT


# Output.


def test_more_output_than_allowed_ends_the_command_if_it_says_so(daemon):
    outcome = daemon.run("yes", output_limit=1000, output_end=True)

    assert (outcome.reason, outcome.signal) == (Reason.OUTPUT_LIMIT, signal.SIGTERM)
    assert outcome.message == "more than 1000 bytes written"
    assert outcome.output_bytes > 1000
    assert daemon.file(".log").stat().st_size == 1000


def test_that_does_not_depend_on_how_soon_the_command_ends_by_itself(daemon):
    for _ in range(20):
        outcome = daemon.run("head -c 100001 /dev/zero", output_limit=100_000, output_end=True)
        assert outcome.reason is Reason.OUTPUT_LIMIT
        assert (outcome.exit_code, outcome.signal) in {(0, None), (None, signal.SIGTERM)}


def test_output_up_to_the_limit_is_allowed(daemon):
    assert daemon.run("head -c 100000 /dev/zero", output_limit=100_000, output_end=True).reason is Reason.EXITED


def test_a_command_that_writes_without_end_can_be_cancelled_and_fills_no_disk(daemon):
    limit = 4 * MIB
    daemon.start("yes", output_limit=limit)
    folder = daemon.file(".log").parent
    until(lambda: folder.exists() and kept(folder) >= limit, "so much output")

    began = time.monotonic()
    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))
    outcome = daemon.end()

    assert time.monotonic() - began < 5.0
    # At its TERM: it did not have to wait for the KILL.
    assert (outcome.reason, outcome.signal) == (Reason.CANCELLED, signal.SIGTERM)
    assert outcome.output_bytes > limit
    # The index besides, which is bounded as well.
    assert kept(folder) <= 2 * limit


def kept(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


# All of them.


def test_what_comes_first_gives_the_reason(daemon):
    work = "import time\nwhile time.process_time() < %s: pass\nprint('x' * 2000, flush=True)\ntime.sleep(1000)"
    # So long that it is ended before it writes, however late its worker looks.
    short, program = work % 0.2, work % 10
    limits = {"timeout": 1000.0, "cpu": 500.0, "memory": 1 << 34, "silent_timeout": 1000.0, "output_limit": 1000}

    assert run_python(daemon, short, **limits, output_end=True).reason is Reason.OUTPUT_LIMIT
    assert run_python(daemon, program, **limits | {"timeout": 0.05}, output_end=True).reason is Reason.TIMEOUT
    assert run_python(daemon, program, **limits | {"cpu": 0.05}, output_end=True).reason is Reason.CPU_LIMIT
    assert run_python(daemon, program, **limits | {"silent_timeout": 0.05}, output_end=True).reason is Reason.SILENT
    assert run_python(daemon, program, **limits | {"memory": MIB}, output_end=True).reason is Reason.OUT_OF_MEMORY


def test_a_job_with_generous_limits_ends_as_any_other(daemon):
    limits = {"timeout": 1000.0, "cpu": 500.0, "memory": 1 << 34, "silent_timeout": 1000.0, "files": 100}

    outcome = daemon.run("echo x; exit 3", **limits, output_end=True)

    assert (outcome.reason, outcome.exit_code, outcome.message) == (Reason.EXITED, 3, None)
