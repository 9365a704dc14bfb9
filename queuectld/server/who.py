"""Who is at the other end, as the kernel or a token says, and in which role."""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import socket
import struct
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any, Final, NamedTuple

from queuectld.service.owner import user_name

# pid, uid, gid
_CREDENTIALS: Final = struct.Struct("iII")
# Of socket(7), which Python has no name for: the groups that the other end had when it connected.
_SO_PEERGROUPS: Final = 59
_FEW_GROUPS: Final = 64
_GROUP: Final = ctypes.sizeof(ctypes.c_uint32)
# By ctypes, since Python's own getsockopt returns no more than 1,024 bytes.
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Role(Enum):
    """What a client may do, from most to least."""

    ADMIN = "admin"
    USER = "user"
    OBSERVER = "observer"
    # Could connect, and that is all.
    STRANGER = "stranger"


class Peer(NamedTuple):
    """A client, and where it speaks from; `uid` is None over TCP until a token has named its user."""

    uid: int | None
    user: str
    role: Role
    origin: str


STRANGER: Final = Peer(None, "", Role.STRANGER, "")


class Access(NamedTuple):
    """Who is what to a daemon that runs as `daemon_uid`: the numbers of groups, where there are such."""

    daemon_uid: int
    # Of the socket that clients connect to.
    socket_gid: int | None = None
    admin_gid: int | None = None
    observer_gid: int | None = None


def unix_peer(connection: Any, access: Access) -> Peer:
    """Return who connected to a Unix socket, as the kernel says. `connection` is a socket, or asyncio's view of one."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    role = role_of(uid, peer_groups(connection) | {gid}, access)
    return Peer(uid, user_name(uid), role, f"pid {pid}")


def peer_groups(connection: Any) -> frozenset[int]:
    """Return the other groups that the other end of a Unix socket had when it connected: no database is asked."""
    room = _FEW_GROUPS
    while True:
        groups, size = (ctypes.c_uint32 * room)(), ctypes.c_uint(room * _GROUP)
        failed = _libc.getsockopt(connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, groups, ctypes.byref(size))
        if not failed:
            return frozenset(groups[: size.value // _GROUP])
        number = ctypes.get_errno()
        if number != errno.ERANGE:
            raise OSError(number, os.strerror(number))
        # There are more; the kernel has said how many bytes they take.
        room = size.value // _GROUP


def role_of(uid: int, groups: AbstractSet[int], access: Access) -> Role:
    """Return what somebody is whom the mode and group of the socket let in.

    Root, the daemon's user and the group of administrators may do everything. Who is in the group of observers and in
    that of the socket is a user. Others are strangers to root's daemon, however open its socket is; to the daemon of a
    user they are users, since there is nobody else who would let them in.
    """
    if uid in {0, access.daemon_uid} or access.admin_gid in groups:
        return Role.ADMIN
    if access.socket_gid in groups:
        return Role.USER
    if access.observer_gid in groups:
        return Role.OBSERVER
    return Role.USER if access.daemon_uid != 0 else Role.STRANGER


def how_to_join(access: Access) -> str:
    """Return what is said to strangers: who may use this queue, and how to become one of them."""
    if not access.socket_gid:
        return "you may not use this queue: it is for root alone, unless root sets `socket_group`"
    group = group_name(access.socket_gid)
    return (
        f"you may not use this queue: it is for members of the group '{group}'; have root add you "
        f"(usermod -aG {group} YOU), then log in again"
    )


def gid_of(name: str | None) -> int | None:
    """Return the number of a group, if there is such a group; the configuration was checked before."""
    try:
        return None if name is None else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def group_name(gid: int) -> str:
    """Return the name of a group, or its number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
