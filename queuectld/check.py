"""What `queuectld --check` looks at besides the configuration: whether this program could start where it would."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Final

import queuectld
from queuectld.host.state_dir import DATABASE
from queuectld.keys import Config
from queuectld.server.listen import read_token
from queuectld.store.damage import damaged
from queuectld.store.database import Database
from queuectld.store.migrate import check_not_newer

# Bytes of a database that are read in a fraction of a second; whoever replaces a running daemon waits for it.
_READ_WHOLE: Final = 32 * 1024 * 1024


def check_all(keys: Config, state: Path) -> None:
    """Look at everything that can be seen without starting. Raises `QueueCTLError`, or whatever an import raises."""
    check_named(keys)
    # A worker imports what the daemon does not, and an installation can be half there.
    for module in pkgutil.walk_packages(queuectld.__path__, "queuectld."):
        importlib.import_module(module.name)
    database = state / DATABASE
    if database.exists():
        check_database(database)


def check_named(keys: Config) -> None:
    """Look at what the configuration names. Raises `BadConfigError`."""
    if keys.tcp is not None and keys.token_file is not None:
        read_token(keys.token_file)


def check_database(path: Path) -> None:
    """Make sure that this program can read the database, or migrate it. A daemon may have it open, in another process.

    A large one is looked into here and there only. Raises `StoreTooNewError`, `StoreDamagedError`, `StoreError`.
    """
    database = Database(path, readonly=True)
    try:
        check_not_newer(database)
        if path.stat().st_size <= _READ_WHOLE:
            _read_whole(database)
        else:
            _read_beginnings(database)
    finally:
        database.close()


def _read_whole(database: Database) -> None:
    told = database.run("PRAGMA quick_check(1)")
    if told != [("ok",)]:
        raise damaged(database.path, f"is damaged ({' '.join(str(told[0][0]).split())})")


def _read_beginnings(database: Database) -> None:
    for (name,) in database.run("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        database.run(f'SELECT 1 FROM "{name}" LIMIT 1')  # noqa: S608  (a name from the schema)
