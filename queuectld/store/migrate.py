"""Bringing a database to the form that this version reads. Never the other way."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

from queuectld.errors import StoreError, StoreTooNewError
from queuectld.store.damage import OURS, foreign
from queuectld.store.database import Database

# Files 0001.sql, 0002.sql, …; the n-th brings version n - 1 to version n.
MIGRATIONS: Final = Path(__file__).parent / "migrations"
_NEW_STORE: Final = (
    "INSERT INTO store (one, uuid, last_seq, last_token, last_entry, removed_entry) VALUES (1, ?, 0, 0, 0, 0)"
)


def migrate(database: Database, directory: Path = MIGRATIONS, *, keep_copy: bool = True) -> None:
    """Make the tables, or bring older ones up to date after saving a copy beside the file, unless there is one.

    Raises `StoreTooNewError`; `StoreDamagedError` if this is a database, but not one of ours.
    """
    scripts = sorted(directory.glob("[0-9]*.sql"))
    version = _known_version(database, len(scripts))
    if version == len(scripts):
        return
    if version > 0 and keep_copy:
        database.backup_to(_free_name(database.path, version))
    database.run("BEGIN IMMEDIATE")
    for script in scripts[version:]:
        database.run(script.read_text(encoding="utf-8"))
    if version == 0:
        database.run(_NEW_STORE, (uuid.uuid4().hex,))
    database.run(f"PRAGMA user_version = {len(scripts)}")
    database.run("COMMIT")


def newest_version() -> int:
    """Return the version of the tables that this program makes and reads."""
    return len(list(MIGRATIONS.glob("[0-9]*.sql")))


def check_version(database: Database, newest: int) -> None:
    """Make sure that who reads the tables of version `newest` can read these.

    Raises `StoreTooNewError`, `StoreDamagedError`, `StoreError`.
    """
    if _known_version(database, newest) < newest:
        raise StoreError(
            f"the database {database.path} has to be migrated first, which `queuectld` does when it starts"
        )


def check_not_newer(database: Database) -> None:
    """Make sure that `migrate` knows what to do with the tables. Raises `StoreTooNewError`, `StoreDamagedError`."""
    _known_version(database, newest_version())


def _known_version(database: Database, newest: int) -> int:
    version = version_of(database)
    if version > newest:
        raise StoreTooNewError(
            f"the database {database.path} has format {version}, this version of QueueCTL reads up to {newest}; "
            "install the newer QueueCTL again, or restore an older copy"
        )
    return version


def version_of(database: Database) -> int:
    """Return the version of the tables; 0 if there are none yet. Raises `StoreDamagedError`."""
    rows = database.run("PRAGMA user_version")
    version: int = rows[0][0]
    strange = database.run("PRAGMA application_id") != [(OURS,)]
    if strange and (version > 0 or database.run("SELECT 1 FROM sqlite_schema LIMIT 1")):
        foreign(database.path)
    return version


def _free_name(path: Path, version: int) -> Path:
    stem = path.with_name(f"{path.name}.format{version}")
    number = 1
    while (name := stem if number == 1 else stem.with_name(f"{stem.name}.{number}")).exists():
        number += 1
    return name
