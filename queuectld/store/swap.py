"""Putting another database in the place of one, so that at any moment either the old one or the new one is in force.

A complete database under the name ``queue.db.restored`` is the decision; what follows is done again as often as it is
cut short, by whoever opens the store next.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from queuectld.durable import replace_file, sync_directory
from queuectld.store.database import of_system

_LOG: Final = "-wal"
# What file systems say that have no hard links.
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def decided(path: Path) -> Path:
    """Return the name by which a database, once it is there, replaces the one at `path`."""
    return path.with_name(f"{path.name}.restored")


def finish_swap(path: Path) -> Path | None:
    """Carry out what was decided; return where the replaced database is, if there was one. Raises `StoreError`.

    Only while nobody has the database open.
    """
    new = decided(path)
    try:
        if not new.exists():
            return None
        kept = _keep(path)
        for suffix in (_LOG, "-shm", "-journal"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
        # A log that is not gone for good could come back beside a database that it does not belong to.
        sync_directory(path.parent)
        new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise of_system(path, error) from error
    return kept


def _keep(path: Path) -> Path | None:
    """Give the old database, and its log, a second name, unless they have one."""
    if not path.exists():
        return None
    number = 1
    while (kept := path.with_name(f"{path.name}.replaced.{number}")).exists() and not kept.samefile(path):
        number += 1
    for old, name in ((path, kept), (_beside(path), _beside(kept))):
        if old.exists() and not name.exists():
            _name_too(old, name)
    sync_directory(path.parent)
    return kept


def _name_too(path: Path, name: Path) -> None:
    try:
        os.link(path, name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        replace_file(name, path.read_bytes())


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}{_LOG}")
