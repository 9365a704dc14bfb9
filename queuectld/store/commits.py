"""Transactions on the connection that writes, and everything that has to be taken back when one fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Final

from msgspec.structs import replace

from queuectld.domain.job import State
from queuectld.errors import DiskFullError, StoreError
from queuectld.store.base import Entry
from queuectld.store.blobs import Blobs
from queuectld.store.database import Database
from queuectld.store.reader import SqliteReader
from queuectld.store.rows import entry_row
from queuectld.store.tally import Tally

_ADD_ENTRY: Final = "INSERT INTO entries VALUES (?, ?, ?, ?)"

# Pages of log (16 MiB) after which even a busy store empties it; and after how many more (4 MiB) it tries again.
_LOG_LIMIT: Final = 4096
_LOG_STEP: Final = 1024
# Seconds for which readers are waited for then, at the first try; each further one waits for twice as long.
_PATIENCE: Final = 0.05
_MOST_PATIENCE: Final = 2.0


class Commits(SqliteReader):
    """The writing connection without the verbs of jobs. Belongs to one thread at a time."""

    def __init__(self, database: Database, committed: Callable[[float], None] = lambda _: None) -> None:
        """`committed` is told of each commit how many seconds the disk took for it."""
        super().__init__(database)
        self._committed = committed
        self._tally = Tally(database)
        self._blobs = Blobs(database)
        self._declared = frozenset(super().queues())
        self._written: list[Entry] = []
        # Pages of log at which it has to be emptied, and how often that was in vain so far.
        self._log_due = _LOG_LIMIT
        self._in_vain = 0
        # No job waits for a time before this one.
        self._unripe_from = -math.inf

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store.transaction`."""
        self._bound_log()
        self._database.lost = None
        written = len(self._written)
        self._database.run("BEGIN IMMEDIATE")
        try:
            yield
            self._commit()
        except BaseException:
            self._roll_back(written)
            raise
        self._tally.settle()
        self._blobs.settle()

    def _commit(self) -> None:
        if not self.intact():
            raise self._database.lost or StoreError("the transaction ended before its time")
        self._blobs.drop_loose()
        self._tally.flush()
        began = monotonic()
        self._database.run("COMMIT")
        self._committed(monotonic() - began)

    def _roll_back(self, written: int) -> None:
        if self._database.in_transaction:
            self._database.run("ROLLBACK")
        del self._written[written:]
        self._unripe_from = -math.inf
        self._blobs.settle()
        self._tally.reload()
        self._declared = frozenset(super().queues())

    @contextmanager
    def item(self) -> Iterator[None]:
        """See `Store.item`."""
        self._database.run("SAVEPOINT item")
        mark, written, declared = self._tally.mark(), len(self._written), self._declared
        try:
            yield
        except BaseException:
            if self.intact():
                self._database.run("ROLLBACK TO item")
                self._database.run("RELEASE item")
            self._tally.undo(mark)
            del self._written[written:]
            self._declared = declared
            self._unripe_from = -math.inf
            raise
        if self.intact():
            self._database.run("RELEASE item")

    def intact(self) -> bool:
        """See `Store.intact`."""
        return self._database.in_transaction

    def take_entries(self) -> Sequence[Entry]:
        """See `Store.take_entries`."""
        entries, self._written = self._written, []
        return entries

    def checkpoint(self, *, truncate: bool = False) -> None:
        """See `Store.checkpoint`."""
        if truncate or self._database.log_pages:
            self._database.checkpoint(truncate=truncate)

    def _bound_log(self) -> None:
        """Empty the log when it has become long.

        Where reads overlap, one of them is always inside, and a log that was moved never begins anew by itself.
        """
        pages = self._database.log_pages
        if self._in_vain and pages < _LOG_LIMIT:
            self._expect_log(_LOG_LIMIT, 0)
        if pages < self._log_due:
            return
        patience = min(_PATIENCE * 2**self._in_vain, _MOST_PATIENCE)
        try:
            emptied = self._database.restart_log(patience=patience)
        except DiskFullError:
            # The log holds everything; the next commit will find out whether it can still grow.
            emptied = False
        if emptied:
            self._expect_log(_LOG_LIMIT, 0)
        else:
            self._expect_log(pages + _LOG_STEP, self._in_vain + 1)

    def _expect_log(self, due: int, in_vain: int) -> None:
        self._log_due, self._in_vain = due, in_vain

    def close(self) -> None:
        """See `Store.close`; once more does no harm."""
        if self._database.closed:
            return
        try:
            # On a full disk the log stays, and holds everything.
            with suppress(DiskFullError):
                self.checkpoint(truncate=True)
        finally:
            self._database.close()

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """See `Reader.counts`."""
        return self._tally.counts()

    def unseen_dead(self) -> Mapping[str, int]:
        """See `Reader.unseen_dead`."""
        return self._tally.unseen_dead()

    def queues(self) -> Sequence[str]:
        """See `Reader.queues`."""
        return sorted(self._declared)

    def last_entry(self) -> int:
        """See `Reader.last_entry`."""
        return self._tally.last_entry

    def kept_output(self) -> int:
        """See `Reader.kept_output`."""
        return self._tally.kept_output

    def _removed_entry(self) -> int:
        return self._tally.removed_entry

    def write_entry(self, entry: Entry) -> None:
        """See `Store.write_entry`."""
        number = self._tally.last_entry + 1
        self._database.run(_ADD_ENTRY, entry_row(entry, number))
        self._tally.last_entry = number
        self._written.append(replace(entry, number=number))

    def _write(self, entries: Sequence[Entry]) -> None:
        first = self._tally.last_entry + 1
        self._database.many(_ADD_ENTRY, [entry_row(entry, number) for number, entry in enumerate(entries, first)])
        self._tally.last_entry += len(entries)
        self._written.extend(replace(entry, number=number) for number, entry in enumerate(entries, first))
