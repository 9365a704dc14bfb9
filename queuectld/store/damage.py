"""What can be told of a database before SQLite touches it: costs the same however large it is, and changes nothing.

Only while no connection of this process is open: to close a descriptor of the file would drop SQLite's locks.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from queuectld.errors import StoreDamagedError, StoreError

# "QctL", as migration 0001 writes it.
OURS: Final = 0x5163744C

_MAGIC: Final = b"SQLite format 3\0"
_HEADER: Final = 100
# Of the log: its header, and the header of each page in it.
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24
# Two copies of what the log holds, and how much of it was moved into the database.
_INDEX_SIZE: Final = 136
# Says nothing of the file, and may be over when it is tried again.
_OF_THE_HOST: Final = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_ADVICE: Final = (
    "; it is kept as it is: `queuectld db check` tells more, `queuectld db restore FILE` puts a copy in its place, "
    "or move it and the files beside it away to begin with an empty queue"
)


def damaged(path: Path, what: str) -> StoreDamagedError:
    """Return the error for a database that cannot be used, with what to do."""
    return _error(f"the database {path} {what}{_ADVICE}", what)


def _error(message: str, what: str) -> StoreDamagedError:
    error = StoreDamagedError(message)
    error.what = what
    return error


def unreadable(what: str, error: Exception) -> StoreDamagedError:
    """Return the error for a row that SQLite gave for whole, and that is not what we store."""
    why = " ".join(str(error).split())
    return StoreDamagedError(f"the database is damaged: {what} cannot be read ({why}){_ADVICE}")


def inspect(path: Path) -> bool:
    """Return whether there is a database, whole as far as that can be seen.

    Raises `StoreDamagedError`, and `StoreError` where only the host says that it cannot be read now.
    """
    log = path.with_name(f"{path.name}-wal")
    try:
        header = _read(path, _HEADER)
        logged = _size(log)
        if header is None:
            if logged:
                raise damaged(path, f"is missing, but its log {log.name} is there")
            return False
        _check_header(path, header, logged=logged)
        _check_length(path, header, log)
        _check_index(path, logged=logged)
    except OSError as error:
        if error.errno in _OF_THE_HOST:
            raise StoreError(f"the database {path} cannot be read: {error.strerror}") from error
        raise damaged(path, f"cannot be read: {error.strerror}") from error
    return True


def _read(path: Path, size: int, offset: int = 0) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise damaged(path, "is not a file")
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _number(data: bytes, offset: int, size: int = 4) -> int:
    return int.from_bytes(data[offset : offset + size], "big")


def _check_header(path: Path, header: bytes, *, logged: int) -> None:
    if not header:
        raise damaged(path, "is empty")
    if not header.startswith(_MAGIC[: len(header)]):
        raise damaged(path, "is not a database, or its beginning is damaged")
    if len(header) < _HEADER:
        raise damaged(path, "is cut off")
    # What is in the log is not seen here, and may be younger.
    if _number(header, 68) != OURS and not logged:
        foreign(path)


def foreign(path: Path) -> NoReturn:
    """Refuse somebody else's database."""
    what = "is a database, but not one of QueueCTL"
    raise _error(f"the file {path} {what}; it is kept as it is: move it away, or name another state directory", what)


def _check_length(path: Path, header: bytes, log: Path) -> None:
    page = _page_size(header)
    if page < 512 or page & (page - 1):
        raise damaged(path, "has a damaged beginning")
    # Otherwise a very old SQLite wrote it, which did not count.
    pages = _number(header, 28) if _number(header, 24) == _number(header, 92) else 0
    there = _size(path) // page
    if there < pages and not set(range(there + 1, pages + 1)) <= _logged_pages(log, page):
        raise damaged(path, f"is cut off: {pages * page:,} bytes belong to it, {_size(path):,} are there")


def _page_size(header: bytes) -> int:
    size = _number(header, 16, 2)
    return 65536 if size == 1 else size


def _logged_pages(log: Path, page: int) -> set[int]:
    """Return the pages in the log: a checkpoint that was cut short may have written the beginning before the end."""
    found: set[int] = set()
    try:
        with log.open("rb") as file:
            salt = file.read(_LOG_HEADER)[16:24]
            while len(frame := file.read(_FRAME_HEADER)) == _FRAME_HEADER and frame[8:16] == salt:
                found.add(_number(frame, 0))
                file.seek(page, os.SEEK_CUR)
    except FileNotFoundError:
        return found
    return found


def _check_index(path: Path, *, logged: int) -> None:
    """Find out whether a log is missing: its index, which is removed after it, tells how much of it was moved."""
    index = path.with_name(f"{path.name}-shm")
    data = None if logged else _read(index, _INDEX_SIZE)
    # It is never forced to the disk: after the host went down it may tell of a log that was removed in good order.
    if data is None or len(data) < _INDEX_SIZE or not any(data) or index.stat().st_mtime < _boot_time():
        return
    logged, moved = (int.from_bytes(data[at : at + 4], sys.byteorder) for at in (16, 96))
    if logged > moved:
        raise damaged(path, f"has lost its log {path.name}-wal, and with it the newest changes")


def _boot_time() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
