"""Space that is put by for the day on which the disk is full: what is under way can still be brought to its end.

The file is really allocated, and given up a slice at a time: jobs that write to the same disk may be faster than us.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from queuectld.errors import DiskFullError

T = TypeVar("T")

# An end of an attempt, with its event, adds about 700 bytes to the database: enough for some 10,000 of them, and for
# the log through which they go, which is used again as often as need be.
_SIZE: Final = 8 * 1024 * 1024
# No larger part of a small file system.
_SHARE: Final = 8
_SLICES: Final = 8
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """A file that holds space. Belongs to one thread at a time."""

    def __init__(self, path: Path) -> None:
        """`path` is the file; its directory is there."""
        self._path = path
        system = os.statvfs(path.parent)
        self._slice = max(min(_SIZE, system.f_blocks * system.f_frsize // _SHARE) // _SLICES, 1)
        self._size = self._slice * _SLICES

    def make(self) -> bool:
        """Put all of it by; return whether the disk has space for that, and for a slice of new work.

        Where files cannot be allocated at all there is none, and the disk counts as having space.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            return error.errno not in _FULL
        try:
            before = os.fstat(descriptor).st_size
            # What is given up must not be taken back with the last byte of the disk, to be given up again at once.
            wanted = self._size if before == self._size else self._size + self._slice
            os.posix_fallocate(descriptor, 0, wanted)
            os.ftruncate(descriptor, self._size)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, min(before, self._size))
            return error.errno not in _FULL
        finally:
            os.close(descriptor)
        return True

    def release(self) -> bool:
        """Give a slice of it up; return whether there was one."""
        try:
            size = self._path.stat().st_size
            os.truncate(self._path, max(min(size, self._size) - self._slice, 0))
        except OSError:
            return False
        return size > 0

    def lend_to(self, work: Callable[[], T]) -> T:
        """Do something, giving up as much as it takes. Raises `DiskFullError` if all of it is not enough."""
        while True:
            try:
                return work()
            except DiskFullError:
                if not self.release():
                    raise
