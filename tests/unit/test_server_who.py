from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from queuectld.server.who import (
    Access,
    Peer,
    Role,
    group_name,
    how_to_join,
    peer_groups,
    role_of,
    unix_peer,
)
from queuectld.service import owner
from queuectld.service.owner import user_name

SOCKET, ADMINS, OBSERVERS, ELSE = 101, 102, 103, 104
ROOTS = Access(daemon_uid=0, socket_gid=SOCKET, admin_gid=ADMINS, observer_gid=OBSERVERS)
ANNS = ROOTS._replace(daemon_uid=1000)


@pytest.mark.parametrize(
    ("uid", "groups", "at_roots", "at_anns"),
    [
        (0, {0}, Role.ADMIN, Role.ADMIN),
        (1000, {ELSE}, Role.STRANGER, Role.ADMIN),
        (1001, {ELSE, ADMINS}, Role.ADMIN, Role.ADMIN),
        (1001, {ADMINS, SOCKET, OBSERVERS}, Role.ADMIN, Role.ADMIN),
        (1001, {SOCKET}, Role.USER, Role.USER),
        (1001, {SOCKET, OBSERVERS}, Role.USER, Role.USER),
        (1001, {OBSERVERS}, Role.OBSERVER, Role.OBSERVER),
        (1001, {ELSE}, Role.STRANGER, Role.USER),
        (1001, set(), Role.STRANGER, Role.USER),
    ],
)
def test_the_role_follows_from_the_user_and_the_groups(uid, groups, at_roots, at_anns):
    assert role_of(uid, groups, ROOTS) is at_roots
    assert role_of(uid, groups, ANNS) is at_anns


def test_where_no_groups_are_named_nobody_is_in_them():
    assert role_of(1001, {0, 101, 102}, Access(daemon_uid=0)) is Role.STRANGER


def test_a_stranger_is_told_which_group_to_join():
    assert "'root'" not in how_to_join(ROOTS._replace(socket_gid=0))
    assert "socket_group" in how_to_join(ROOTS._replace(socket_gid=0))
    assert f"usermod -aG {group_name(SOCKET)}" in how_to_join(ROOTS)
    assert "log in again" in how_to_join(ROOTS)


def test_the_kernel_tells_user_groups_and_process():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = unix_peer(ours, Access(daemon_uid=os.getuid()))

        assert peer == Peer(os.getuid(), user_name(os.getuid()), Role.ADMIN, f"pid {os.getpid()}")
        assert peer_groups(ours) == frozenset(os.getgroups())


CONNECTS = """
import os, socket, sys
os.setgroups(range(2000, 2000 + int(sys.argv[2])))
os.setgid(4321)
os.setuid(12345)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    sock.recv(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("count", [0, 1, 64, 65, 1000])
def test_however_many_groups_somebody_has_all_are_known(tmp_path, count):
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101  (as the rest)
        listening.listen()
        with subprocess.Popen([sys.executable, "-c", CONNECTS, path, str(count)]) as process:
            connection, _ = listening.accept()
            with connection:
                groups = peer_groups(connection)
                peer = unix_peer(connection, ROOTS._replace(observer_gid=2000 + count - 1, socket_gid=4321))

    assert groups == frozenset(range(2000, 2000 + count))
    # The group of the process itself counts as well.
    assert peer == Peer(12345, "12345", Role.USER, f"pid {process.pid}")


@pytest.mark.parametrize(
    ("name", "back", "called"), [("ann", 4_000, "ann"), ("ann", 4_001, "4000"), ("17", 4_000, "4000")]
)
def test_a_name_that_could_mean_another_user_is_not_used(monkeypatch, name, back, called):
    monkeypatch.setattr(owner.pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_name=name))
    monkeypatch.setattr(owner.pwd, "getpwnam", lambda _name: SimpleNamespace(pw_uid=back))
    owner._name_of.cache_clear()

    try:
        assert user_name(4_000) == called
    finally:
        owner._name_of.cache_clear()


def test_a_number_that_was_given_to_somebody_else_has_the_new_name(monkeypatch, tmp_path):
    users = tmp_path / "passwd"
    monkeypatch.setattr(owner, "_USERS", str(users))
    monkeypatch.setattr(owner.pwd, "getpwuid", lambda _uid: SimpleNamespace(pw_name=users.read_text()))
    monkeypatch.setattr(owner.pwd, "getpwnam", lambda _name: SimpleNamespace(pw_uid=4_001))
    users.write_text("ann")
    assert user_name(4_001) == "ann"

    # As useradd and all others do it.
    (tmp_path / "new").write_text("bob")
    (tmp_path / "new").rename(users)

    assert user_name(4_001) == "bob"
    owner._name_of.cache_clear()


def test_a_user_without_a_name_is_called_by_its_number():
    assert user_name(4_000_000_001) == "4000000001"
