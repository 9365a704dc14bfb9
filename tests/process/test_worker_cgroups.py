"""Cgroups: what a worker does with them, and that it does as well without."""

from __future__ import annotations

import errno
import os
import signal
from itertools import count
from pathlib import Path

import msgspec
import pytest

from queuectld.protocol.worker_messages import Ended, Reason, Recorded, Run, Started, Stop
from queuectld.worker import cgroups, procfs
from queuectld.worker.command import Spawner
from queuectld.worker.enclosure import Enclosure, enclosure_name
from queuectld.worker.execution import Execution
from queuectld.worker.kept import Kept
from queuectld.worker.tree import Tree
from tests import cgroup_place
from tests.process.fake_daemon import STORE, FakeDaemon, alive, until

_NUMBERS = count()
# Flees from everything but a cgroup: twice forked, a session of its own, no environment.
FLEE = "env -i setsid sh -c 'sh -c \"echo \\$\\$ >{0}.new; mv {0}.new {0}; exec sleep 1000\" & exit 0'"


@pytest.fixture
def root():
    with cgroup_place.place(f"queuectl-test.{os.getpid()}.{next(_NUMBERS)}") as directory:
        yield directory


@pytest.fixture
def daemon(root, fake_daemon):
    """A daemon with one worker that lives in a cgroup of its own."""
    fake_daemon.start_worker(cgroups=root)
    until(lambda: cgroups.members(enclosure(fake_daemon)), "the worker has a cgroup of its own")
    return fake_daemon


def enclosure(daemon):
    pid = daemon.workers[-1].pid
    return f"{daemon.cgroups}/{enclosure_name(pid, procfs.stat(pid).start)}"


def number_in(path):
    return int(until(lambda: path.exists() and path.read_text(), f"{path} is written"))


# The directories themselves.


def test_our_own_cgroup_is_found():
    assert os.getpid() in cgroups.members(cgroup_place.home())


def test_a_cgroup_is_made_and_entered_and_left_and_removed(root):
    cgroups.make(root)
    cgroups.make(root)
    assert not cgroups.populated(root)

    sleeper = cgroup_place.sleeper(root)

    assert cgroups.populated(root)
    assert cgroups.members(root) == [sleeper.pid]
    assert not cgroups.remove(root)
    cgroups.kill(root)
    assert sleeper.wait() == -signal.SIGKILL
    assert not cgroups.populated(root)
    assert cgroups.remove(root)
    assert not cgroups.populated(root)
    assert cgroups.remove(root)


def test_what_is_below_counts_and_goes_too(root):
    below = f"{root}/a/b"
    for directory in (root, f"{root}/a", below):
        cgroups.make(directory)
    sleeper = cgroup_place.sleeper(below)

    assert cgroups.populated(root)
    assert cgroups.members(root) == [sleeper.pid]
    cgroups.kill(root)

    sleeper.wait()
    assert cgroups.remove(root)


def test_without_cgroup_kill_its_members_are_killed(root, monkeypatch):
    cgroups.make(root)
    sleeper = cgroup_place.sleeper(root)

    def no_such_file(path, data):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(cgroups, "_write", no_such_file)
    cgroups.kill(root)

    assert sleeper.wait() == -signal.SIGKILL


