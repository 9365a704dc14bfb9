"""One connection to SQLite: how it is set up, and the only place where its errors are translated into ours."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import apsw

from queuectld.durable import sync_directory, sync_file
from queuectld.errors import DiskFullError, QueueCTLError, StoreError
from queuectld.store.damage import damaged

Row = tuple[Any, ...]

# Milliseconds. Nobody else writes; this only bridges what SQLite itself locks for a moment.
_BUSY: Final = 2000
# Kibibytes of pages held by the writer, and by each reader; the kernel holds the rest.
_CACHE: Final = 8192
_READER_CACHE: Final = 1024

# Bytes to which the log is cut when it begins anew, after a long reader made it grow.
_LOG_SIZE: Final = 20_000_000

# Steps of a statement, some of them pages read, between two looks at the clock.
_STEPS: Final = 2000

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REASONS: Final = {
    errno.EROFS: "its file system is mounted read-only",
    errno.EFBIG: "it may not grow, because files may not be larger here (see `ulimit -f`, or LimitFSIZE= of the unit)",
}
# A text that is none is damage that only Python notices.
_FOREIGN: Final = (apsw.Error, UnicodeDecodeError)
# After a failed fsync nobody knows what is on disk, whatever the reason was.
_FSYNC: Final = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})


class ConstraintError(StoreError):
    """A rule of the tables forbids this row."""


def remove_database(path: Path) -> None:
    """Remove a database and all that belongs to it, as far as there is something. Raises `StoreError`."""
    try:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise of_system(path, error) from error


def put_in_place(draft: Path, path: Path) -> None:
    """Give a complete database, closed, its name; when this returns, that is on disk. Raises `StoreError`."""
    try:
        draft.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise of_system(path, error) from error


def of_system(path: Path, error: OSError) -> QueueCTLError:
    """Return our error for one of the operating system about a database."""
    return DiskFullError() if error.errno in _NO_SPACE else StoreError(f"{path}: {error.strerror}")


class Database:
    """Runs statements. Belongs to one thread at a time."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        """Open the file, which is made if need be. Raises `StoreError` or a subclass."""
        self.path = path
        flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        try:
            self._connection = apsw.Connection(str(path), flags=flags)
        except apsw.Error as error:
            raise StoreError(f"the database {path} cannot be opened: {error}") from error
        self._cursor = self._connection.cursor()
        # Why the transaction ended behind our back.
        self.lost: QueueCTLError | None = None
        # Length of the write-ahead log after the last commit.
        self.log_pages = 0
        self.closed = False
        try:
            self._set_up(readonly=readonly)
        except StoreError:
            self._connection.close()
            raise

    def _set_up(self, *, readonly: bool) -> None:
        # Until somebody knows that all is well.
        self.keep_log()
        self._connection.set_busy_timeout(_BUSY)
        self.run("PRAGMA mmap_size = 0")
        self.run(f"PRAGMA cache_size = -{_READER_CACHE if readonly else _CACHE}")
        self.run("PRAGMA temp_store = MEMORY")
        self.run("PRAGMA secure_delete = OFF")
        if not readonly:
            if self.run("PRAGMA journal_mode = WAL") != [("wal",)]:
                raise StoreError(f"the database {self.path} cannot have a write-ahead log: is it on a network share?")
            self.run("PRAGMA synchronous = FULL")
            self.run(f"PRAGMA journal_size_limit = {_LOG_SIZE}")
        # Replaces SQLite's own checkpoints, which would come in the middle of the work.
        self._connection.wal_autocheckpoint(0)
        if not readonly:
            self._connection.set_wal_hook(self._note_log)

    def _note_log(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self.log_pages = pages
        return apsw.SQLITE_OK

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    def run(self, sql: str, bindings: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        try:
            return self._cursor.execute(sql, bindings).fetchall()
        except _FOREIGN as error:
            raise self._translated(error) from error

    def run_within(self, seconds: float, sql: str) -> list[Row] | None:
        """Run a statement and return its rows, or None if that takes longer."""
        until = time.monotonic() + seconds
        self._connection.set_progress_handler(lambda: time.monotonic() >= until, _STEPS)
        try:
            return self._cursor.execute(sql).fetchall()
        except apsw.InterruptError:
            return None
        except _FOREIGN as error:
            raise self._translated(error) from error
        finally:
            self._connection.set_progress_handler(None)

    def each(self, sql: str, bindings: Sequence[Any] = ()) -> Iterator[Row]:
        """Run a statement and yield its rows one by one; those that nobody asks for are not read."""
        cursor = self._connection.cursor()
        try:
            yield from cursor.execute(sql, bindings)
        except _FOREIGN as error:
            raise self._translated(error) from error
        finally:
            cursor.close()

    def one(self, sql: str, bindings: Sequence[Any] = ()) -> Row | None:
        """Run a statement and return its first row."""
        rows = self.run(sql, bindings)
        return rows[0] if rows else None

    def only(self, sql: str) -> Row:
        """Run a statement that has a row in every database of ours, and return it. Raises `StoreDamagedError`."""
        if (row := self.one(sql)) is None:
            raise damaged(self.path, "is damaged (its only row is missing)")
        return row

    def change(self, sql: str, bindings: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it changed."""
        self.run(sql, bindings)
        return self._connection.changes()

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each row."""
        try:
            self._cursor.executemany(sql, rows)
        except _FOREIGN as error:
            raise self._translated(error) from error

    def checkpoint(self, *, truncate: bool) -> None:
        """Move the log into the database as far as readers allow."""
        self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE)

    def make_last(self) -> None:
        """Have on disk all that can be read, before anybody is told of it.

        A process that was killed may have written to the log what was not on disk yet, or was refused by the disk: it
        is there for whoever comes next, and gone after a power cut.
        """
        try:
            with suppress(FileNotFoundError):
                sync_file(self.path.with_name(f"{self.path.name}-wal"))
        except OSError as error:
            raise StoreError(f"the database {self.path} cannot be made last: {error.strerror}") from error
        # As long as the log holds it, and is on disk itself, nothing is lost.
        with suppress(DiskFullError):
            self.checkpoint(truncate=False)

    def restart_log(self, *, patience: float) -> bool:
        """Have the next commit begin the log anew; return whether it will.

        Waits up to `patience` seconds for those who read from the log now; who comes meanwhile reads the database.
        """
        # Most of it is moved before anybody is waited for; by then many of them are gone.
        self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        self._connection.set_busy_timeout(round(patience * 1000))
        try:
            return self._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART)
        finally:
            self._connection.set_busy_timeout(_BUSY)

    def _checkpoint(self, mode: int) -> bool:
        """Return whether all was moved, and, as far as the mode goes, nobody is in the way of a new log."""
        try:
            length, moved = self._connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return False
        except _FOREIGN as error:
            raise self._translated(error) from error
        # All moved: as soon as nobody reads from it, a commit begins the log anew.
        self.log_pages = 0 if moved == length else length
        return moved == length

    def backup_to(self, path: Path) -> None:
        """Write a copy of the committed state; a file of this name is a complete one, and on disk."""
        part = path.with_name(f"{path.name}.part")
        remove_database(part)
        try:
            self.copy_to(part)
            put_in_place(part, path)
        except BaseException:
            remove_database(part)
            raise

    def copy_to(self, path: Path) -> None:
        """Write a copy of the committed state, all in one file, to a place where nothing is."""
        target = None
        try:
            target = apsw.Connection(str(path))
            with target.backup("main", self._connection, "main") as backup:
                backup.step()
            # Without a log of its own: it can be carried away as it is.
            target.execute("PRAGMA journal_mode = DELETE")
        except apsw.Error as error:
            if target is not None and target.system_errno in _NO_SPACE:
                raise DiskFullError from error
            raise self._translated(error) from error
        finally:
            if target is not None:
                target.close()

    def keep_log(self, *, keep: bool = True) -> None:
        """Leave the log where it is when the connection is closed: what is wrong is not to become worse."""
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)

    def close(self) -> None:
        """Close the connection; once more does no harm."""
        self.closed = True
        try:
            self._connection.close()
        except _FOREIGN as error:
            raise self._translated(error) from error

    def _translated(self, error: apsw.Error | UnicodeDecodeError) -> QueueCTLError:
        ours = self._as_ours(error)
        if self.lost is None and not self.closed and not self._connection.in_transaction:
            self.lost = ours
        return ours

    def _as_ours(self, error: apsw.Error | UnicodeDecodeError) -> QueueCTLError:
        match error:
            case apsw.FullError():
                return DiskFullError()
            case apsw.IOError() | apsw.CantOpenError() if self._no_space(error):
                return DiskFullError()
            case apsw.CorruptError() | apsw.NotADBError() | UnicodeDecodeError():
                self.keep_log()
                return damaged(self.path, f"is damaged ({error})")
            case apsw.ConstraintError():
                return ConstraintError(str(error))
            case _:
                return StoreError(f"the database {self.path} cannot be used: {self._explained(error)}")

    def _explained(self, error: apsw.Error | UnicodeDecodeError) -> str:
        """Say what the operating system has against it; SQLite tells only that there is something."""
        number = self._connection.system_errno
        if not number or not isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.ReadOnlyError):
            return str(error)
        return f"{error}: {_REASONS.get(number, os.strerror(number))}"

    def _no_space(self, error: apsw.Error) -> bool:
        return getattr(error, "extendedresult", 0) not in _FSYNC and self._connection.system_errno in _NO_SPACE
