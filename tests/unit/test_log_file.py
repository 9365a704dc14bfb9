"""The log file: written in whole lines, opened anew, and lost without harm."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from queuectld.errors import BadConfigError
from queuectld.log_sink import LogFile, Stream, check_log


class Rig:
    """A log file, the stream beside it, and what was told about it."""

    def __init__(self, place: Path) -> None:
        self.path = place / "logs" / "queuectld.jsonl"
        self.path.parent.mkdir(mode=0o755)
        self._beside = place / "stderr"
        self._descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.stream = Stream(self._descriptor, journal=False)
        self.told: list[tuple[str | None, int]] = []

    def open(self, *, mode: int = 0o640, required: bool = True) -> LogFile:
        return LogFile(str(self.path), mode, self.stream, self._tell, required=required)

    def _tell(self, path: str, trouble: str | None, missed: int) -> None:
        assert path == str(self.path)
        self.told.append((trouble, missed))

    @property
    def beside(self) -> str:
        return self._beside.read_text()

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_it_is_made_with_its_permissions_whatever_the_umask(rig, mode):
    before = os.umask(0o077)
    try:
        rig.open(mode=mode).write("info", b"a\n")
    finally:
        os.umask(before)

    assert stat.S_IMODE(rig.path.stat().st_mode) == mode
    assert (rig.path.read_text(), rig.beside) == ("a\n", "")


def test_one_that_is_there_is_continued_and_keeps_its_permissions(rig):
    rig.path.write_text("before\n")
    rig.path.chmod(0o604)

    rig.open().write("info", b"a\n")

    assert rig.path.read_text() == "before\na\n"
    assert stat.S_IMODE(rig.path.stat().st_mode) == 0o604


def test_what_is_critical_is_told_in_both_places(rig):
    file = rig.open()

    for level in ("debug", "info", "warning", "error", "critical"):
        file.write(level, f"{level}\n".encode())

    assert rig.path.read_text().split() == ["debug", "info", "warning", "error", "critical"]
    assert rig.beside == "critical\n"


def test_a_file_that_was_moved_away_is_left_for_the_new_one_when_asked(rig):
    file = rig.open()
    file.write("info", b"a\n")
    old = rig.path.rename(rig.path.with_suffix(".1"))
    file.write("info", b"b\n")

    assert file.reopen()
    file.write("info", b"c\n")

    assert (old.read_text(), rig.path.read_text()) == ("a\nb\n", "c\n")
    assert rig.told == []


def test_a_file_that_was_removed_is_made_again_without_being_asked(rig):
    file = rig.open()
    file.write("info", b"a\n")
    rig.path.unlink()

    file.write("info", b"b\n")

    assert (rig.path.read_text(), rig.beside, rig.told) == ("b\n", "", [])


def test_lines_go_elsewhere_while_the_directory_is_gone_and_that_is_told_once(rig):
    file = rig.open()
    rig.path.unlink()
    rig.path.parent.rmdir()

    file.write("info", b"a\n")
    file.write("info", b"b\n")

    assert rig.beside == "a\nb\n"
    assert rig.told == [("No such file or directory", 0)]
    (problem,) = file.problems()
    assert re.search(r"queuectld\.jsonl cannot be written \(No such file or directory\)", problem)

    rig.path.parent.mkdir()
    file.write("info", b"c\n")

    assert rig.path.read_text() == "c\n"
    assert rig.told[1:] == [(None, 2)]
    assert file.problems() == ()


def test_a_reopening_that_fails_is_told_at_once(rig):
    file = rig.open()
    rig.path.unlink()
    rig.path.parent.rmdir()

    assert not file.reopen()

    assert rig.told == [("No such file or directory", 0)]
    assert file.problems()


def test_one_that_is_not_required_may_come_later(rig):
    rig.path.parent.rmdir()
    file = rig.open(required=False)

    file.write("info", b"a\n")
    rig.path.parent.mkdir()
    file.write("info", b"b\n")

    assert (rig.beside, rig.path.read_text()) == ("a\n", "b\n")


def test_a_full_disk_leaves_no_half_line(rig, mount_small):
    mount_small(rig.path.parent, "1m")
    file = rig.open()
    (rig.path.parent / "rest").write_bytes(bytes(os.statvfs(rig.path.parent).f_bavail * 4096 - 4096 * 8))
    line = b"x" * 4998 + b"\n"

    for _ in range(20):
        file.write("info", line)

    kept, beside = rig.path.read_bytes(), rig.beside.encode()
    assert kept
    assert beside
    assert kept + beside == line * 20
    assert rig.told == [("No space left on device", 0)]

    (rig.path.parent / "rest").unlink()
    file.write("info", line)

    assert rig.path.read_bytes() == kept + line
    assert rig.told[1:] == [(None, len(beside) // len(line))]


def directory_of_others(rig):
    rig.path.parent.chmod(0o777)


def no_directory(rig):
    rig.path.parent.rmdir()


def a_link(rig):
    rig.path.symlink_to("/dev/null")


def a_pipe(rig):
    os.mkfifo(rig.path)


def a_directory(rig):
    rig.path.mkdir()


def a_file_for_a_directory(rig):
    rig.path.parent.rmdir()
    rig.path.parent.touch()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (directory_of_others, "others may write to"),
        (no_directory, "make it first"),
        (a_link, "symbolic link|no regular file"),
        (a_pipe, "no regular file"),
        (a_directory, "it is a directory|no regular file"),
        (a_file_for_a_directory, "is a file, not a directory"),
    ],
)
def test_what_cannot_be_a_log_file_is_refused_with_the_reason_also_by_a_check(rig, spoil, why):
    spoil(rig)

    with pytest.raises(BadConfigError, match=f"`log_file` .*queuectld.jsonl cannot be used: .*({why})") as refused:
        rig.open()
    assert refused.value.path == "log_file"

    with pytest.raises(BadConfigError, match=f"`log_file` .*queuectld.jsonl cannot be used: .*({why})"):
        check_log(str(rig.path))


def test_a_check_makes_nothing(rig):
    check_log(str(rig.path))

    assert not rig.path.exists()
