"""Who is at the other end, and what that person may do."""

from __future__ import annotations

import functools
import hmac
import pwd
import socket
import struct
from enum import Enum
from typing import Any, Final, NamedTuple

from queuectld.errors import ForbiddenError, UnauthenticatedError
from queuectld.protocol.frames import Request
from queuectld.protocol.messages import GetStatus, Hello, Ping

_CREDENTIALS: Final = struct.Struct("3i")
# What a person without rights of its own may ask of a daemon that runs as root, whose jobs would run as root.
# No listings either: they show commands, and commands have secrets in their arguments.
_HARMLESS: Final = (Hello, Ping, GetStatus)


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


@functools.lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a user, or its number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def unix_peer(connection: Any, daemon_uid: int) -> Peer:
    """Return who connected to a Unix socket, as the kernel says. `connection` is a socket, or asyncio's view of one."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return Peer(uid, user_name(uid), role_of(uid, daemon_uid), f"pid {pid}")


def role_of(uid: int, daemon_uid: int) -> Role:
    """Return what somebody may do whom the mode and group of the socket let in.

    Root and the daemon's user may do everything. So may others on the daemon of a user: whoever may connect was given
    that. On root's daemon they would have their commands run by root.
    """
    return Role.ADMIN if uid in {0, daemon_uid} or daemon_uid != 0 else Role.STRANGER


def token_peer(given: str | None, expected: str, daemon_uid: int, origin: str) -> Peer:
    """Return whom a token names: the daemon's user. Raises `UnauthenticatedError`; takes the same time for any."""
    if given is None or not hmac.compare_digest(given.encode(errors="replace"), expected.encode()):
        raise UnauthenticatedError("the token is not valid", path="$.token")
    return Peer(daemon_uid, user_name(daemon_uid), Role.ADMIN, origin)


def check_right(peer: Peer, request: Request[Any]) -> None:
    """Refuse what this peer may not do. Raises `ForbiddenError` or `UnauthenticatedError`."""
    if peer.uid is None:
        raise UnauthenticatedError
    if peer.role is not Role.ADMIN and not isinstance(request, _HARMLESS):
        raise ForbiddenError("only root may do that here: this daemon runs jobs as root")
