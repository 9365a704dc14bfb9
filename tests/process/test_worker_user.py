"""A worker that is root runs commands as others: with all that they may, and nothing of root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queuectld.protocol.worker_messages import Identity, Outcome, Reason, Run, Started, Stop
from queuectld.service.account import account_of
from queuectld.worker import cgroups, identity, procfs
from tests import cgroup_place
from tests.process.fake_daemon import STORE, FakeDaemon, alive, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as others")

# One that has no entry anywhere, in groups that are named and in one that is not.
STRANGER = Identity(4242, 4243, (4243, 29, 44, 54321))
PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def nobody() -> Identity:
    found = account_of("nobody", {}).identity
    assert found is not None
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others may enter, as they may not where the daemon has its state."""
    directory = Path(tempfile.mkdtemp(prefix="queuectl-user-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(daemon: FakeDaemon) -> Callable[..., str]:
    """Have a shell run something as another user; return what it says, if it succeeds."""

    def run(script: str, identity: Identity = STRANGER, **fields: object) -> str:
        outcome = daemon.run(script, identity=identity, **({"env": PATH} | fields))
        log = daemon.file(".log")
        said = log.read_text() if log.exists() else ""
        assert outcome.exit_code == 0, (outcome, said)
        return said.strip()

    return run


def refused(daemon: FakeDaemon, *argv: str, **fields: object) -> Outcome:
    daemon.connection.send(Run(daemon.tokens + 1, daemon.spec(*argv, **({"identity": STRANGER, "env": PATH} | fields))))
    outcome = daemon.end()
    assert outcome.reason is Reason.NOT_STARTED, outcome
    return outcome


def status(text: str) -> dict[str, list[str]]:
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in text.splitlines())}


# Who it is.


def test_a_command_has_the_user_the_group_and_all_the_groups_of_its_identity_and_no_other(run) -> None:
    told = status(run("cat /proc/self/status"))

    assert told["Uid"] == ["4242"] * 4
    assert told["Gid"] == ["4243"] * 4
    assert sorted(map(int, told["Groups"])) == [29, 44, 4243, 54321]


def test_it_is_for_a_user_of_this_host_what_id_says(run) -> None:
    said = subprocess.run(["id", "nobody"], capture_output=True, text=True, check=True).stdout.strip()

    assert run("id", nobody()) == said


