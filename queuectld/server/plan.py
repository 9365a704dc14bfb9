"""What a request needs: handlers decide that, the conversation carries it out and keeps the order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from queuectld.errors import QueueCTLError
from queuectld.protocol.frames import RequestId
from queuectld.server.outlet import Outlet
from queuectld.store.base import Reader, Store


class Now(NamedTuple):
    """The reply is known."""

    reply: msgspec.Struct


class Refuse(NamedTuple):
    """The request is refused; `close` ends the connection behind the answer."""

    error: QueueCTLError
    close: bool = False


class Write(NamedTuple):
    """One transaction. Those of a connection are under way together, and commit in their order.

    `weight` is how much there is to do for it, in jobs.
    """

    work: Callable[[Store], msgspec.Struct]
    weight: int = 1
    # New jobs may be refused on a full disk, so that results can still be stored.
    sheds: bool = False


class Read(NamedTuple):
    """One look at the store, behind the connection's own changes; one at a time."""

    work: Callable[[Reader], msgspec.Struct]


class Reads(NamedTuple):
    """Likewise, but many looks one after the other, so that others are served in between."""

    run: Callable[[], Awaitable[msgspec.Struct]]


class Change(NamedTuple):
    """Several steps. Later changes and reads of the connection wait until it calls `settled`, or returns.

    Not ended by the loss of its connection: what one step has stored, the next carries out.
    """

    run: Callable[[Callable[[], None]], Awaitable[msgspec.Struct]]
    # It may take as long as a command does: it is answered when it is done, and no other answer waits for it.
    long: bool = False


class Stream(NamedTuple):
    """Events, then the reply; behind the connection's own changes, beside everything else."""

    run: Callable[[Outlet], Awaitable[msgspec.Struct]]


class Stop(NamedTuple):
    """End a stream, which answers first."""

    stream: RequestId


Plan = Now | Refuse | Write | Read | Reads | Change | Stream | Stop
