"""Whose rights a job runs with, and the environment and place that it begins with."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Final, NamedTuple

from queuectld.protocol.worker_messages import Identity

# What an account's own environment takes over from the daemon's.
_KEPT: Final = ("LANG", "LANGUAGE", "TZ", "PATH")
_USUAL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Larger numbers are no users.
_LAST_USER: Final = 2**32 - 2
# The group of those whose own is not known: nothing is for its members. Their number could be that of any group.
_NOBODYS_GROUP: Final = 65534


class NoSuchAccountError(LookupError):
    """There is no such user, at least not now; the message says so."""


class NoAnswerError(Exception):
    """Whether there is such a user is not known for the moment; the message says so."""


class Account(NamedTuple):
    """A user of this host, as jobs need it."""

    name: str
    # Where jobs begin that name no directory. It need not be there.
    home: str
    environment: Mapping[str, str]
    # None: what the daemon is itself, since it cannot be anybody else.
    identity: Identity | None = None


def own_account(uid: int, environ: Mapping[str, str]) -> Account:
    """Return the account of a daemon that is not root, by which all of its jobs run."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        entry = _nameless(uid)
    return _account(entry, environ)


def account_of(owner: str, environ: Mapping[str, str]) -> Account:
    """Look up whose job it is, for a daemon that is root; `owner` is a name, or the number of a user that has none.

    The groups are all that the user is in now. May take as long as the directory service of the host takes. Raises
    `NoSuchAccountError`.
    """
    entry = _entry(owner)
    # Its path leads to what is meant for root.
    inherited = environ if entry.pw_uid == 0 else {name: environ[name] for name in environ if name != "PATH"}
    identity = Identity(entry.pw_uid, entry.pw_gid, _groups(entry))
    return _account(entry, inherited)._replace(identity=identity)


def _entry(owner: str) -> pwd.struct_passwd:
    try:
        entry = pwd.getpwnam(owner)
    except (KeyError, ValueError):
        entry = None
    if not _is_number(owner):
        if entry is None:
            raise NoSuchAccountError(f"there is no user {owner} on this host (any more), so it cannot run")
        return entry
    if entry is not None and entry.pw_uid != int(owner):
        raise NoSuchAccountError(f"it cannot run: {owner} is the name of one user and the number of another")
    try:
        return pwd.getpwuid(int(owner))
    except KeyError:
        return _nameless(int(owner))


def _groups(entry: pwd.struct_passwd) -> tuple[int, ...]:
    # Groups go by names. One that two directories give to two users says nothing of the one that came by its number.
    try:
        its_own = pwd.getpwnam(entry.pw_name).pw_uid == entry.pw_uid
    except KeyError:
        its_own = False
    return tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)) if its_own else (entry.pw_gid,)


def _is_number(owner: str) -> bool:
    # Only in the form in which we write them.
    return owner.isascii() and owner.isdigit() and str(int(owner)) == owner and int(owner) <= _LAST_USER


def _nameless(uid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((str(uid), "x", uid, _NOBODYS_GROUP, "", "/", "/bin/sh"))


def _account(entry: pwd.struct_passwd, environ: Mapping[str, str]) -> Account:
    kept = {key: environ[key] for key in environ if key in _KEPT or key.startswith("LC_")}
    own = {
        "PATH": _USUAL_PATH,
        "HOME": entry.pw_dir,
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell or "/bin/sh",
    }
    return Account(entry.pw_name, entry.pw_dir or "/", own | kept)