def test_a_directory_that_is_no_cgroup_is_none(tmp_path):
    assert cgroups.controllers(str(tmp_path)) == []
    assert not cgroups.populated(str(tmp_path))
    assert cgroups.members(str(tmp_path)) == []
    with pytest.raises(FileNotFoundError):
        cgroups.enter(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "mounts", "found"),
    [
        ("/a/b", [("/", "{0}")], "{0}/a/b"),
        ("/a/b", [("/a", "{0}")], "{0}/b"),
        ("/", [("/", "{0}")], "{0}"),
        ("/a/b", [("/other", "{0}"), ("/", "{0}")], "{0}/a/b"),
        ("/a b", [("/", "{0}/x\\040y")], "{0}/x y/a b"),
        # Bound to another part, as containers do it, and nothing of ours is to be seen.
        ("/a/b", [("/a/b/c", "{0}")], None),
        ("/ab", [("/a", "{0}")], None),
        ("/../b", [("/", "{0}")], None),
        ("/a/b", [], None),
        (None, [("/", "{0}")], None),
    ],
)
def test_where_ours_is_follows_from_what_is_mounted(tmp_path, monkeypatch, path, mounts, found):
    place = str(tmp_path)
    lines = [f"41 31 0:38 {root} {mount.format(place)} rw - cgroup2 none rw" for root, mount in mounts]
    files = {
        "/proc/self/mountinfo": "\n".join(["23 1 0:2 / / rw - ext4 /dev/vda rw", *lines]),
        "/proc/self/cgroup": "4:memory:/x\n" + ("" if path is None else f"0::{path}\n"),
    }
    expected = None if found is None else found.format(place)
    monkeypatch.setattr(cgroups, "_read", files.__getitem__)
    monkeypatch.setattr(cgroups, "_pids", lambda directory: [os.getpid()] if directory == expected else [])

    assert cgroups.own() == expected


# A worker in one.


def test_a_command_lives_in_the_cgroup_of_its_worker(daemon):
    started = daemon.shell(f"read x <{daemon.state}/go")

    assert sorted(cgroups.members(enclosure(daemon))) == sorted([daemon.workers[0].pid, started.pid])
    daemon.say("go")
    assert daemon.end().exit_code == 0


def test_a_worker_that_ends_leaves_no_cgroup(daemon):
    place = enclosure(daemon)
    daemon.run("true")

    daemon.workers[0].terminate()
    daemon.workers[0].wait()

    assert not cgroup_place.there(place)


def test_what_is_measured_has_a_cgroup_of_its_own_that_goes_with_it(daemon, root):
    group = f"{root}/{daemon.tokens + 1}"
    started = daemon.shell(f"read x <{daemon.state}/go", cpu=100.0, cgroup=group)

    assert cgroups.members(group) == [started.pid]
    assert cgroups.members(enclosure(daemon)) == [daemon.workers[0].pid]
    daemon.say("go")
    assert daemon.end().exit_code == 0
    assert not cgroup_place.there(group)


def test_many_attempts_leave_no_cgroup(daemon, root):
    for _ in range(100):
        daemon.run("true", cpu=100.0, cgroup=f"{root}/{daemon.tokens + 1}")

    assert [entry.name for entry in os.scandir(root) if entry.is_dir()] == [Path(enclosure(daemon)).name]


@pytest.mark.parametrize("measured", [False, True])
def test_what_flees_is_ended_with_its_command(daemon, root, tmp_path, measured):
    extra = {"cpu": 100.0, "cgroup": f"{root}/{daemon.tokens + 1}"} if measured else {}
    outcome = daemon.run(f"{FLEE.format(tmp_path / 'pid')}; while [ ! -e {tmp_path}/pid ]; do :; done", **extra)

    fled = number_in(tmp_path / "pid")
    assert outcome.leftovers == (f"{fled} sleep",)
    assert not alive(fled)


@pytest.mark.parametrize("measured", [False, True])
def test_a_storm_of_processes_is_ended(daemon, root, tmp_path, measured):
    # Each starts its like and ends, so no list of them is ever true; in the worst case they end by themselves.
    storm = tmp_path / "storm.sh"
    storm.write_text(
        "trap '' TERM\n"
        "f() { [ $1 = 0 ] || (f $(($1 - 1))) & }\n"
        f"for i in 1 2 3 4; do f 2000; done; : >{tmp_path}/blows"
    )
    extra = {"cpu": 1000.0, "cgroup": f"{root}/{daemon.tokens + 1}"} if measured else {}
    spec = daemon.spec("/bin/sh", "-c", f". {storm}; sleep 1000", kill_after=0.0, **extra)
    daemon.connection.send(Run(daemon.tokens, spec))
    until((tmp_path / "blows").exists, "it storms")

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))

    daemon.connection.perhaps(Started)
    assert daemon.end().reason is Reason.CANCELLED
    assert cgroups.members(root) == [daemon.workers[0].pid]
    assert not procfs.marked(f"{STORE}/{daemon.tokens}".encode())
    # The worker is back in its place.
    until(lambda: cgroups.members(enclosure(daemon)) == [daemon.workers[0].pid], "the worker is back")
    assert daemon.run("true").exit_code == 0


