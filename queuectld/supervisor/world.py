"""What the supervisor is given of the world around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from queuectld.supervisor.accounts import Accounts
from queuectld.supervisor.machine import Files, Machine


class World(NamedTuple):
    """The same for all parts of the supervisor, for as long as it lives."""

    machine: Machine
    files: Files
    # The uuid of the store, by which attempts and their processes are marked.
    store: str
    # The directory of the output of attempts.
    output: str
    # Whose rights commands run with.
    accounts: Accounts
    # Wall clock, seconds since the epoch.
    clock: Callable[[], float]
    # Counts what happens to workers, see `queuectld.figures.counts.WORKER_EVENTS`.
    note: Callable[[str], None] = lambda _: None
