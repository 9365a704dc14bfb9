"""The directories of the spool on a real disk: what others may put there, and what becomes of it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from queuectld.host import spool_dir
from queuectld.host.spool_dir import SpoolDir, SpoolError, Taken, open_spool, taken_at
from queuectld.service.spool import LARGEST

GOOD = b'{"command": "true"}'
GROUP = 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def spool(path: Path) -> Iterator[SpoolDir]:
    opened = open_spool(path, shared=None)
    yield opened
    opened.close()


@pytest.fixture
def shared(path: Path) -> Iterator[SpoolDir]:
    opened = open_spool(path, shared=GROUP)
    yield opened
    opened.close()


def drop(path: Path, name: str = "x.json", data: bytes = GOOD, mode: int = 0o644) -> Path:
    file = path / "tmp" / name
    file.write_bytes(data)
    file.chmod(mode)
    return file.rename(path / "new" / name)


def take(spool: SpoolDir) -> list[Taken]:
    """Take all that is there."""
    seen = spool.look()
    assert seen is not None
    marks = spool.claim([arrival.name for arrival in seen[1]])
    found, rest = spool.inspect(marks)
    assert not rest
    return list(found)


def names(path: Path) -> list[str]:
    return sorted(place.name for place in path.iterdir())


def modes(path: Path) -> dict[str, int]:
    places = {".": path, **{place.name: place for place in path.iterdir()}}
    return {name: stat.S_IMODE(place.stat().st_mode) for name, place in sorted(places.items())}


def test_the_spool_of_one_user_is_his_alone(path: Path, spool: SpoolDir) -> None:
    assert set(modes(path).values()) == {0o700}


@needs_root
def test_the_members_of_a_group_may_put_files_there_and_touch_none_of_each_other(path: Path, shared: SpoolDir) -> None:
    assert modes(path) == {".": 0o755, "failed": 0o750, "new": 0o3730, "taken": 0o700, "tmp": 0o3730}
    assert {name: (path / name).stat().st_gid for name in ("new", "tmp", "failed")} == dict.fromkeys(
        ("new", "tmp", "failed"), GROUP
    )


def test_what_is_there_already_keeps_its_mode(path: Path) -> None:
    (path / "new").mkdir(parents=True)
    (path / "new").chmod(0o1770)

    open_spool(path, shared=None).close()

    assert modes(path)["new"] == 0o1770


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        (".", 0o757, "everybody may write"),
        (".", 0o770, "chmod g-w"),
        ("new", 0o1777, "everybody may write"),
        ("new", 0o770, r"chmod \+t"),
        ("tmp", 0o2770, r"chmod \+t"),
        ("taken", 0o1770, "chmod g-w"),
        ("failed", 0o770, "chmod g-w"),
    ],
)
def test_directories_in_which_others_could_meddle_are_refused(path: Path, name: str, mode: int, said: str) -> None:
    open_spool(path, shared=None).close()
    (path / name).chmod(mode)

    with pytest.raises(SpoolError, match=said):
        open_spool(path, shared=None)


@needs_root
def test_a_directory_of_somebody_else_is_refused(path: Path) -> None:
    open_spool(path, shared=None).close()
    os.chown(path / "new", 12345, -1)

    with pytest.raises(SpoolError, match="belongs to another user"):
        open_spool(path, shared=None)


@pytest.mark.parametrize("name", ["tmp", "new", "failed", "taken"])
def test_a_link_is_no_directory_of_the_spool(path: Path, tmp_path: Path, name: str) -> None:
    path.mkdir()
    (path / name).symlink_to(tmp_path)

    with pytest.raises(SpoolError, match=name):
        open_spool(path, shared=None)


def test_two_daemons_do_not_share_a_spool(path: Path, spool: SpoolDir) -> None:
    with pytest.raises(SpoolError, match="another daemon"):
        open_spool(path, shared=None)
    spool.close()
    open_spool(path, shared=None).close()


@pytest.mark.parametrize("name", [".", "new", "taken"])
def test_a_directory_that_was_replaced_is_noticed(path: Path, spool: SpoolDir, name: str) -> None:
    assert spool.look() is not None
    place = path / name
    place.rename(path.with_name("away"))
    assert spool.look() is None
    place.mkdir()
    assert spool.look() is None


# Taking.


def test_a_file_is_moved_out_of_reach_before_it_is_looked_at(path: Path, spool: SpoolDir) -> None:
    drop(path)

    (taken,) = take(spool)

    assert [bytes(job) for job in taken.jobs] == [GOOD]
    assert (taken.name, taken.reason, taken.uid) == ("x.json", None, os.geteuid())
    assert list((path / "new").iterdir()) == []
    assert list(spool.claimed()) == [taken.mark]
    assert abs(taken_at(taken.mark) - time.time()) < 60
    spool.discard([taken.mark])
    assert spool.claimed() == []


def test_a_name_that_begins_with_a_dot_is_left_alone(path: Path, spool: SpoolDir) -> None:
    drop(path, ".x.json.a1b2")

    assert take(spool) == []


def test_what_somebody_takes_back_is_not_taken(path: Path, spool: SpoolDir) -> None:
    file = drop(path)
    seen = spool.look()
    assert seen is not None
    file.unlink()

    assert spool.claim([arrival.name for arrival in seen[1]]) == []
    assert spool.inspect(["0" * 24 + ".gone"]) == ([], ())


def make_link(place: Path) -> None:
    place.symlink_to("/etc/passwd")


def make_directory(place: Path) -> None:
    place.mkdir()


def make_pipe(place: Path) -> None:
    os.mkfifo(place)


def make_socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place))


def make_device(place: Path) -> None:
    os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def make_large(place: Path) -> None:
    # It has holes, and no blocks.
    place.touch()
    os.truncate(place, 1 << 40)


def make_writable(place: Path) -> None:
    place.write_bytes(GOOD)
    place.chmod(0o666)


def make_growing(place: Path) -> None:
    place.write_bytes(b" " * (LARGEST + 1))


MAKERS = [make_link, make_directory, make_pipe, make_socket, make_large, make_growing, make_writable]


@pytest.mark.parametrize(
    "make", [*MAKERS, pytest.param(make_device, marks=needs_root)], ids=lambda make: make.__name__.removeprefix("make_")
)
def test_what_is_no_file_with_jobs_goes_to_the_failed_ones(
    path: Path, spool: SpoolDir, make: Callable[[Path], None]
) -> None:
    # A short path: sockets have short names.
    os.chdir(path / "new")
    make(Path("odd"))
    drop(path)

    odd, good = sorted(take(spool), key=lambda taken: taken.name)

    assert good.reason is None
    assert odd.reason is not None
    assert not odd.later
    assert spool.reject(odd, odd.reason) == "odd"
    assert names(path / "failed") == ["odd", "odd.error"]
    assert (path / "failed" / "odd.error").read_text() == f"{odd.reason}\n"
    assert Path("/etc/passwd").exists()


def test_what_cannot_be_read_is_said(path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(spool, "_read", refuses)
    drop(path)

    (taken,) = take(spool)

    assert taken.reason == "it cannot be read: Permission denied"


@needs_root
def test_the_author_of_a_shared_file_is_sure_or_it_is_not_taken(path: Path, shared: SpoolDir) -> None:
    for name, mode, gid in (("good", 0o644, GROUP), ("moved", 0o644, 100), ("open", 0o664, GROUP)):
        os.chown(drop(path, name, mode=mode), 12345, gid)

    found = {taken.name: (taken.uid, taken.reason) for taken in take(shared)}

    assert found["good"] == (12345, None)
    assert "made elsewhere" in str(found["moved"][1])
    assert "others may write" in str(found["open"][1])


@needs_root
def test_the_reason_is_the_owners_to_read(path: Path, shared: SpoolDir) -> None:
    os.chown(drop(path, data=b"{"), 12345, GROUP)
    (taken,) = take(shared)

    shared.reject(taken, "it is not JSON")

    status = (path / "failed" / "x.json.error").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (12345, 0o600)


@needs_root
def test_what_failed_is_for_its_owner_alone_and_what_has_another_name_is_left_as_it_is(
    path: Path, shared: SpoolDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_dir, "_MOMENT", 0.0)
    elsewhere = tmp_path / "elsewhere"
    for name in ("bad", "linked"):
        os.chown(drop(path, name, data=b"{"), 12345, GROUP)
    os.link(path / "new" / "linked", elsewhere)

    for taken in take(shared):
        shared.reject(taken, str(taken.reason))

    assert stat.S_IMODE((path / "failed" / "bad").stat().st_mode) == 0o600
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644


def test_a_second_name_is_waited_for_to_go_and_not_for_long(
    path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As programs do that link instead of rename."""
    file = drop(path)
    (path / "tmp" / "second").hardlink_to(file)
    (taken,) = take(spool)
    assert taken.later

    (path / "tmp" / "second").unlink()
    ((again,), _) = spool.inspect([taken.mark])
    assert (again.later, again.reason) == (False, None)

    (path / "tmp" / "second").hardlink_to(path / "taken" / taken.mark)
    monkeypatch.setattr(spool_dir, "_MOMENT", 0.0)
    ((at_last,), _) = spool.inspect([taken.mark])
    assert not at_last.later
    assert "hard link" in str(at_last.reason)


