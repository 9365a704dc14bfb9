"""Who may do what: one table, by which requests are admitted and from which the documentation is made.

``python -m queuectld.server.rights`` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import groupby
from typing import Any, Final

from queuectld.errors import ForbiddenError, UnauthenticatedError
from queuectld.protocol.frames import Request
from queuectld.protocol.messages import REQUESTS
from queuectld.server.who import Peer, Role
from queuectld.service.sight import Others, Sight


class Right(Enum):
    """How far somebody in a role may go with an operation."""

    ALL = "yes"
    # With his own jobs; those of others are refused.
    OWN = "own jobs"
    # His own whole, and of those of others what a listing tells.
    LISTED = "own jobs, and the listing of others'"
    # Nobody's whole.
    LISTING = "the listing"
    # What says nothing of jobs, nor of the host.
    OUTLINE = "the outline"
    NO = "no"


_ALL, _OWN, _LISTED, _LISTING, _NO = Right.ALL, Right.OWN, Right.LISTED, Right.LISTING, Right.NO

# In the order of `Role`.
_ROWS: Final[Mapping[str, tuple[Right, Right, Right, Right]]] = {
    "hello": (_ALL, _ALL, _ALL, _ALL),
    "ping": (_ALL, _ALL, _ALL, _ALL),
    "status": (_ALL, _LISTED, _LISTING, Right.OUTLINE),
    "list": (_ALL, _LISTED, _LISTING, _NO),
    "count": (_ALL, _LISTED, _LISTING, _NO),
    "events": (_ALL, _LISTED, _LISTING, _NO),
    "worker_list": (_ALL, _LISTED, _LISTING, _NO),
    "stop": (_ALL, _ALL, _ALL, _NO),
    "config_list": (_ALL, _ALL, _ALL, _NO),
    "enqueue": (_ALL, _OWN, _NO, _NO),
    "stage": (_ALL, _OWN, _NO, _NO),
    "get": (_ALL, _OWN, _NO, _NO),
    "logs": (_ALL, _OWN, _NO, _NO),
    "wait": (_ALL, _OWN, _NO, _NO),
    "signal": (_ALL, _OWN, _NO, _NO),
    "cancel": (_ALL, _OWN, _NO, _NO),
    "retry": (_ALL, _OWN, _NO, _NO),
    "discard": (_ALL, _OWN, _NO, _NO),
    "undelete": (_ALL, _OWN, _NO, _NO),
    "worker_start": (_ALL, _NO, _NO, _NO),
    "worker_stop": (_ALL, _NO, _NO, _NO),
    "config_set": (_ALL, _NO, _NO, _NO),
    "config_unset": (_ALL, _NO, _NO, _NO),
    "reload": (_ALL, _NO, _NO, _NO),
    "shutdown": (_ALL, _NO, _NO, _NO),
    "reexec": (_ALL, _NO, _NO, _NO),
}

RIGHTS: Final[Mapping[str, Mapping[Role, Right]]] = {
    op: dict(zip(Role, rights, strict=True)) for op, rights in _ROWS.items()
}
_OTHERS: Final[Mapping[Right, Others]] = {
    Right.ALL: Others.WHOLE,
    Right.OWN: Others.REFUSED,
    Right.LISTED: Others.LISTED,
    Right.LISTING: Others.LISTED,
    Right.OUTLINE: Others.REFUSED,
}
_HAS_JOBS: Final = frozenset({Right.OWN, Right.LISTED})
# By the words of roles and the classes of requests, for each of many requests a second: whether own jobs are told from
# those of others, and what there is of these.
_ADMITTED: Final = {
    (role.value, form): (rights[role] in _HAS_JOBS, _OTHERS[rights[role]])
    for op, form in REQUESTS.items()
    for role, rights in ((role, RIGHTS[op]) for role in Role)
    if rights[role] is not Right.NO
}


def sight_of(peer: Peer, request: Request[Any], advice: str) -> Sight:
    """Return what a request of this peer may see. Raises `ForbiddenError` or `UnauthenticatedError`.

    `advice` tells a stranger how to be none.
    """
    if peer.uid is None:
        raise UnauthenticatedError
    admitted = _ADMITTED.get((peer.role.value, type(request)))
    if admitted is None:
        raise ForbiddenError(_refusal(peer.role, request, advice))
    own, others = admitted
    return Sight(peer.user if own else None, others)


def _refusal(role: Role, request: Request[Any], advice: str) -> str:
    op = request.__struct_config__.tag
    match role:
        case Role.STRANGER:
            return advice
        case Role.OBSERVER:
            return f"observers may look at listings and figures; `{op}` is not for them"
        case _:
            return f"`{op}` is for administrators: root, the user of the daemon, and the members of `admin_group`"


def table() -> str:
    """Return the table in Markdown; operations with the same rights share a line."""
    lines = ["| | " + " | ".join(role.value for role in Role) + " |", "|---" * (len(Role) + 1) + "|"]
    for rights, ops in groupby(_ROWS, key=lambda op: _ROWS[op]):
        lines.append(f"| {_names(ops)} | " + " | ".join(right.value for right in rights) + " |")
    return "\n".join(lines) + "\n"


def _names(ops: Iterable[str]) -> str:
    return ", ".join(f"`{op}`" for op in ops)


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201  (its purpose)
