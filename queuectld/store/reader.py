"""What can be asked of a database, by a read-only connection as well as by the one that writes."""

# ruff: noqa: S608 - statements are put together from constants of ours, never from values
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import WAITING, Job, State
from queuectld.errors import AmbiguousIdError, NoSuchJobError
from queuectld.store.base import History, Page, Query
from queuectld.store.blobs import read_blob
from queuectld.store.database import Database
from queuectld.store.listing import read_page
from queuectld.store.migrate import check_version, newest_version
from queuectld.store.rows import ATTEMPT, JOB, attempt_of, entry_of, job_of
from queuectld.store.tally import by_state, read_kinds, read_numbers, unseen_dead

_UUID: Final = "SELECT uuid FROM store"
_VISIBLE: Final = f"SELECT {JOB} FROM jobs WHERE id = ? AND hidden = 0"
_HIDDEN: Final = f"SELECT {JOB} FROM jobs WHERE id = ? AND hidden = 1 ORDER BY seq DESC LIMIT 1"
_BY_SEQ: Final = f"SELECT {JOB} FROM jobs WHERE seq = ?"
_LAST: Final = f"SELECT {JOB} FROM jobs NOT INDEXED WHERE hidden = 0 ORDER BY seq DESC LIMIT 1"
_PREFIX: Final = (
    f"SELECT {JOB} FROM jobs INDEXED BY jobs_by_id WHERE hidden = 0 AND id >= ? AND id < ? ORDER BY id LIMIT ?"
)
# A bounded number of rows, however many jobs of others begin so.
_OWN_PREFIX: Final = (
    f"SELECT {JOB} FROM (SELECT {JOB} FROM jobs INDEXED BY jobs_by_id WHERE hidden = 0 AND id >= ? AND id < ? "
    "ORDER BY id LIMIT 2000) WHERE owner = ? ORDER BY id LIMIT ?"
)
_OWN: Final = f"SELECT {JOB} FROM jobs WHERE id = ? AND owner = ? AND hidden = ? ORDER BY seq DESC LIMIT 1"
_QUEUES: Final = "SELECT name FROM queues ORDER BY name"
_FIRST_DUE: Final = (
    "SELECT due FROM jobs INDEXED BY startable_jobs WHERE place = 1 AND queue = ? ORDER BY rank, seq LIMIT 1"
)
_NEXT_DUE: Final = "SELECT due FROM jobs INDEXED BY unripe_jobs WHERE place = 2 ORDER BY due LIMIT 1"
_ATTEMPT: Final = f"SELECT {ATTEMPT} FROM attempts WHERE token = ?"
_ATTEMPTS: Final = f"SELECT {ATTEMPT} FROM attempts WHERE job = ? ORDER BY token"
_LIVE: Final = f"SELECT {ATTEMPT} FROM attempts INDEXED BY live_attempts WHERE outcome IS NULL ORDER BY token"
_ENTRIES: Final = "SELECT number, body FROM entries WHERE number >= ? ORDER BY number LIMIT ?"
_ENTRIES_OF: Final = (
    "SELECT number, body FROM entries INDEXED BY entries_by_seq WHERE seq = ? AND number >= ? ORDER BY number LIMIT ?"
)

# Shorter beginnings of ids are slips of the finger rather than abbreviations.
PREFIX_LENGTH: Final = 4
_CANDIDATES: Final = 5