class Noted:
    """A cgroup that notes that it was killed."""

    directory = "/nowhere"

    def __init__(self):
        self.killed = 0

    def empty(self):
        return True

    def members(self):
        return []

    def kill(self):
        self.killed += 1


def test_the_cgroup_is_killed_at_one_stroke_when_the_time_to_end_well_is_over(tmp_path, monkeypatch):
    daemon, group = FakeDaemon(tmp_path), Noted()
    # Everything below this process, which is no worker, would be taken for part of the tree.
    monkeypatch.setattr(Tree, "others", lambda _: [])
    try:
        spec = daemon.spec(
            "/bin/sh", "-c", f"trap '' TERM; touch {tmp_path}/deaf; while :; do sleep 1; done", kill_after=5.0
        )
        command = Spawner().spawn(spec, f"{STORE}/1")
        until((tmp_path / "deaf").exists, "it does not hear any more")
        execution = Execution(spec, command, f"{STORE}/1", group, now=0.0)
        execution.stop(1.0, Reason.CANCELLED, 0.0, None)
        execution.turn(1.0)
        assert group.killed == 0

        execution.turn(6.0)

        assert group.killed == 1
        # Its end is not waited for here: this process has other children, and cannot prove to have none.
        assert os.waitstatus_to_exitcode(os.waitpid(command.pid, 0)[1]) == -signal.SIGKILL
    finally:
        daemon.clean_up()


def test_who_was_moved_into_the_cgroup_of_an_attempt_is_ended_with_it(daemon, root):
    group = f"{root}/{daemon.tokens + 1}"
    daemon.shell(f"read x <{daemon.state}/go", cpu=100.0, cgroup=group)
    stranger = cgroup_place.sleeper(group)

    daemon.say("go")

    outcome = daemon.end()
    assert stranger.wait(20) == -signal.SIGTERM
    assert outcome.leftovers == (f"{stranger.pid} sleep",)
    assert not cgroup_place.there(group)


def test_a_process_that_leaves_the_cgroup_is_ended_all_the_same(daemon, tmp_path):
    home = cgroup_place.home()
    script = f"echo $$ >{home}/cgroup.procs; (echo $BASHPID >{tmp_path}/pid; exec setsid sleep 1000) & sleep 1000"
    daemon.start("/bin/bash", "-c", script)
    fled = number_in(tmp_path / "pid")

    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))

    assert daemon.end().reason is Reason.CANCELLED
    assert not alive(fled)


def test_without_a_cgroup_commands_run_and_are_contained(tmp_path):
    daemon = FakeDaemon(tmp_path)
    try:
        daemon.start_worker(cgroups=str(tmp_path / "nowhere" / "x"))
        group = f"{tmp_path}/nowhere/x/1"
        outcome = daemon.run(
            f"{FLEE.format(tmp_path / 'pid')}; while [ ! -e {tmp_path}/pid ]; do :; done", cpu=100.0, cgroup=group
        )

        fled = number_in(tmp_path / "pid")
        assert outcome.leftovers == (f"{fled} sleep",)
        assert not alive(fled)
        assert not (tmp_path / "nowhere").exists()
    finally:
        daemon.clean_up()


def test_a_cgroup_that_is_taken_away_hinders_nobody(daemon, root):
    place = enclosure(daemon)
    pid = daemon.workers[0].pid
    Path(cgroup_place.home(), "cgroup.procs").write_text(str(pid))
    until(lambda: cgroups.remove(root), "it is gone")

    assert daemon.run("echo hello").exit_code == 0
    assert daemon.run("echo hello", cpu=100.0, cgroup=f"{root}/2").exit_code == 0
    assert not alive(pid) or daemon.workers[0].poll() is None
    assert cgroups.members(place) in ([], [pid])


