from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from queuectld.durable import replace_file
from queuectld.errors import StoreError, StoreLockedError
from queuectld.host import state_dir
from queuectld.host.state_dir import open_state_dir


@pytest.fixture
def opened(tmp_path):
    state = open_state_dir(tmp_path / "deep" / "state")
    yield state
    state.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def hold_elsewhere(path):
    """Try to open the state directory in another process; return what came of it."""
    source = (
        "import sys\n"
        "from queuectld.errors import QueueCTLError\n"
        "from queuectld.host.state_dir import open_state_dir\n"
        "try:\n"
        "    open_state_dir(sys.argv[1])\n"
        "except QueueCTLError as error:\n"
        "    print(error.code, error.message)\n"
        "else:\n"
        "    print('held')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, path], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_it_is_made_for_its_owner_alone(opened):
    made = [opened.path, opened.outcomes, opened.output, opened.input]

    assert {mode(path) for path in made} == {0o700}
    assert mode(opened.path / "lock") == 0o600
    assert opened.path.is_absolute()


def test_opening_it_again_changes_nothing(tmp_path):
    first = open_state_dir(tmp_path)
    (first.outcomes / "kept").touch()
    first.close()

    again = open_state_dir(tmp_path)

    assert (again.outcomes / "kept").exists()
    again.close()


def test_a_second_daemon_is_kept_out_and_told_by_whom(opened):
    assert hold_elsewhere(opened.path) == f"store_locked another daemon (process {os.getpid()}) holds {opened.path}"


def test_the_lock_is_free_again_when_its_holder_lets_go(tmp_path):
    open_state_dir(tmp_path).close()

    assert hold_elsewhere(tmp_path) == "held"


def test_a_program_started_by_the_daemon_does_not_keep_the_lock(tmp_path):
    state = open_state_dir(tmp_path)
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, close_fds=False)
    state.close()

    found = hold_elsewhere(tmp_path)
    child.communicate(timeout=60)

    assert found == "held"


def test_within_one_process_the_lock_holds_too(opened):
    with pytest.raises(StoreLockedError):
        open_state_dir(opened.path)


def test_the_socket_is_written_down_and_replaced(opened):
    opened.record_socket("/run/queuectl/a.sock")
    opened.record_socket("/run/queuectl/b.sock")

    assert (opened.path / "socket").read_text() == "/run/queuectl/b.sock\n"
    assert not list(opened.path.glob(".socket*"))


def test_input_of_attempts_that_are_over_is_removed(opened):
    for name in ("7.stdin", "7.script", "8.stdin", "77.stdin", "junk"):
        (opened.input / name).touch()

    assert opened.prune_input(frozenset({7})) == 3
    assert sorted(path.name for path in opened.input.iterdir()) == ["7.script", "7.stdin"]


def test_a_directory_that_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o770)

    with pytest.raises(StoreError, match=f"chmod 700 {tmp_path}"):
        open_state_dir(tmp_path)


def test_a_directory_that_its_owner_may_not_write_to_is_refused(tmp_path, monkeypatch):
    # Root may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    with pytest.raises(StoreError, match=f"chmod 700 {tmp_path}"):
        open_state_dir(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_way_is_named(place, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match=r"a file, not a directory|a file of that name"):
        open_state_dir(tmp_path / place)


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "lock").symlink_to("/dev/null")

    with pytest.raises(StoreError, match="symbolic link"):
        open_state_dir(tmp_path)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "set QUEUECTL_STATE_DIR"),
        (errno.EROFS, "mounted read-only"),
        (errno.ENOSPC, "disk is full"),
        (errno.ESTALE, "is its file system mounted"),
        (errno.ENAMETOOLONG, "File name too long"),
    ],
)
def test_what_the_system_refuses_is_told_with_advice(number, advice, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(number, os.strerror(number), str(tmp_path))

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(StoreError, match=advice) as caught:
        open_state_dir(tmp_path)

    assert str(tmp_path) in caught.value.message


def test_another_users_directory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(state_dir.os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    if tmp_path.stat().st_uid == 0:
        # A directory of root is anybody's problem but not a foreign one; so make it look like a user's.
        found = os.stat_result((0o40700, *tmp_path.stat()[1:4], 4242, *tmp_path.stat()[5:10]))
        monkeypatch.setattr(Path, "stat", lambda *_args, **_options: found)

    with pytest.raises(StoreError, match="belongs to another user"):
        open_state_dir(tmp_path)


def test_a_file_is_replaced_as_a_whole_with_the_mode_that_was_asked_for(tmp_path):
    path = tmp_path / "file"
    path.write_text("old and longer")

    replace_file(path, b"new", mode=0o640)

    assert path.read_bytes() == b"new"
    assert mode(path) == 0o640 & ~_umask()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def _umask():
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