def test_who_still_writes_is_waited_for_and_not_for_long(
    path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `mv` does between two file systems, which is a copy."""
    with (path / "new" / "x.json").open("wb") as file:
        file.write(GOOD[:5])
        file.flush()
        (taken,) = take(spool)
        assert taken.later
        file.write(GOOD[5:])
    ((again,), _) = spool.inspect([taken.mark])
    assert [bytes(job) for job in again.jobs] == [GOOD]

    with (path / "taken" / taken.mark).open("ab") as file:
        monkeypatch.setattr(spool_dir, "_MOMENT", 0.0)
        ((at_last,), _) = spool.inspect([taken.mark])
    assert not at_last.later


# What failed.


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\nb\x1b[31m", "a_b__31m"),
        (b"\xff\xfe", "__"),
        (b"x" * 255, "x" * 200),
        (b"..x", "..x"),
        ("é☃".encode(), "__"),
    ],
)
def test_any_name_becomes_one_that_can_be_shown(path: Path, spool: SpoolDir, name: bytes, shown: str) -> None:
    (path / "new" / os.fsdecode(name)).write_bytes(b"{")
    if name.startswith(b"."):
        (path / "new" / os.fsdecode(name)).rename(path / "new" / "x")
        shown = "x"

    (taken,) = take(spool)

    assert spool.reject(taken, "why") == shown
    assert (path / "failed" / shown).read_bytes() == b"{"


def test_files_of_the_same_name_are_all_kept(path: Path, spool: SpoolDir) -> None:
    for number in range(3):
        drop(path, data=b"%d{" % number)
        (taken,) = take(spool)
        spool.reject(taken, str(number))

    files = names(path / "failed")
    assert len(files) == 6
    for name in files:
        if not name.endswith(".error"):
            number = (path / "failed" / name).read_text()[0]
            assert (path / "failed" / f"{name}.error").read_text() == f"{number}\n"


def test_only_so_much_of_what_failed_is_kept(path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_dir, "_FAILED", 2)
    for number in range(4):
        drop(path, str(number), data=b"{")
        (taken,) = take(spool)
        spool.reject(taken, "why")
        # The clock of the file system is coarse.
        wait = time.time() + 0.02
        while time.time() < wait:
            os.utime(path / "tmp")

    spool.tidy()
    assert names(path / "failed") == ["2", "2.error", "3", "3.error"]

    monkeypatch.setattr(spool_dir, "_FAILED_BYTES", 0)
    spool.tidy()
    assert names(path / "failed") == []


def test_what_is_old_is_forgotten(path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch) -> None:
    (path / "tmp" / "begun").write_bytes(b"{")
    (path / "tmp" / "begun directory").mkdir()
    drop(path, data=b"{")
    (taken,) = take(spool)
    spool.reject(taken, "why")
    (path / "failed" / "directory").mkdir()
    (path / "failed" / "directory" / "file").touch()

    spool.tidy()
    assert len(names(path / "failed")) == 3
    monkeypatch.setattr(spool_dir, "_FAILED_AGE", -1.0)
    monkeypatch.setattr(spool_dir, "_TMP_AGE", -1.0)
    spool.tidy()

    assert names(path / "tmp") == []
    assert names(path / "failed") == ["directory"]


def test_one_look_takes_in_a_bounded_number_of_names_and_of_bytes(
    path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_dir, "MOST_NAMES", 5)
    monkeypatch.setattr(spool_dir, "_AT_ONCE", 30)
    for number in range(8):
        drop(path, str(number))
    seen = spool.look()
    assert seen is not None
    assert len(seen[1]) == 5

    marks = spool.claim([arrival.name for arrival in seen[1]])
    found, rest = spool.inspect(marks)

    assert [taken.mark for taken in found] + list(rest) == list(marks)
    assert len(found) == 2


def test_what_is_in_the_way_of_one_file_holds_up_no_other(
    path: Path, spool: SpoolDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def picky(source: str, *rest: str, **options: int) -> None:
        if source == "busy":
            raise OSError(16, "Device or resource busy")
        rename(source, *rest, **options)

    drop(path, "busy")
    drop(path, "good")
    monkeypatch.setattr(os, "rename", picky)

    assert [taken.name for taken in take(spool)] == ["good"]


OPENS = """
import os, sys
print(flush=True)
while True:
    try:
        os.close(os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        continue
"""
LOOKS = """
import sys
from queuectld.host.spool_dir import _is_written
with open(sys.argv[1]) as file:
    found = [0, 0]
    while min(found) < 10_000:
        found[_is_written(file.fileno())] += 1
"""


def test_who_opens_a_file_again_and_again_while_it_is_looked_at_does_not_end_the_daemon(path: Path) -> None:
    path.write_bytes(GOOD)
    with subprocess.Popen([sys.executable, "-c", OPENS, path], stdout=subprocess.PIPE) as hostile:
        try:
            assert hostile.stdout is not None
            hostile.stdout.readline()

            assert subprocess.run([sys.executable, "-c", LOOKS, path], check=False).returncode == 0
        finally:
            hostile.kill()
