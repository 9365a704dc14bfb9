"""What `queuectld --check` looks at besides the configuration: whether this program could start where it would."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import queuectld
from queuectld.host.state_dir import DATABASE, check_writable
from queuectld.keys import Config
from queuectld.log_sink import check_log
from queuectld.server.door import check_files
from queuectld.store.database import Database
from queuectld.store.migrate import check_not_newer
from queuectld.store.survey import survey

# Seconds for a look into the database; whoever replaces a running daemon waits for it.
_PATIENCE: Final = 5.0


def check_all(keys: Config, state: Path) -> Sequence[str]:
    """Look at everything that can be seen without starting; return what people should know all the same.

    Raises `QueueCTLError`, or whatever an import raises.
    """
    check_named(keys)
    if keys.log_file is not None:
        check_log(keys.log_file)
    # A worker imports what the daemon does not, and an installation can be half there.
    for module in pkgutil.walk_packages(queuectld.__path__, "queuectld."):
        importlib.import_module(module.name)
    if state.is_dir():
        check_writable(state)
    database = state / DATABASE
    if not database.exists() or check_database(database):
        return ()
    note = (
        f"The database {database} is so large that not all of it was looked at in {_PATIENCE:g} s, and what was is "
        "in order; `queuectld db check` looks at everything."
    )
    return (note,)


def check_named(keys: Config) -> None:
    """Look at what the configuration names. Raises `BadConfigError`."""
    check_files(keys, os.geteuid())


def check_next_log(now: Config, later: Config) -> None:
    """Look at a log file which only the next start opens, and which would keep it from starting.

    That of this one may be out of reach for the moment, on a full disk say. Raises `BadConfigError`.
    """
    if later.log_file is not None and later.log_file != now.log_file:
        check_log(later.log_file)


def check_database(path: Path) -> bool:
    """Make sure that this program can read the database, or migrate it; return whether all of it was looked at.

    A daemon may have it open, in another process. Raises `StoreTooNewError`, `StoreDamagedError`, `StoreError`.
    """
    database = Database(path, readonly=True)
    try:
        check_not_newer(database)
        return survey(database, seconds=_PATIENCE)
    finally:
        database.close()