class SqliteReader:
    """The asking half of the store. Belongs to one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._uuid: str = database.only(_UUID)[0]

    @property
    def uuid(self) -> str:
        """See `Reader.uuid`."""
        return self._uuid

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See one committed state for the length of the block, which should be short: the log grows meanwhile."""
        self._database.run("BEGIN")
        try:
            yield
        finally:
            if self._database.in_transaction:
                self._database.run("COMMIT")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """See `Reader.get`."""
        if owner is None:
            row = self._database.one(_VISIBLE, (job_id,)) or self._database.one(_HIDDEN, (job_id,))
        else:
            row = self._database.one(_OWN, (job_id, owner, 0)) or self._database.one(_OWN, (job_id, owner, 1))
        if row is None:
            raise NoSuchJobError(f"there is no job '{job_id}'")
        return job_of(row)

    def by_seq(self, seq: int) -> Job:
        """See `Reader.by_seq`."""
        row = self._database.one(_BY_SEQ, (seq,))
        if row is None:
            raise NoSuchJobError(f"there is no job number {seq}")
        return job_of(row)

    def resolve(self, prefix: str, *, owner: str | None = None) -> Job:
        """See `Reader.resolve`."""
        if owner is not None:
            beyond = prefix + "\U0010ffff"
            rows = self._database.run(_OWN_PREFIX, (prefix, beyond, owner, _CANDIDATES + 1))
            return only_one(prefix, [job_of(row) for row in rows])
        rows = self._database.run(_LAST) if prefix == "@last" else self._database.run(_VISIBLE, (prefix,))
        if not rows and len(prefix) >= PREFIX_LENGTH:
            rows = self._database.run(_PREFIX, (prefix, prefix + "\U0010ffff", _CANDIDATES + 1))
        return only_one(prefix, [job_of(row) for row in rows])

    def find(self, query: Query, *, after: int | None = None, limit: int = 100, reverse: bool = False) -> Page:
        """See `Reader.find`."""
        return read_page(self._database, query, after=after, limit=limit, reverse=reverse)

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """See `Reader.counts`."""
        return by_state(read_kinds(self._database))

    def queues(self) -> Sequence[str]:
        """See `Reader.queues`."""
        return [name for (name,) in self._database.run(_QUEUES)]

    def first_due(self) -> Mapping[str, float]:
        """See `Reader.first_due`."""
        waiting = (queue for queue, states in self.counts().items() if not WAITING.isdisjoint(states))
        return {queue: due for queue in waiting for (due,) in self._database.run(_FIRST_DUE, (queue,))}

    def unseen_dead(self) -> Mapping[str, int]:
        """See `Reader.unseen_dead`."""
        return unseen_dead(read_kinds(self._database))

    def next_due(self) -> float | None:
        """See `Reader.next_due`."""
        row = self._database.one(_NEXT_DUE)
        return None if row is None else row[0]

    def attempt(self, token: int) -> Attempt | None:
        """See `Reader.attempt`."""
        row = self._database.one(_ATTEMPT, (token,))
        return None if row is None else attempt_of(row)

    def attempts_of(self, seq: int) -> Sequence[Attempt]:
        """See `Reader.attempts_of`."""
        return [attempt_of(row) for row in self._database.run(_ATTEMPTS, (seq,))]

    def live_attempts(self) -> Sequence[Attempt]:
        """See `Reader.live_attempts`."""
        return [attempt_of(row) for row in self._database.run(_LIVE)]

    def blob(self, digest: str) -> bytes:
        """See `Reader.blob`."""
        return read_blob(self._database, digest)

    def entries(self, *, start: int, limit: int, seq: int | None = None) -> History:
        """See `Reader.entries`."""
        if seq is None:
            rows = self._database.run(_ENTRIES, (start, limit))
        else:
            rows = self._database.run(_ENTRIES_OF, (seq, start, limit))
        entries = tuple(entry_of(row) for row in rows)
        whole = seq is not None and entries and entries[0].event == "job.enqueued"
        return History(entries=entries, gap=not whole and max(start, 1) <= self._removed_entry())

    def last_entry(self) -> int:
        """See `Reader.last_entry`."""
        return read_numbers(self._database).last_entry

    def kept_output(self) -> int:
        """See `Reader.kept_output`."""
        return read_numbers(self._database).kept_output

    def _removed_entry(self) -> int:
        return read_numbers(self._database).removed_entry


def only_one(prefix: str, found: Sequence[Job]) -> Job:
    """Return the only job found. Raises `NoSuchJobError`, or `AmbiguousIdError` naming some."""
    if not found:
        raise NoSuchJobError("there is no job yet" if prefix == "@last" else f"there is no job '{prefix}'")
    if len(found) > 1:
        names = ", ".join(job.id for job in found[:_CANDIDATES])
        more = ", …" if len(found) > _CANDIDATES else ""
        raise AmbiguousIdError(f"'{prefix}' is the beginning of several ids: {names}{more}")
    return found[0]


def open_reader(path: Path, *, newest: int | None = None) -> SqliteReader:
    """Open a database for reading only; `newest` is the `newest_version` of the program, as far as it is known already.

    Raises `StoreError`, `StoreTooNewError`, `StoreDamagedError`.
    """
    database = Database(path, readonly=True)
    try:
        check_version(database, newest_version() if newest is None else newest)
        return SqliteReader(database)
    except BaseException:
        database.close()
        raise
