"""Where the cgroups of a store are, what is ended in them, and what is spared because it was kept."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from queuectld.protocol.replies import Isolation
from queuectld.supervisor import groups
from queuectld.supervisor.groups import Groups, end, find_groups
from queuectld.supervisor.kept import KeptProcesses, Spared, prune_of_others
from queuectld.upkeep.ending import end_all
from queuectld.worker import cgroups, kept, procfs
from tests import cgroup_place
from tests.process.fake_daemon import until

STORE = f"{os.getpid():012x}89abcdef"
BOOT = procfs.boot_id()


@pytest.fixture
def root():
    with cgroup_place.place(f"queuectl.{STORE[:12]}") as directory:
        yield directory


@pytest.fixture
def ours(root):
    cgroups.make(root)
    return Groups(Isolation(cgroup=root, controllers=(), reason=None), cgroup_place.home())


@pytest.fixture
def sleeper():
    """Start processes in cgroups; they are reaped at the end."""
    started = []

    def start(directory):
        cgroups.make(str(Path(directory).parent))
        cgroups.make(directory)
        started.append(cgroup_place.sleeper(directory))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def died(process):
    return process.wait(20) == -signal.SIGKILL


def lives(process):
    return process.poll() is None


# Where.


def test_cgroups_are_found_by_using_them(root):
    found = find_groups(STORE)

    assert found.isolation == Isolation(cgroup=root, controllers=(), reason=None)
    assert os.getpid() in cgroups.members(cgroup_place.home())
    assert list(cgroups.below(root)) == [root]
    found.close()
    assert not cgroup_place.there(root)


def test_who_does_not_want_cgroups_has_none_but_clears_up(root, sleeper):
    left = sleeper(f"{root}/7")

    found = find_groups(STORE, wanted=False)

    assert (found.root, found.of_attempt(7)) == (None, None)
    assert "`off`" in found.isolation.reason
    found.sweep(live=(), workers=(), spared=())
    assert died(left)


@pytest.mark.parametrize(
    ("number", "says"),
    [("EROFS", "read-only"), ("EACCES", "Delegate=yes"), ("EAGAIN", "no more cgroups"), ("EIO", os.strerror(5))],
)
def test_why_there_are_none_is_told(root, monkeypatch, number, says):
    def fail(directory):
        code = getattr(__import__("errno"), number)
        raise OSError(code, os.strerror(code), directory)

    monkeypatch.setattr(cgroups, "make", fail)

    found = find_groups(STORE)

    assert found.root is None
    assert found.isolation.reason.startswith(f"{cgroup_place.home()} cannot be used: ")
    assert says in found.isolation.reason


def test_who_is_in_no_cgroup_of_version_2_has_none(monkeypatch):
    monkeypatch.setattr(cgroups, "own", lambda: None)

    assert find_groups(STORE).isolation.reason == "no cgroup of version 2 is to be seen here"


def test_a_daemon_that_cannot_get_back_has_none(root, monkeypatch):
    home, enter, entered = cgroup_place.home(), cgroups.enter, []

    def once(directory):
        entered.append(directory)
        if len(entered) == 2:
            raise PermissionError(13, "no", directory)
        enter(directory)

    monkeypatch.setattr(cgroups, "enter", once)
    try:
        assert find_groups(STORE).root is None
    finally:
        enter(home)


@pytest.mark.parametrize(
    ("said", "enabled"), [("main\n", ("hugetlb",)), ("other\n", ()), ("\n", ()), (None, ())], ids=str
)
def test_controllers_need_a_service_manager_that_starts_us_below(tmp_path, monkeypatch, said, enabled):
    # On a copy in plain files: what is written where is the point.
    unit = tmp_path / "a.service"
    home = unit / "main"
    home.mkdir(parents=True)
    asked = []
    for place in (unit, home):
        (place / "cgroup.controllers").write_text("hugetlb memory\n")
        (place / "cgroup.subtree_control").write_text("")
    root = unit / f"queuectl.{STORE[:12]}"

    def make(directory):
        Path(directory).mkdir(exist_ok=True)
        Path(directory, "cgroup.controllers").write_text("hugetlb\n")
        Path(directory, "cgroup.subtree_control").write_text("")

    def run(argv, **_):
        asked.append(argv)
        if said is None:
            raise FileNotFoundError(argv[0])
        return subprocess.CompletedProcess(argv, 0, said, "")

    monkeypatch.setattr(cgroups, "own", lambda: str(home))
    monkeypatch.setattr(cgroups, "delegated", lambda directory: directory == str(unit))
    monkeypatch.setattr(cgroups, "make", make)
    monkeypatch.setattr(cgroups, "enter", lambda _: None)
    monkeypatch.setattr(cgroups, "remove", lambda _: True)
    monkeypatch.setattr(groups, "WANTED", ("hugetlb",))
    monkeypatch.setattr(groups.subprocess, "run", run)

    found = find_groups(STORE)

    assert found.isolation == Isolation(cgroup=str(root), controllers=enabled, reason=None)
    assert asked == [["systemctl", "show", "--property=DelegateSubgroup", "--value", "--", "a.service"]]
    written = "+hugetlb" if enabled else ""
    assert (unit / "cgroup.subtree_control").read_text() == written
    assert (root / "cgroup.subtree_control").read_text() == written
    assert (home / "cgroup.subtree_control").read_text() == ""


def test_where_the_cgroup_is_ours_altogether_no_controller_is_touched(root, monkeypatch):
    monkeypatch.setattr(cgroups, "enable", lambda *_: pytest.fail("the trap"))

    assert find_groups(STORE).isolation.controllers == ()
    cgroups.remove(root)


# Ending.


def test_a_sweep_ends_what_nobody_needs_and_nothing_else(ours, root, sleeper):
    me = procfs.stat(os.getpid())
    live, gone, dead_worker, busy_worker, our_worker = (
        sleeper(f"{root}/{name}") for name in ("7", "8", "w4711-1", "w4712-2", f"w{me.pid}-{me.start}")
    )

    ours.sweep(live={7}, workers=[(4712, 2)], spared=())

    assert died(gone)
    assert died(dead_worker)
    assert lives(live)
    assert lives(busy_worker)
    assert lives(our_worker)
    assert {Path(place).name for place in cgroups.below(root)} == {
        Path(root).name,
        "7",
        "w4712-2",
        f"w{me.pid}-{me.start}",
    }


def test_a_sweep_passes_over_what_is_spared(ours, root, sleeper):
    kept_one, beside = sleeper(f"{root}/8"), sleeper(f"{root}/9")

    ours.sweep(live=(), workers=(), spared={kept_one.pid})

    assert died(beside)
    assert lives(kept_one)


def test_the_end_of_a_cgroup_tells_whether_anything_lived_in_it(root, sleeper):
    one = sleeper(root)

    assert not end(root, {one.pid})
    assert lives(one)
    assert end(root, ())
    assert died(one)
    until(lambda: not end(root, ()), "it is empty")
    assert not end(f"{root}/nothing", ())


# Keeping.


@pytest.fixture
def memory(tmp_path, ours):
    return KeptProcesses(tmp_path, STORE, BOOT, ours)


def keep(tmp_path, token, *pids):
    kept.save(str(tmp_path), STORE, token, [procfs.stat(pid) for pid in pids])


def test_what_is_kept_is_spared_with_its_children_its_cgroup_and_its_marker(memory, tmp_path, root, sleeper):
    elder = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"])
    try:
        child = until(lambda: [one.pid for one in procfs.processes() if one.ppid == elder.pid], "it has a child")[0]
        beside = sleeper(f"{root}/7")
        keep(tmp_path, 7, elder.pid)

        assert memory.tokens() == {7}
        assert memory.spared() == Spared(frozenset({elder.pid, child, beside.pid}), frozenset({f"{STORE}/7".encode()}))
        memory.drop(7)
        assert memory.spared() == Spared(frozenset(), frozenset())
    finally:
        os.kill(child, signal.SIGKILL)
        elder.kill()
        elder.wait()


def test_what_is_kept_outlives_a_restore_of_the_queue(tmp_path, root, sleeper):
    kept_one, beside = sleeper(f"{root}/7"), sleeper(f"{root}/8")
    keep(tmp_path, 7, kept_one.pid)

    end_all(tmp_path, [STORE])

    assert died(beside)
    assert lives(kept_one)


def test_what_has_the_number_of_something_kept_is_not_it(memory, tmp_path):
    directory = tmp_path / kept.DIRECTORY
    directory.mkdir()
    start = procfs.stat(os.getpid()).start
    for token, boot, since in ((7, BOOT, start + 1), (8, "another", start)):
        lists = kept.Kept(boot, ((os.getpid(), since),))
        (directory / f"{STORE}.{token}").write_bytes(msgspec.json.encode(lists))

    assert memory.spared().pids == frozenset()
    memory.prune()
    assert list(directory.iterdir()) == []


def test_what_is_kept_is_forgotten_when_nothing_of_it_lives(memory, tmp_path, root, sleeper):
    first, second = sleeper(f"{root}/7"), sleeper(f"{root}/7")
    keep(tmp_path, 7, first.pid)

    memory.prune()
    assert memory.tokens() == {7}
    first.kill()
    first.wait()
    # It had started another one.
    memory.prune()
    assert memory.tokens() == {7}
    second.kill()
    second.wait()
    memory.prune()

    assert memory.tokens() == frozenset()
    assert not cgroup_place.there(f"{root}/7")


def test_what_an_earlier_store_of_the_same_place_kept_is_forgotten_when_nothing_of_it_lives(tmp_path):
    directory = tmp_path / kept.DIRECTORY
    directory.mkdir()
    start = procfs.stat(os.getpid()).start
    for name, since in (("0ld.7", start), ("0ld.8", start + 1), (f"{STORE}.9", start + 1), (".0ld.10", start + 1)):
        (directory / name).write_bytes(msgspec.json.encode(kept.Kept(BOOT, ((os.getpid(), since),))))
    (directory / "other.11").write_text("[]")

    prune_of_others(tmp_path, STORE, BOOT)

    assert sorted(path.name for path in directory.iterdir()) == sorted(["0ld.7", f"{STORE}.9", ".0ld.10", "other.11"])


def test_files_that_are_no_list_of_what_is_kept_are_left_alone(memory, tmp_path):
    directory = tmp_path / kept.DIRECTORY
    directory.mkdir()
    for name in (f"{STORE}.x", f"{STORE}.7", "other.8", f".{STORE}.9"):
        (directory / name).write_text("[]")

    assert memory.tokens() == frozenset()
    assert memory.spared() == Spared(frozenset(), frozenset())
    memory.prune()
    assert len(list(directory.iterdir())) == 4


def test_what_the_disk_takes_piece_by_piece_is_written_down_as_a_whole(memory, tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))

    keep(tmp_path, 7, os.getpid())

    assert os.getpid() in memory.spared().pids


def test_what_cannot_be_written_down_leaves_nothing_half(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)

    with pytest.raises(OSError, match="No space"):
        keep(tmp_path, 7, os.getpid())
    assert list((tmp_path / kept.DIRECTORY).iterdir()) == []
