"""Whose rights a command runs with: given up for good, before anything of the command is touched."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Final

from queuectld.protocol.worker_messages import Identity
from queuectld.worker import signals

_PR_SET_DUMPABLE: Final = 4
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
# The number of keyctl(2), which the C library has no name for.
_KEYCTL: Final = {"x86_64": 250, "ppc64le": 271, "s390x": 280, "armv7l": 311}.get(os.uname().machine, 219)
# Version 3 of the structures: two words of 32 bits for each of the three sets.
_CAPABILITY_VERSION: Final = 0x20080522
_WORDS: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


def own() -> Identity | None:
    """Return who we are; None if we are several at once, as a program that changes its user is."""
    uids, gids = os.getresuid(), os.getresgid()
    if len({*uids}) != 1 or len({*gids}) != 1:
        return None
    return Identity(uids[0], gids[0], tuple(os.getgroups()))


def same(one: Identity, other: Identity) -> bool:
    """Whether both have the same rights; a group that is named twice gives no more of them."""
    mine, theirs = {one.gid, *one.groups}, {other.gid, *other.groups}
    return (one.uid, one.gid, mine) == (other.uid, other.gid, theirs)


def assume(identity: Identity) -> None:
    """Become that user for good: real, effective and saved, and no group of ours is left. Raises `OSError`.

    Where we were root and this user is not, the kernel takes the capabilities. What we have in memory stays ours: the
    user may send us signals from now on, but gets no picture of us, not even from a collector of crashes.
    """
    signals.block()
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        # The kernel has set that to what the host says for such programs; the next one executed begins anew.
        _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    finally:
        signals.unblock()
    # The number that means "as it is" must never be taken for a success.
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise PermissionError(1, "the kernel left it as it was")


def leave_keyring() -> None:
    """Get a session keyring of our own, empty; to be called as root, at whose expense it is then.

    All that the daemon starts would share its own else, and each could read what another has put there. A kernel that
    has no keyrings refuses, and so does a container that may not use them; then nobody's keys are in one.
    """
    _libc.syscall(ctypes.c_long(_KEYCTL), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), None)


def pass_on_no_capability() -> None:
    """Empty the sets by which root's capabilities could reach a program of another user. Others keep theirs.

    A container or a unit may have filled them. What a program may be given by its file stays, so that sudo works.
    """
    if os.geteuid() != 0:
        return
    # A kernel without the ambient set refuses, and passes nothing on by it.
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Of each word: effective, permitted, inheritable.
    sets = (ctypes.c_uint32 * (3 * _WORDS))()
    if _libc.capget(header, sets) == 0:
        for word in range(_WORDS):
            sets[3 * word + 2] = 0
        _libc.capset(header, sets)


def give(descriptor: int, uid: int) -> None:
    """Let a user open by its name in /proc what it was given open: ``/dev/stderr`` is a pipe that we made."""
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, uid, -1)