def test_who_cannot_get_out_of_an_attempts_cgroup_runs_no_other(tmp_path, root, monkeypatch):
    home = str(tmp_path)
    enclosure = Enclosure(root, home, "w1-1")
    entered = []

    def enter(directory):
        if directory == f"{root}/7" and directory not in entered:
            entered.append(directory)
            return
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(cgroups, "enter", enter)
    with enclosure.around(f"{root}/7") as group:
        assert not enclosure.stranded or enclosure.is_in(f"{root}/7")

    assert enclosure.stranded
    # It would be suicide.
    killed = []
    monkeypatch.setattr(cgroups, "kill", killed.append)
    group.kill()
    assert killed == []


# What is kept.


def test_what_a_command_leaves_may_be_kept(daemon, root, tmp_path):
    group = f"{root}/{daemon.tokens + 1}"
    daemon.shell("sleep 1000 >/dev/null 2>&1 & echo $!", keep_leftovers=True, cgroup=group)
    ended = daemon.connection.next(Ended)
    sleeper = int(daemon.file(".log").read_text())

    assert ended.outcome.leftovers == (f"{sleeper} sleep (kept)",)
    assert (ended.outcome.reason, ended.outcome.exit_code, ended.last) == (Reason.EXITED, 0, True)
    kept = msgspec.json.decode((daemon.state / "kept" / f"{STORE}.{daemon.tokens}").read_bytes(), type=Kept)
    assert kept == Kept(procfs.boot_id(), ((sleeper, procfs.start_time(sleeper)),))
    daemon.connection.send(Recorded(ended.token))
    # It takes no more, and goes.
    assert daemon.workers[0].wait(20) == 0
    assert alive(sleeper)
    assert cgroups.members(root) == cgroups.members(group) == [sleeper]


def test_a_worker_whose_command_leaves_nothing_goes_on(daemon, root):
    daemon.shell("true", keep_leftovers=True, cgroup=f"{root}/{daemon.tokens + 1}")
    ended = daemon.connection.next(Ended)
    daemon.connection.send(Recorded(ended.token))

    assert (ended.last, ended.outcome.leftovers) == (False, ())
    assert not (daemon.state / "kept").exists()
    assert daemon.run("true").exit_code == 0


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_nothing_is_kept_of_a_command_that_is_ended(daemon, root, tmp_path, how):
    group = f"{root}/{daemon.tokens + 1}"
    timeout = 0.2 if how == "timeout" else None
    script = f"setsid sleep 1000 & echo $! >{tmp_path}/pid; exec sleep 1000"
    daemon.shell(script, keep_leftovers=True, cgroup=group, timeout=timeout)
    left = number_in(tmp_path / "pid")
    if how == "cancel":
        daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))

    assert daemon.end().leftovers == ()

    assert not alive(left)
    assert not (daemon.state / "kept").exists()


def test_what_is_kept_is_kept_without_cgroups_too(tmp_path):
    daemon = FakeDaemon(tmp_path)
    try:
        daemon.start_worker()
        daemon.shell("sleep 1000 >/dev/null 2>&1 & echo $!", keep_leftovers=True)
        ended = daemon.connection.next(Ended)
        sleeper = int(daemon.file(".log").read_text())

        assert ended.outcome.leftovers == (f"{sleeper} sleep (kept)",)
        assert (tmp_path / "kept" / f"{STORE}.{daemon.tokens}").exists()
        daemon.connection.send(Recorded(ended.token))
        assert daemon.workers[0].wait(20) == 0
        assert alive(sleeper)
    finally:
        daemon.clean_up()


def test_what_is_kept_is_cut_off_from_the_output_of_the_job(daemon, root, tmp_path):
    script = f"sh -c 'read x <{tmp_path}/go; echo late; echo never >{tmp_path}/never' & echo early"
    daemon.shell(script, keep_leftovers=True, cgroup=f"{root}/{daemon.tokens + 1}")
    ended = daemon.connection.next(Ended)
    daemon.connection.send(Recorded(ended.token))
    daemon.workers[0].wait(20)
    left = int(ended.outcome.leftovers[0].partition(" ")[0])

    (tmp_path / "go").write_text("go\n")

    until(lambda: not alive(left), "the broken pipe has ended it")
    assert daemon.file(".log").read_text() == "early\n"
    assert not (tmp_path / "never").exists()
