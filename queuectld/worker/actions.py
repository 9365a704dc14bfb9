"""What the worker's end of the channel wants done.

Structs, since they cost a worker less memory and start-up time than named tuples do.
"""

from __future__ import annotations

import msgspec

from queuectld.protocol.worker_messages import FromWorker, Outcome, Reason, RunSpec


class Connect(msgspec.Struct, frozen=True):
    """Try to connect; answer with `connected` or `lost`."""


class Disconnect(msgspec.Struct, frozen=True):
    """Close the connection; needs no answer."""


class Send(msgspec.Struct, frozen=True):
    """Send a message."""

    message: FromWorker


class Spawn(msgspec.Struct, frozen=True):
    """Start a command; answer with `started`, and when it is over with `ended`, or with `ended` alone."""

    token: int
    spec: RunSpec


class Decline(msgspec.Struct, frozen=True):
    """Do not start that command; answer with `ended` and an outcome that says so."""

    token: int


class EndTree(msgspec.Struct, frozen=True):
    """End the command's tree: TERM after `grace`, KILL `kill_after` (None: its own) later."""

    reason: Reason
    grace: float
    kill_after: float | None


class PassSignal(msgspec.Struct, frozen=True):
    """Send a signal to the command's group."""

    number: int


class Save(msgspec.Struct, frozen=True):
    """Store the outcome durably as a file; answer with `saved`."""

    token: int
    outcome: Outcome


class Quit(msgspec.Struct, frozen=True):
    """End the worker."""


Action = Connect | Disconnect | Send | Spawn | Decline | EndTree | PassSignal | Save | Quit