def test_no_capability_is_left_and_a_setuid_program_still_gets_its_own(run, place) -> None:
    shutil.copy(shutil.which("id"), place / "suid")
    (place / "suid").chmod(0o4755)

    said = run(f"{place}/suid -u; cat /proc/self/status")

    assert said.splitlines()[0] == "0"
    told = status(said)
    mine = status(Path("/proc/self/status").read_text())
    assert {told[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (told["CapBnd"], told["NoNewPrivs"]) == (mine["CapBnd"], ["0"])


def test_what_a_container_lets_root_pass_on_is_not_passed_on(fake_daemon) -> None:
    fake_daemon.spawn_worker(prefix=["setpriv", "--inh-caps=+chown", "--ambient-caps=+chown", "--"])
    fake_daemon.welcome()

    assert fake_daemon.run("cat /proc/self/status", identity=STRANGER).exit_code == 0

    told = status(fake_daemon.file(".log").read_text())
    assert {told[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}


def test_there_is_no_way_back(run) -> None:
    program = """
import os
for call in (
    lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setresuid(-1, -1, 0), lambda: os.setreuid(0, 0),
    lambda: os.setgid(0), lambda: os.setresgid(-1, -1, 0), lambda: os.setgroups([0]), lambda: os.setgroups([]),
    lambda: os.chroot("/"), lambda: os.setpriority(os.PRIO_PROCESS, 0, -1),
):
    try:
        call()
    except PermissionError:
        continue
    raise SystemExit("it was let")
print("never")
"""
    # The one of the system: ours may be in somebody's home.
    assert run(f"/usr/bin/python3 -I -c '{program}'") == "never"


def test_only_the_three_standard_descriptors_are_open(run) -> None:
    # The fourth is the directory that ls reads.
    assert run("exec ls /proc/self/fd").split() == ["0", "1", "2", "3"]


def test_it_leads_a_session_of_its_own_and_signals_are_at_their_defaults(run) -> None:
    said = run("echo $$; cut -d' ' -f5,6,7 /proc/$$/stat; grep -E '^Sig(Ign|Blk)' /proc/self/status")

    leader, ids, *masks = said.splitlines()
    # No terminal.
    assert ids.split() == [leader, leader, "0"]
    assert {int(line.split()[1], 16) for line in masks} == {0}


# The number of the session keyring; -1 where there are none.
ASK = f"import ctypes; print(ctypes.CDLL(None).syscall({identity._KEYCTL}, 0, -3, 0))"


def test_its_session_keyring_is_nobody_elses(run) -> None:
    ours = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip()

    # The one of the system: ours may be in somebody's home.
    first, second = (run(f"/usr/bin/python3 -I -c '{ASK}'") for _ in range(2))

    assert {ours, first, second} == {"-1"} or len({ours, first, second}) == 3


def test_a_worker_that_is_not_told_whose_a_command_is_does_not_run_it_as_root(daemon) -> None:
    outcome = refused(daemon, "id", identity=None)

    assert (outcome.exit_code, outcome.message) == (126, "its worker was not told whose it is")


def test_what_a_worker_has_in_memory_is_in_no_core_dump_that_its_user_provokes() -> None:
    # To become who one is already changes nothing else: what the host says for other changes does not matter here.
    program = """
import ctypes, signal
from queuectld.worker.identity import assume, own
assume(own())
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), list(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.split() == ["0", "[]"]


def test_a_command_can_be_traced_by_its_own_user_again(run) -> None:
    # What the worker made sure of for itself does not hold for the program.
    assert run("stat -c %u /proc/self/environ") == "4242"


def test_root_runs_as_root(daemon) -> None:
    told = account_of("root", {}).identity

    assert daemon.run("id -u; id -g", identity=told).exit_code == 0
    assert daemon.file(".log").read_text().split() == ["0", "0"]


def test_a_host_that_does_not_let_the_worker_be_another_is_told_of(fake_daemon) -> None:
    fake_daemon.spawn_worker(prefix=["setpriv", "--bounding-set=-setuid", "--"])
    fake_daemon.welcome()

    outcome = refused(fake_daemon, "id")

    assert (outcome.exit_code, outcome.message) == (126, "it cannot run as user 4242: Operation not permitted")
    assert fake_daemon.run("exit 4").exit_code == 4


# What it reaches.


def test_a_directory_that_only_root_may_enter_is_refused(daemon, place) -> None:
    (place / "roots").mkdir(mode=0o700)

    outcome = refused(daemon, "true", cwd=f"{place}/roots")

    assert (outcome.exit_code, outcome.pid) == (127, None)
    assert outcome.message == f"the directory {place}/roots cannot be used: Permission denied"


def test_a_directory_that_only_its_user_may_enter_is_used(run, place) -> None:
    (place / "own").mkdir(mode=0o700)
    os.chown(place / "own", STRANGER.uid, STRANGER.gid)

    assert run("pwd; touch made; stat -c %u:%g:%a made", cwd=f"{place}/own", umask=0o027).split() == [
        f"{place}/own",
        "4242:4243:640",
    ]


def test_a_directory_that_only_one_of_its_groups_may_enter_is_used(run, place) -> None:
    (place / "groups").mkdir(mode=0o070)
    os.chown(place / "groups", 0, 54321)

    assert run("pwd", cwd=f"{place}/groups") == f"{place}/groups"


def test_a_home_that_cannot_be_entered_is_no_reason_not_to_run(run, place) -> None:
    (place / "roots").mkdir(mode=0o700)

    assert run("pwd", cwd=f"{place}/roots", elsewhere="/") == "/"
    assert run("pwd", cwd=str(place), elsewhere="/") == str(place)


def test_a_program_that_only_root_may_execute_is_refused(daemon, place) -> None:
    shutil.copy("/bin/true", place / "program")
    (place / "program").chmod(0o700)

    outcome = refused(daemon, f"{place}/program")

    assert (outcome.exit_code, outcome.message) == (126, f"{place}/program: Permission denied")


def test_a_program_is_looked_for_on_its_path_as_its_user_sees_it(daemon, place) -> None:
    (place / "roots").mkdir(mode=0o700)
    (place / "roots" / "true").symlink_to("/bin/false")
    path = {"PATH": f"{place}/roots:{place}/gone:/usr/bin:/bin"}

    daemon.start("true", identity=STRANGER, env=path)
    assert daemon.end().exit_code == 0

    assert refused(daemon, "no-such-program", env=PATH).message == "no-such-program: No such file or directory"
    assert refused(daemon, "no-such-program", env=PATH).exit_code == 127
    assert refused(daemon, "no-such-program", env=path).exit_code == 126


def test_what_it_writes_to_by_name_is_its_own(run) -> None:
    assert run("echo out >/dev/stdout; echo err >/dev/stderr").split() == ["out", "err"]


def test_it_can_open_its_standard_input_by_name_and_not_its_file(run, daemon) -> None:
    file = daemon.state / "1.stdin"
    file.write_text("given\n")
    file.chmod(0o444)

    said = run(f"cat; cat /dev/stdin; cat {file} 2>&1 || true", stdin=str(file))

    assert said.splitlines()[:2] == ["given", "given"]
    assert "Permission denied" in said.splitlines()[2]


@pytest.mark.parametrize("shell", ["sh", "bash", "perl"])
def test_a_script_that_lies_where_its_user_may_not_look_is_run(daemon, shell) -> None:
    file = daemon.state / "1.script"
    file.write_text("print 'script ', $0, \"\\n\";\n" if shell == "perl" else 'echo "script $0"\n')
    file.chmod(0o444)

    daemon.start(shell, str(file), identity=STRANGER, env=PATH, script=str(file))

    assert daemon.end().exit_code == 0
    assert daemon.file(".log").read_text().split() == ["script", "/proc/self/fd/63"]


# Limits.


def test_nice_and_open_files_are_set_and_only_root_may_be_less_nice(daemon, run) -> None:
    assert run("nice; ulimit -n; ulimit -Hn", nice=7, files=40).split() == ["7", "40", "40"]

    outcome = refused(daemon, "true", nice=-5)

    assert (outcome.exit_code, outcome.message) == (126, "the nice value -5 may not be set: Permission denied")


def test_what_the_worker_may_use_itself_is_left_as_it_is(run) -> None:
    limits = re.sub(r" +", " ", Path("/proc/self/limits").read_text())

    assert re.sub(r" +", " ", run("cat /proc/self/limits")) == limits.strip()


def test_time_and_memory_are_measured_and_a_limit_ends_it(daemon) -> None:
    outcome = daemon.run("trap '' TERM; while :; do :; done", identity=STRANGER, cpu=0.2, kill_after=0.1)

    assert (outcome.reason, outcome.signal) == (Reason.CPU_LIMIT, signal.SIGKILL)
    assert outcome.cpu_seconds >= 0.2
    assert outcome.peak_memory > 1 << 20


# What it does to others, and others to it.


def test_it_cannot_signal_trace_or_look_into_its_worker(run, daemon) -> None:
    worker = daemon.workers[0].pid
    attempts = ["kill -0 {0}", "kill -9 {0}", "kill -STOP {0}", "cat /proc/{0}/environ", "ls /proc/{0}/fd"]
    attempts += ["cat /proc/{0}/mem", "ls -l /proc/{0}/exe", "cat /proc/{0}/maps", f"ls {daemon.state}"]

    script = "; ".join(f"({attempt.format(worker)}) >/dev/null 2>&1 && echo '{attempt}'" for attempt in attempts)

    assert run(f"{script}; true") == ""
    assert alive(worker)
    assert procfs.stat(worker).state in {"S", "R"}


def test_it_cannot_signal_or_look_into_a_command_of_somebody_else(fake_daemon, place) -> None:
    first = fake_daemon.start_worker()
    theirs = fake_daemon.shell("sleep 1000", identity=STRANGER, env={"SECRET": "deeply", **PATH})
    output = fake_daemon.file(".log")
    fake_daemon.start_worker()
    attempts = [f"kill -9 {theirs.pid}", f"cat /proc/{theirs.pid}/environ", f"ls /proc/{theirs.pid}/fd"]
    attempts += [f"cat /proc/{theirs.pid}/fd/0", f"readlink /proc/{theirs.pid}/cwd", f"cat {output}"]
    script = "; ".join(f"({attempt}) 2>/dev/null && echo did: '{attempt}'" for attempt in attempts)

    assert fake_daemon.run(f"{script}; true", identity=nobody(), env=PATH).exit_code == 0

    assert not fake_daemon.file(".log").exists()
    assert alive(theirs.pid)
    first.send(Stop(token=1, reason=Reason.CANCELLED, kill_after=0.1))


def test_what_others_give_its_marker_to_does_not_hold_up_its_end(daemon) -> None:
    daemon.shell("sleep 1000", identity=STRANGER, env=PATH)
    forged = {procfs.MARKER_VARIABLE: f"{STORE}/{daemon.tokens}"}

    with subprocess.Popen(["sleep", "1000"], env=PATH | forged, user=nobody().uid) as process:
        until(lambda: process.pid in procfs.marked(forged[procfs.MARKER_VARIABLE].encode()), "it carries the marker")
        daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED, kill_after=0.1))
        outcome = daemon.end()

        assert (outcome.reason, outcome.leftovers) == (Reason.CANCELLED, ())
        assert process.poll() is None
        process.kill()


def test_what_it_writes_is_kept_where_only_root_reads(run, daemon) -> None:
    run("echo secret")

    found = daemon.file(".log").stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o600)


def test_it_cannot_leave_its_cgroup(fake_daemon, place) -> None:
    with cgroup_place.place(f"queuectl-test.user.{os.getpid()}") as root:
        fake_daemon.start_worker(cgroups=root)
        until(lambda: cgroups.members(root), "the worker has a cgroup of its own")
        home = cgroup_place.home()
        script = f"""
        mine=$(sed -n s/^0:://p /proc/self/cgroup)
        for there in {home} {root} {cgroup_place.top()} {root}/$(basename "$mine"); do
            (echo $$ >"$there/cgroup.procs") 2>/dev/null && echo "into $there"
            (mkdir "$there/of-mine") 2>/dev/null && echo "below $there"
            (echo 1 >"$there/cgroup.kill") 2>/dev/null && echo "killed $there"
        done
        [ "$mine" = "$(sed -n s/^0:://p /proc/self/cgroup)" ]
        """
        assert fake_daemon.run(script, identity=STRANGER, env=PATH).exit_code == 0
        assert not fake_daemon.file(".log").exists()


@pytest.mark.parametrize("enclosed", [True, False])
def test_nothing_of_it_is_left_be_it_root_by_then_and_fled(fake_daemon, place, enclosed) -> None:
    # As sudo is: another user's in the middle of a job.
    shutil.copy(shutil.which("sleep"), place / "suid")
    (place / "suid").chmod(0o4755)
    place.chmod(0o777)
    script = f"""
    env -i {place}/suid 1000 & echo $! >{place}/child
    env -i setsid sh -c 'sh -c "echo \\$\\$ >{place}/fled; exec {place}/suid 1000" & exit 0'
    until [ -s {place}/fled ]; do sleep 0.01; done
    """
    with cgroup_place.place(f"queuectl-test.left.{os.getpid()}") as root:
        fake_daemon.start_worker(cgroups=root if enclosed else None)

        outcome = fake_daemon.run(script, identity=STRANGER, env=PATH)

        assert outcome.exit_code == 0
        assert sorted(outcome.leftovers) == sorted(f"{int((place / n).read_text())} suid" for n in ("child", "fled"))
        assert not any(alive(int((place / name).read_text())) for name in ("child", "fled"))


# On its way there.


@pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the kernel slow")
def test_a_worker_does_not_wait_for_a_directory_that_does_not_answer(fake_daemon, place) -> None:
    slow = ["-P", str(place), "-e", "trace=chdir", "-e", "inject=chdir:error=EIO:delay_enter=4000000"]
    fake_daemon.spawn_worker(prefix=["strace", "-f", "-qq", "-o", "/dev/null", *slow])
    fake_daemon.welcome()
    began = time.monotonic()

    fake_daemon.connection.send(
        Run(fake_daemon.tokens + 1, fake_daemon.spec("true", cwd=str(place), identity=STRANGER))
    )
    fake_daemon.connection.next(Started)

    assert time.monotonic() - began < 4
    outcome = fake_daemon.end()
    assert (outcome.reason, outcome.exit_code) == (Reason.EXITED, 127)
    assert outcome.message == f"the directory {place} cannot be used: Input/output error"
