"""A real worker with real commands, and a daemon that does what the test says."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from queuectld.protocol.output import STDERR, STDOUT, unpack
from queuectld.protocol.worker_messages import (
    Ended,
    Exit,
    Follow,
    OutputGrown,
    Reason,
    Recorded,
    Run,
    Signal,
    Started,
    Stop,
)
from queuectld.worker import procfs
from tests.process.fake_daemon import PATIENCE, STORE, FakeDaemon, alive, until


def pid_in(path):
    """Return the process number that a command writes to a file, once it is there whole."""
    return int(until(lambda: path.exists() and path.read_text().endswith("\n") and path.read_text(), str(path)))


# Commands.


def test_a_command_runs_and_its_output_is_kept(daemon):
    outcome = daemon.run("echo hello")

    assert (outcome.reason, outcome.exit_code, outcome.signal) == (Reason.EXITED, 0, None)
    assert daemon.file(".log").read_bytes() == b"hello\n"
    assert (outcome.output_bytes, outcome.output_missing) == (6, 0)
    assert outcome.started_at <= outcome.ended_at


def test_started_names_the_leader_of_a_session(daemon):
    started = daemon.shell(f"read x <{daemon.state}/go")
    assert procfs.start_time(started.pid) == started.pid_start

    daemon.say("go")

    outcome = daemon.end()
    assert (outcome.pid, outcome.pid_start) == (started.pid, started.pid_start)


def test_who_leads_a_command_that_is_over_at_once_is_not_told_by_itself(daemon):
    assert daemon.shell("true") is None
    assert daemon.end().pid


def test_the_command_leads_its_own_session_and_group(daemon):
    daemon.run("echo $$; exec cut -d' ' -f5,6 /proc/$$/stat")

    leader, _, ids = daemon.file(".log").read_text().partition("\n")
    assert ids.split() == [leader, leader]


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 255])
def test_the_exit_code_of_the_command_is_told(daemon, code):
    assert daemon.run(f"exit {code}").exit_code == code


def test_death_by_a_signal(daemon):
    outcome = daemon.run("kill -SEGV $$")

    assert (outcome.reason, outcome.exit_code, outcome.signal) == (Reason.SIGNALLED, None, signal.SIGSEGV)


def test_many_jobs_one_after_the_other(daemon):
    for number in range(50):
        assert daemon.run(f"echo {number}").exit_code == 0
        assert daemon.file(".log").read_text() == f"{number}\n"


def test_recorded_carries_the_next_run(daemon):
    daemon.shell("true")
    daemon.connection.next(Ended)
    token = daemon.tokens
    spec = daemon.spec("/bin/sh", "-c", "echo second")

    daemon.connection.send(Recorded(token, Run(daemon.tokens, spec)))

    daemon.connection.perhaps(Started)
    assert daemon.end().exit_code == 0
    assert daemon.file(".log").read_text() == "second\n"


def test_environment_directory_umask_and_nice(daemon, tmp_path):
    place = tmp_path / "place"
    place.mkdir()

    outcome = daemon.run(
        "pwd; umask; nice; env | sort",
        cwd=str(place),
        umask=0o027,
        nice=5,
        env={"PATH": os.environ["PATH"], "A": "base", "B": "base"},
        extra_env={"B": "extra", "C": "ü"},
    )

    lines = daemon.file(".log").read_text().splitlines()
    assert outcome.exit_code == 0
    assert lines[:3] == [str(place), "0027", "5"]
    assert {"A=base", "B=extra", "C=ü", f"QUEUECTL_ATTEMPT_TOKEN={STORE}/{daemon.tokens}"} <= set(lines)
    assert not any(line.startswith("HOME=") for line in lines)


def test_standard_input_is_empty_unless_given(daemon):
    assert daemon.run("cat").exit_code == 0
    assert not daemon.file(".log").exists()


def test_standard_input_from_a_file(daemon, tmp_path):
    (tmp_path / "in").write_bytes(b"from a file")

    daemon.run("cat", stdin=str(tmp_path / "in"))

    assert daemon.file(".log").read_bytes() == b"from a file"


def test_signals_are_at_their_defaults_in_the_command(daemon):
    daemon.run("grep -E '^Sig(Ign|Blk)' /proc/self/status")

    masks = [int(line.split()[1], 16) for line in daemon.file(".log").read_text().splitlines()]
    assert masks == [0, 0]


def test_signals_that_an_ancestor_ignored_or_blocked_are_too(tmp_path):
    def like_nohup():
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})

    daemon = FakeDaemon(tmp_path)
    try:
        daemon.spawn_worker(preexec_fn=like_nohup)
        daemon.welcome()

        daemon.run("grep -E '^Sig(Ign|Blk)' /proc/self/status")

        assert {line.split()[1] for line in daemon.file(".log").read_text().splitlines()} == {"0" * 16}
    finally:
        daemon.clean_up()


def test_only_the_three_standard_descriptors_are_open_in_the_command(daemon):
    daemon.run("exec ls /proc/self/fd")

    # The fourth is the directory that ls reads.
    assert daemon.file(".log").read_text().split() == ["0", "1", "2", "3"]


def test_cpu_time_and_memory_are_measured(daemon):
    program = "x = bytearray(50_000_000); import os\nwhile sum(os.times()[:2]) < 0.3: pass"

    daemon.start(sys.executable, "-c", program)
    outcome = daemon.end()

    assert 0.25 < outcome.cpu_seconds < 5
    assert 50_000_000 < outcome.peak_memory < 200_000_000


def test_peak_memory_is_of_this_attempt(daemon):
    daemon.start(sys.executable, "-c", "bytearray(80_000_000)")
    daemon.end()

    assert daemon.run("true").peak_memory < 40_000_000


# What cannot be started.


def test_a_program_that_is_not_there(daemon):
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("no-such-program")))
    outcome = daemon.end()

    assert (outcome.reason, outcome.exit_code, outcome.pid) == (Reason.NOT_STARTED, 127, None)
    assert outcome.message == "no-such-program: No such file or directory"


def test_a_program_that_may_not_be_executed(daemon, tmp_path):
    (tmp_path / "data").write_text("no program")
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec(str(tmp_path / "data"))))
    outcome = daemon.end()

    assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 126)


def test_a_file_that_is_no_program(daemon, tmp_path):
    (tmp_path / "data").write_text("no program")
    (tmp_path / "data").chmod(0o755)
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec(str(tmp_path / "data"))))
    outcome = daemon.end()

    assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 126)


def test_a_working_directory_that_is_gone(daemon, tmp_path):
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("true", cwd=str(tmp_path / "gone"))))
    outcome = daemon.end()

    assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 127)
    assert "gone" in outcome.message


def test_an_input_file_that_is_gone(daemon, tmp_path):
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("true", stdin=str(tmp_path / "gone"))))
    outcome = daemon.end()

    assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 127)
    assert outcome.message == "its input cannot be read: No such file or directory"


def test_arguments_that_are_too_long(daemon):
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("true", "x" * 3_000_000)))
    outcome = daemon.end()

    assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 126)


def test_a_host_without_descriptors_is_not_the_jobs_fault(tmp_path):
    daemon = FakeDaemon(tmp_path)
    try:
        limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))  # noqa: E731 - one line, one use
        daemon.spawn_worker(preexec_fn=limit)
        daemon.welcome()
        descriptors = len(list(Path(f"/proc/{daemon.workers[0].pid}/fd").iterdir()))
        daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("true")))

        outcome = daemon.end()

        assert (outcome.reason, outcome.exit_code) == (Reason.HOST_ERROR, None)
        assert len(list(Path(f"/proc/{daemon.workers[0].pid}/fd").iterdir())) == descriptors
    finally:
        daemon.clean_up()


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the kernel refuse")
@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
def test_a_host_without_processes_or_memory_is_not_the_jobs_fault(tmp_path, error):
    daemon = FakeDaemon(tmp_path)
    try:
        calls = "vfork,fork,clone,clone3"
        inject = [
            "strace",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            f"trace={calls}",
            "-e",
            f"inject={calls}:error={error}:when=1",
        ]
        daemon.spawn_worker(prefix=inject)
        daemon.welcome()
        daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("true")))

        assert daemon.end().reason is Reason.HOST_ERROR
        assert daemon.run("exit 4").exit_code == 4
    finally:
        daemon.clean_up()


def test_the_worker_goes_on_after_what_could_not_be_started(daemon):
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("no-such-program")))
    daemon.end()

    assert daemon.run("exit 4").exit_code == 4


# Output.


def test_stdout_and_stderr_in_the_order_seen(daemon, tmp_path):
    seen = 'until [ "$(stat -c %s {}.log 2>/dev/null)" = {} ]; do :; done'
    base = str(tmp_path / "o")

    daemon.run(
        f"echo one; {seen.format(base, 4)}; echo two >&2; {seen.format(base, 8)}; echo three",
        output=base,
    )

    data = (tmp_path / "o.log").read_bytes()
    chunks = unpack((tmp_path / "o.idx").read_bytes())
    assert data == b"one\ntwo\nthree\n"
    assert [(c.offset, c.stream) for c in chunks] == [(0, STDOUT), (4, STDERR), (8, STDOUT)]


def test_the_last_line_on_stderr_is_the_message(daemon):
    assert daemon.run("echo first >&2; echo the reason >&2; exit 1").message == "the reason"


def test_output_that_is_not_utf8(daemon):
    outcome = daemon.run(r"printf '\377\376\0x' ; printf '\377bad\n' >&2")

    assert daemon.file(".log").read_bytes() == b"\xff\xfe\0x\xffbad\n"
    assert outcome.message == "\ufffdbad"


def test_the_limit_keeps_the_first_and_the_last_half(daemon):
    outcome = daemon.run("seq 1 100000", output_limit=1000)

    everything = b"".join(b"%d\n" % number for number in range(1, 100_001))
    assert (outcome.output_bytes, outcome.output_missing) == (len(everything), len(everything) - 1000)
    assert daemon.file(".log").read_bytes() == everything[:500] + everything[-500:]
    assert not daemon.file(".ring").exists()


def test_a_hundred_megabytes_take_no_memory(daemon):
    def memory():
        status = daemon.status()
        return int(status.partition("VmHWM:")[2].split()[0])

    daemon.run("echo x; echo y >&2")
    before = memory()
    outcome = daemon.run("head -c 100000000 /dev/zero")

    assert outcome.output_bytes == 100_000_000
    assert daemon.file(".log").stat().st_size == 1 << 20
    assert memory() - before < 1024


def test_closed_output_does_not_end_the_command(daemon, tmp_path):
    outcome = daemon.run(f"exec >&- 2>&-; while ! [ -e {tmp_path}/go ]; do touch {tmp_path}/go; done; exit 5")

    assert outcome.exit_code == 5


def test_what_is_in_the_pipe_of_a_dead_command_is_read(daemon):
    # It writes a pipe full and is gone before a worker that is stopped can read any of it.
    daemon.shell("read x < go; head -c 60000 /dev/zero; kill -KILL $$", cwd=str(daemon.state))
    worker = daemon.workers[0].pid
    os.kill(worker, signal.SIGSTOP)
    daemon.say("go")
    until(lambda: not any(p.ppid == worker and p.alive for p in procfs.processes()))
    os.kill(worker, signal.SIGCONT)

    assert daemon.end().output_bytes == 60_000


def test_a_command_may_delete_its_output(daemon):
    there = f"until [ -s {daemon.state}/output/0/{daemon.tokens + 1}.1.log ]; do :; done"

    outcome = daemon.run(f"echo x; {there}; rm -rf {daemon.state}/output; echo y; seq 10000", output_limit=1000)

    assert outcome.exit_code == 0
    assert outcome.output_bytes == 4 + 48_894


def test_no_room_for_output_does_not_harm_the_command(daemon):
    # /dev/full takes nothing.
    (daemon.state / "o.log").symlink_to("/dev/full")

    outcome = daemon.run("seq 10000; exit 3", output=str(daemon.state / "o"))

    assert (outcome.exit_code, outcome.output_bytes, outcome.output_missing) == (3, 48_894, 48_894)
    assert outcome.message == "output is incomplete: No space left on device"


def test_growing_output_is_told_to_those_who_follow(daemon):
    daemon.shell("read x < go; echo hello; read x < on", cwd=str(daemon.state))
    daemon.connection.send(Follow(daemon.tokens, on=True))

    daemon.say("go")

    assert daemon.connection.next(OutputGrown) == OutputGrown(daemon.tokens, 6)
    daemon.say("on")
    assert daemon.end().exit_code == 0


# Ending.


def test_a_timeout_terminates(daemon):
    outcome = daemon.run("sleep 1000", timeout=0.1)

    assert (outcome.reason, outcome.signal) == (Reason.TIMEOUT, signal.SIGTERM)


def test_a_timeout_kills_what_ignores_term(daemon):
    outcome = daemon.run("trap '' TERM; while :; do sleep 1000; done", timeout=0.2, kill_after=0.2)

    assert (outcome.reason, outcome.signal) == (Reason.TIMEOUT, signal.SIGKILL)


def test_a_command_that_ends_well_after_term_keeps_its_exit_code(daemon):
    outcome = daemon.run("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done", timeout=0.3)

    assert (outcome.reason, outcome.exit_code) == (Reason.TIMEOUT, 0)


def test_a_stopped_command_can_be_ended(daemon):
    outcome = daemon.run("kill -STOP $$", timeout=0.1, kill_after=1000)

    assert (outcome.reason, outcome.signal) == (Reason.TIMEOUT, signal.SIGTERM)


def test_a_stop_names_its_reason(daemon):
    daemon.shell("sleep 1000")

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))

    outcome = daemon.end()
    assert (outcome.reason, outcome.signal, outcome.leftovers) == (Reason.CANCELLED, signal.SIGTERM, ())


def test_an_end_within_the_grace_is_its_own(daemon):
    daemon.shell("read x < go; exit 9", cwd=str(daemon.state))
    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.INTERRUPTED, grace=1000.0))

    daemon.say("go")

    outcome = daemon.end()
    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 9)


def test_a_second_stop_shortens_the_grace(daemon):
    daemon.shell("sleep 1000")
    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.INTERRUPTED, grace=1000.0))

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.INTERRUPTED))

    assert daemon.end().reason is Reason.INTERRUPTED


def test_a_second_stop_shortens_the_wait_for_the_kill(daemon):
    daemon.shell("trap 'echo term' TERM; echo ready; while :; do sleep 0.01; done", kill_after=1000.0)
    until(daemon.file(".log").exists)
    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.INTERRUPTED))
    until(lambda: "term" in daemon.file(".log").read_text())

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED, kill_after=0.0))

    outcome = daemon.end()
    assert (outcome.reason, outcome.signal) == (Reason.INTERRUPTED, signal.SIGKILL)


def test_a_second_stop_does_not_lengthen(daemon):
    daemon.shell("trap '' TERM; echo ready; while :; do sleep 1000; done")
    until(daemon.file(".log").exists)

    daemon.connection.send(
        Stop(token=daemon.tokens, reason=Reason.CANCELLED, kill_after=0.1),
        Stop(token=daemon.tokens, reason=Reason.INTERRUPTED, grace=1000.0, kill_after=1000.0),
    )

    assert daemon.end().reason is Reason.CANCELLED


def test_a_signal_is_passed_to_the_group(daemon):
    daemon.shell("trap 'exit 8' USR1; echo ready; while :; do sleep 0.01; done")
    until(daemon.file(".log").exists)

    daemon.connection.send(Signal(daemon.tokens, signal.SIGUSR1))

    assert daemon.end().exit_code == 8


FLED = """
import os, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open(sys.argv[1] + "/pid.new", "w").write(f"{os.getpid()}\\n")
os.rename(sys.argv[1] + "/pid.new", sys.argv[1] + "/pid")
time.sleep(1000)
"""


def test_a_process_that_fled_is_gone_before_the_end_is_told(daemon, tmp_path):
    fled = f"env -i {sys.executable} -c '{FLED}' {tmp_path}; while ! [ -e {tmp_path}/pid ]; do :; done"

    outcome = daemon.run(f"{fled}; exit 6", kill_after=0.1)

    pid = pid_in(tmp_path / "pid")
    assert not alive(pid)
    assert outcome.exit_code == 6
    assert [left.partition(" ")[0] for left in outcome.leftovers] == [str(pid)]


def test_a_stop_ends_what_fled_too(daemon, tmp_path):
    daemon.shell(f"env -i {sys.executable} -c '{FLED}' {tmp_path}; sleep 1000")
    fled = pid_in(tmp_path / "pid")

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED, kill_after=0.1))

    assert daemon.end().reason is Reason.CANCELLED
    assert not alive(fled)


WELL_BEHAVED = "sh -c \"trap 'touch done; exit' TERM; touch ready; while :; do sleep 0.01; done\""


@pytest.mark.parametrize("how", [f"{WELL_BEHAVED} & trap '' TERM; wait", f"setsid {WELL_BEHAVED} & wait"])
def test_a_stop_lets_all_of_the_tree_end_well(daemon, how):
    """In the group, while the leader ignores TERM; and outside of it, while the leader dies of it."""
    daemon.shell(how, cwd=str(daemon.state), kill_after=1000.0)
    until((daemon.state / "ready").exists)

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))

    assert daemon.end().reason is Reason.CANCELLED
    assert (daemon.state / "done").exists()


def test_leftovers_are_named_and_ended(daemon):
    outcome = daemon.run("sleep 1000 & echo $!; exit 2")

    left = int(daemon.file(".log").read_text())
    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 2)
    assert outcome.leftovers == (f"{left} sleep",)
    assert not alive(left)


def test_leftovers_may_end_well(daemon, tmp_path):
    program = f"trap 'echo done > {tmp_path}/done; exit' TERM; touch {tmp_path}/ready; while :; do sleep 0.01; done"

    daemon.run(f'sh -c "{program}" & while ! [ -e {tmp_path}/ready ]; do :; done')

    assert (tmp_path / "done").read_text() == "done\n"


@pytest.mark.skipif(not shutil.which("bash"), reason="process substitution is bash's")
def test_a_process_substitution_may_finish(daemon):
    daemon.start("bash", "-c", "echo hello > >(cat)")
    outcome = daemon.end()

    assert daemon.file(".log").read_text() == "hello\n"
    assert outcome.leftovers == ()


def test_the_worker_does_not_wait_for_the_end_of_a_pipe_that_somebody_else_holds(daemon, tmp_path):
    # The command hands its stdout to a stranger by way of /proc, and ends.
    daemon.shell("echo $$; read x < go", cwd=str(daemon.state))
    leader = pid_in(daemon.file(".log"))
    with Path(f"/proc/{leader}/fd/1").open("wb"):
        daemon.say("go")

        assert daemon.end().exit_code == 0


def test_zombies_do_not_pile_up_while_a_command_runs(daemon):
    worker = daemon.workers[0].pid
    daemon.shell("for i in 1 2 3 4 5; do (true &) ; done; echo ready; read x < go", cwd=str(daemon.state))
    until(daemon.file(".log").exists)

    until(lambda: [p.state for p in procfs.processes() if p.ppid == worker] == ["S"])
    daemon.say("go")
    assert daemon.end().leftovers == ()


# The worker itself.


def test_sigterm_finishes_the_attempt_first(daemon):
    daemon.shell("read x < go; exit 3", cwd=str(daemon.state))
    daemon.workers[0].terminate()

    daemon.say("go")

    assert daemon.end().exit_code == 3
    assert daemon.workers[0].wait(PATIENCE) == 0


def test_a_run_that_came_before_sigterm_is_run(daemon):
    worker = daemon.workers[0]
    worker.send_signal(signal.SIGSTOP)
    until(lambda: procfs.stat(worker.pid).state == "T")
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec("/bin/sh", "-c", "exit 3")))
    worker.terminate()

    worker.send_signal(signal.SIGCONT)

    daemon.connection.perhaps(Started)
    assert daemon.end().exit_code == 3
    assert worker.wait(PATIENCE) == 0


def test_sigterm_ends_an_idle_worker(daemon):
    daemon.workers[0].terminate()

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert daemon.connection.hung_up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_are_ignored(daemon, number):
    os.kill(daemon.workers[0].pid, number)

    assert daemon.run("exit 3").exit_code == 3


def test_exit_finishes_the_attempt_first(daemon):
    daemon.shell("read x < go; exit 3", cwd=str(daemon.state))
    daemon.connection.send(Exit())

    daemon.say("go")

    assert daemon.end().exit_code == 3
    assert daemon.workers[0].wait(PATIENCE) == 0


def test_exit_ends_an_idle_worker(daemon):
    daemon.connection.send(Exit())

    assert daemon.workers[0].wait(PATIENCE) == 0


def test_a_killed_worker_leaves_processes_that_can_be_found(daemon):
    started = daemon.shell("sleep 1000")
    leader = until(lambda: procfs.stat(started.pid))

    daemon.workers[0].kill()
    daemon.workers[0].wait()

    assert daemon.connection.hung_up()
    assert leader.session == started.pid
    # A process that is just executing something has no environment for a moment.
    until(lambda: started.pid in procfs.marked(f"{STORE}/{daemon.tokens}".encode()))
    assert procfs.signal_process(started.pid, started.pid_start, signal.SIGKILL)


def test_a_worker_is_small(daemon):
    for _ in range(20):
        daemon.run("echo x; echo y >&2")

    status = daemon.status()
    # 16 MB without what a virtual environment of developers adds (typing_extensions is imported where it is found).
    assert int(status.partition("VmRSS:")[2].split()[0]) < 18 * 1024


def test_an_idle_worker_sleeps(daemon):
    def switches():
        status = daemon.status()
        return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    daemon.run("true")
    until(lambda: procfs.stat(daemon.workers[0].pid).state == "S")
    before = switches()
    deadline = time.monotonic() + 0.5
    until(lambda: time.monotonic() > deadline)

    assert switches() - before <= 1


def test_a_worker_started_by_hand_says_what_it_is():
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "queuectld.worker"], check=False, capture_output=True, text=True
    )

    assert answer.returncode == 1
    assert answer.stderr.startswith("a worker is started by queuectld, not by hand")


def test_what_a_worker_needs_is_imported_at_the_start(daemon):
    loaded = "import sys; import queuectld.worker.__main__ as m; print(*sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-P", "-c", loaded], check=True, capture_output=True, text=True).stdout

    assert {"asyncio", "sqlite3", "apsw", "structlog", "psutil", "click"}.isdisjoint(modules.split())


def test_bytes_that_came_as_utf8_go_on_as_utf8_in_any_locale(tmp_path):
    daemon = FakeDaemon(tmp_path)
    place = tmp_path / "ö"
    place.mkdir()
    try:
        daemon.spawn_worker(env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
        daemon.welcome()

        daemon.start("/bin/sh", "-c", 'echo "$1" "$V"; pwd', "sh", "ü", extra_env={"V": "ä"}, cwd=str(place))

        assert daemon.end().exit_code == 0
        assert daemon.file(".log").read_text("utf-8") == f"ü ä\n{place}\n"
    finally:
        daemon.clean_up()
