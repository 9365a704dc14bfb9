from __future__ import annotations

import grp
import os
import pwd

import pytest

from queuectld.protocol.worker_messages import Identity
from queuectld.service.account import NoSuchAccountError, account_of, own_account

ANN = pwd.struct_passwd(("ann", "x", 1000, 100, "", "/home/ann", "/bin/bash"))
ENVIRON = {"PATH": "/root/bin:/bin", "LANG": "C.UTF-8", "LC_TIME": "de_DE.UTF-8", "SECRET": "1"}


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> list[pwd.struct_passwd]:
    """Those that there are; each has its own group and `audio`, which is 29."""
    there = [pwd.struct_passwd(("root", "x", 0, 0, "", "/root", "/bin/bash")), ANN]

    def by_name(name: str) -> pwd.struct_passwd:
        return {entry.pw_name: entry for entry in there}[name]

    def by_number(uid: int) -> pwd.struct_passwd:
        return {entry.pw_uid: entry for entry in there}[uid]

    def groups(name: str, gid: int) -> list[int]:
        return [gid, 29] if name in {entry.pw_name for entry in there} else [gid]

    monkeypatch.setattr(pwd, "getpwnam", by_name)
    monkeypatch.setattr(pwd, "getpwuid", by_number)
    monkeypatch.setattr(os, "getgrouplist", groups)
    return there


def test_a_job_runs_as_its_owner_with_all_groups(users: list[pwd.struct_passwd]) -> None:
    told = account_of("ann", ENVIRON)

    assert told.identity == Identity(1000, 100, (100, 29))
    assert (told.name, told.home) == ("ann", "/home/ann")


def test_its_environment_is_that_of_the_account_and_nothing_of_the_daemons_but_the_language(
    users: list[pwd.struct_passwd],
) -> None:
    told = account_of("ann", ENVIRON).environment

    assert told == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/home/ann",
        "USER": "ann",
        "LOGNAME": "ann",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "LC_TIME": "de_DE.UTF-8",
    }


def test_root_and_the_jobs_of_a_users_own_daemon_have_the_path_of_the_daemon(users: list[pwd.struct_passwd]) -> None:
    assert account_of("root", ENVIRON).environment["PATH"] == "/root/bin:/bin"
    assert own_account(1000, ENVIRON).environment["PATH"] == "/root/bin:/bin"
    assert "SECRET" not in own_account(1000, ENVIRON).environment


def test_a_daemon_that_is_not_root_leaves_its_jobs_what_it_is_itself(users: list[pwd.struct_passwd]) -> None:
    assert own_account(1000, ENVIRON).identity is None


def test_a_user_that_has_no_name_runs_by_its_number_in_a_group_that_nothing_is_for(
    users: list[pwd.struct_passwd],
) -> None:
    told = account_of("4242", {})

    assert (told.name, told.home, told.identity) == ("4242", "/", Identity(4242, 65534, (65534,)))
    assert (own_account(4242, {}).name, own_account(4242, {}).home) == ("4242", "/")


def test_a_number_whose_user_has_got_a_name_is_that_user(users: list[pwd.struct_passwd]) -> None:
    assert account_of("1000", {}) == account_of("ann", {})


@pytest.mark.parametrize("owner", ["bob", "", "-1", "4294967295", "99999999999", "01000", "1_000", "²", "a\0b", "0x0"])
def test_who_is_no_user_of_this_host_is_nobody_and_never_root(users: list[pwd.struct_passwd], owner: str) -> None:
    with pytest.raises(NoSuchAccountError):
        account_of(owner, {})


def test_a_name_that_is_the_number_of_somebody_else_is_nobodys(users: list[pwd.struct_passwd]) -> None:
    users.append(pwd.struct_passwd(("1000", "x", 7, 7, "", "/", "/bin/sh")))

    with pytest.raises(NoSuchAccountError, match="the name of one user and the number of another"):
        account_of("1000", {})


def test_a_number_whose_name_means_somebody_else_has_none_of_the_groups_of_that_name(
    users: list[pwd.struct_passwd],
) -> None:
    users.insert(0, pwd.struct_passwd(("root", "x", 5000, 5000, "", "/home/root", "/bin/sh")))

    assert account_of("5000", {}).identity == Identity(5000, 5000, (5000,))


def test_the_users_of_this_host_have_the_groups_that_it_says() -> None:
    me = pwd.getpwuid(os.geteuid())
    identity = account_of(me.pw_name, {}).identity

    assert identity is not None
    assert (identity.uid, identity.gid) == (me.pw_uid, me.pw_gid)
    assert set(identity.groups) == {
        me.pw_gid,
        *(group.gr_gid for group in grp.getgrall() if me.pw_name in group.gr_mem),
    }
