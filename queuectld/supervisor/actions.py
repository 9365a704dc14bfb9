"""What the daemon's end of a worker's channel wants done."""

from __future__ import annotations

from typing import NamedTuple

from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol.worker_messages import ToWorker


class Send(NamedTuple):
    """Say this to the worker."""

    message: ToWorker


class Settle(NamedTuple):
    """Record the outcome of its attempt; answer by `Link.settled`."""

    token: int
    outcome: Outcome


class Unfile(NamedTuple):
    """The outcome of this attempt is on record, and may lie in a file too: remove that."""

    token: int


class GiveBack(NamedTuple):
    """Its command was never started: requeue the attempt; answer by `Link.given_back`."""

    token: int
    reason: Reason
    why: str


class Available(NamedTuple):
    """It can be given work."""


class Await(NamedTuple):
    """Expect it to connect within the time for adoption, or kill it."""


class Rescue(NamedTuple):
    """It is dead: look for its outcome, end what it left running, record; answer by `Link.settled`."""

    token: int


class Remove(NamedTuple):
    """It is dead and nothing is left of it."""


class Refuse(NamedTuple):
    """It cannot be spoken with; close the connection and wait for its outcome file."""


Action = Send | Settle | Unfile | GiveBack | Available | Await | Rescue | Remove | Refuse
