"""Environments, inputs and scripts of jobs: each kept once, as long as a job refers to it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

from queuectld.domain.job import Job
from queuectld.errors import StoreError
from queuectld.store.database import Database

_READ: Final = "SELECT data FROM blobs JOIN blob_data USING (number) WHERE digest = ?"
_FIND: Final = "SELECT 1 FROM blobs WHERE digest = ?"
_ADD: Final = "INSERT INTO blobs (digest, refs) VALUES (?, 0) RETURNING number"
_ADD_DATA: Final = "INSERT INTO blob_data VALUES (?, ?)"
_REFER: Final = "UPDATE blobs SET refs = refs + ? WHERE digest = ?"
_DROP: Final = "DELETE FROM blobs WHERE digest = ? AND refs = 0 RETURNING number"
_DROP_DATA: Final = "DELETE FROM blob_data WHERE number = ?"


def digest_of(data: bytes) -> str:
    """Return the name of a blob. Users choose the content, so it must be hard to forge: 160 bits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def references(job: Job) -> tuple[str, ...]:
    """Return the digests that a job refers to, one twice if it does so twice."""
    return tuple(digest for digest in (job.environment, job.stdin, job.script) if digest is not None)


def read_blob(database: Database, digest: str) -> bytes:
    """Return a blob. Raises `KeyError`."""
    row = database.one(_READ, (digest,))
    if row is None:
        raise KeyError(digest)
    data: bytes = row[0]
    return data


class Blobs:
    """Counts who refers to what, and at the end of a transaction drops what nobody refers to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # To be looked at before the commit. A digest too many does no harm.
        self._loose: set[str] = set()

    def intern(self, data: bytes) -> str:
        """Keep a blob and return its digest; a job has to refer to it within the same transaction."""
        digest = digest_of(data)
        if not self._database.run(_FIND, (digest,)):
            number = self._database.run(_ADD, (digest,))[0][0]
            self._database.run(_ADD_DATA, (number, data))
            self._loose.add(digest)
        return digest

    def count(self, *, more: Iterable[str] = (), fewer: Iterable[str] = ()) -> None:
        """Note new references and those that are gone. Raises `StoreError` for a blob that is not there."""
        change = Counter(more)
        change.subtract(Counter(fewer))
        for digest, by in change.items():
            if by and not self._database.change(_REFER, (by, digest)):
                raise StoreError(f"a job refers to the blob {digest}, which is not there")
            if by < 0:
                self._loose.add(digest)

    def drop_loose(self) -> None:
        """Forget blobs that no job refers to, as far as this transaction touched them."""
        for digest in self._loose:
            for (number,) in self._database.run(_DROP, (digest,)):
                self._database.run(_DROP_DATA, (number,))

    def settle(self) -> None:
        """Begin anew after the transaction."""
        self._loose.clear()
