"""What the supervisor is given of the world around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from queuectld.host.file_limit import FileLimit
from queuectld.host.state_dir import StateDir
from queuectld.service.run_spec import Account


class World(NamedTuple):
    """The same for all parts of the supervisor, for as long as it lives."""

    state: StateDir
    # The uuid of the store, by which attempts and their processes are marked.
    store: str
    # Whose rights commands run with.
    account: Account
    # What workers are started with.
    environ: Mapping[str, str]
    files: FileLimit
    # Wall clock, seconds since the epoch.
    clock: Callable[[], float]
