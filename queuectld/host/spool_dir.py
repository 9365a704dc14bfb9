"""The directories of the spool, by descriptors: what others may have put there is looked at, and never followed.

``tmp/`` is where people write and ``new/`` where they put what is finished. What is there is moved to ``taken/`` before
it is looked at, so that from then on nobody can put another file in its place; ``failed/`` has what could not be used.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from queuectld.errors import QueueCTLError
from queuectld.service.spool import LARGEST, Arrival, Found, Rules, complaint, jobs_in

# Names that one look takes in.
MOST_NAMES: Final = 10_000
# What is kept of what failed: files, bytes, seconds. And how long somebody may write in tmp/.
_FAILED: Final = 1000
_FAILED_BYTES: Final = 64 << 20
_FAILED_AGE: Final = 30 * 86400.0
_TMP_AGE: Final = 36 * 3600.0
# Seconds for which a file may have a second name, or somebody who has it open to write, since that changed last.
_MOMENT: Final = 1.0
# Bytes of jobs that are in memory together.
_AT_ONCE: Final = 2 << 20
_OF_THE_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
# When it was taken (seconds since the epoch), and chance: a mark that nothing else ever had.
_MARK: Final = re.compile(r"[0-9a-f]{24}\.")
_ODD: Final = re.compile(r"[^A-Za-z0-9._@%+=:-]")
_LONGEST: Final = 200
_ERROR: Final = ".error"


class SpoolError(QueueCTLError):
    """The spool cannot be used."""


class Taken(NamedTuple):
    """A file that is ours now: in ``taken/`` it is called `mark`, its owner called it `name`.

    It has either `jobs` or a `reason` why not; or it has to be looked at again `later`, because that may change.
    """

    mark: str
    name: str
    uid: int
    jobs: Sequence[msgspec.Raw] = ()
    reason: str | None = None
    later: bool = False


class SpoolDir:
    """Opened directories, which no other daemon has. Every method waits for the disk."""

    def __init__(self, path: Path, root: int) -> None:
        """Use `open_spool`."""
        self.path = path
        self._root = root
        self._open: list[int] = [root]
        self.rules = Rules(os.geteuid())

    def _enter(self, shared: int | None) -> Self:
        _check(os.fstat(self._root), self.path, shared=False)
        self._tmp = self._directory("tmp", shared, 0o3730)
        self._new = self._directory("new", shared, 0o3730)
        self._failed = self._directory("failed", shared, 0o750, ours=True)
        self._taken = self._directory("taken", None, 0o700, ours=True)
        try:
            fcntl.flock(self._taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolError(
                f"another daemon takes the files of {self.path}; give one of them another `spool`"
            ) from None
        new = os.fstat(self._new)
        if new.st_mode & stat.S_IWGRP:
            group = new.st_gid if new.st_mode & stat.S_ISGID else None
            self.rules = Rules(os.geteuid(), shared=True, group=group)
        return self

    def _directory(self, name: str, shared: int | None, mode: int, *, ours: bool = False) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=self._root)
            made = True
        except FileExistsError:
            made = False
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._root)
        self._open.append(descriptor)
        if made and shared is not None:
            os.fchown(descriptor, -1, shared)
            os.fchmod(descriptor, mode)
        _check(os.fstat(descriptor), self.path / name, shared=not ours)
        return descriptor

    def _in_place(self) -> bool:
        names = (self.path, *(self.path / name for name in ("tmp", "new", "failed", "taken")))
        try:
            return all(
                os.path.samestat(os.fstat(one), os.lstat(name)) for one, name in zip(self._open, names, strict=True)
            )
        except OSError:
            return False

    def close(self) -> None:
        """Let another daemon have them."""
        while self._open:
            os.close(self._open.pop())

    @property
    def arriving(self) -> Path:
        """Where people put what is finished."""
        return self.path / "new"

    # What comes in.

    def look(self) -> tuple[Sequence[str], Sequence[Arrival]] | None:
        """Return the marks of what is ours, and what there is to take; None: other directories have these names now."""
        return (self.claimed(), self._arrivals()) if self._in_place() else None

    def claimed(self) -> Sequence[str]:
        """Return the marks of all that is ours."""
        return sorted(name for name in os.listdir(self._taken) if _MARK.match(name))  # noqa: PTH208  (of a descriptor)

    def _arrivals(self) -> Sequence[Arrival]:
        # Names that begin with a dot are being written. What cannot be taken in is there the next time.
        found = []
        with os.scandir(self._new) as entries:
            names = (entry for entry in entries if not entry.name.startswith("."))
            for entry in islice(names, MOST_NAMES):
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    found.append(Arrival(entry.name, status.st_uid, status.st_mtime_ns))
        return found

    def claim(self, names: Iterable[str]) -> Sequence[str]:
        """Make files ours; return their marks. Only when that is on disk, in both directories, they are safely ours."""
        marks = []
        for name in names:
            mark = f"{int(time.time()):08x}{secrets.token_hex(8)}.{_plain(name)}"
            try:
                os.rename(name, mark, src_dir_fd=self._new, dst_dir_fd=self._taken)
            except OSError as error:
                # Somebody may take it back until the last moment; and one that cannot be moved holds up no other.
                if error.errno in _OF_THE_DISK:
                    raise
                continue
            marks.append(mark)
        return marks

    def sync_taken(self) -> None:
        """Bring to the disk what came into ``taken/``, and left it."""
        os.fsync(self._taken)

    def sync_new(self) -> None:
        """Bring to the disk what left ``new/``."""
        os.fsync(self._new)

    def inspect(self, marks: Sequence[str]) -> tuple[Sequence[Taken], Sequence[str]]:
        """Look into files that are ours; return what was found, and the marks of those that are too much for now."""
        found: list[Taken] = []
        size = 0
        for place, mark in enumerate(marks):
            if size > _AT_ONCE:
                return found, marks[place:]
            with suppress(FileNotFoundError):
                taken = self._inspect(mark)
                size += sum(len(memoryview(job)) for job in taken.jobs)
                found.append(taken)
        return found, ()

    def _inspect(self, mark: str) -> Taken:
        name = mark.partition(".")[2]
        found = os.stat(mark, dir_fd=self._taken, follow_symlinks=False)
        uid = found.st_uid
        reason = complaint(Found(found.st_mode, uid, found.st_gid, found.st_nlink, found.st_size), self.rules)
        if reason is not None:
            later = stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and 0 <= time.time() - found.st_ctime < _MOMENT
            return Taken(mark, name, uid, reason=reason, later=later)
        try:
            data = self._read(mark)
            if data is None:
                return Taken(mark, name, uid, later=True)
            return Taken(mark, name, uid, jobs=jobs_in(data))
        except FileNotFoundError:
            raise
        except OSError as error:
            return Taken(mark, name, uid, reason=f"it cannot be read: {error.strerror}")
        except QueueCTLError as error:
            return Taken(mark, name, uid, reason=error.message)

    def _read(self, mark: str) -> bytes | None:
        """Return what is in a file; None if somebody is about to write more."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        with open(os.open(mark, flags, dir_fd=self._taken), "rb") as file:  # noqa: PTH123  (of a descriptor)
            if 0 <= time.time() - os.fstat(file.fileno()).st_mtime < _MOMENT and _is_written(file.fileno()):
                return None
            # It may grow while it is read: what is too much is no JSON any more.
            return file.read(LARGEST + 1)

    # What becomes of it.

    def discard(self, marks: Iterable[str]) -> None:
        """Remove files whose jobs are stored."""
        for mark in marks:
            with suppress(FileNotFoundError):
                os.unlink(mark, dir_fd=self._taken)

    def reject(self, taken: Taken, reason: str) -> str:
        """Put a file to those that failed, with the reason beside it; return what it is called there."""
        name = self._free_name(taken.name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name + _ERROR, flags, 0o600, dir_fd=self._failed), "w") as file:  # noqa: PTH123  (of a descriptor)
            file.write(f"{reason}\n")
            file.flush()
            if self.rules.me == 0:
                os.fchown(file.fileno(), taken.uid, -1)
        if self.rules.shared:
            self._make_private(taken.mark)
        os.rename(taken.mark, name, src_dir_fd=self._taken, dst_dir_fd=self._failed)
        return name

    def _make_private(self, mark: str) -> None:
        """Let nobody but its owner read a file: it has commands and environments, and is about to be where all look."""
        found = os.stat(mark, dir_fd=self._taken, follow_symlinks=False)
        # One that has another name too may be somebody else's, who did not put it here. What has been looked at here
        # is what is changed: nobody else gets in.
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and os.geteuid() in {0, found.st_uid}:
            os.chmod(mark, stat.S_IMODE(found.st_mode) & 0o700, dir_fd=self._taken)

    def _free_name(self, name: str) -> str:
        for tail in _tails():
            used = [one for one in (name + tail, name + tail + _ERROR) if _exists(one, self._failed)]
            if not used:
                return name + tail
        raise AssertionError

    def tidy(self) -> None:
        """Forget the oldest of what failed, and what somebody began to write long ago."""
        now = time.time()
        for name, found in _files(self._tmp):
            if now - found.st_ctime > _TMP_AGE:
                _remove(name, self._tmp)
        count = size = 0
        # The newest first: with each, all that came later is counted.
        for name, found in sorted(_files(self._failed), key=lambda file: file[1].st_ctime_ns, reverse=True):
            count, size = count + 1, size + found.st_blocks * 512
            if count > 2 * _FAILED or size > _FAILED_BYTES or now - found.st_ctime > _FAILED_AGE:
                _remove(name, self._failed)


def open_spool(path: Path, *, shared: int | None) -> SpoolDir:
    """Open the directories, made if need be; members of the group `shared` may then put files there.

    Raises `SpoolError` with what to do.
    """
    spool = None
    try:
        with suppress(FileExistsError):
            path.mkdir(mode=0o700 if shared is None else 0o755, parents=True)
            # Whatever the umask.
            path.chmod(0o700 if shared is None else 0o755)
        spool = SpoolDir(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        return spool._enter(shared)  # noqa: SLF001  (its other half)
    except OSError as error:
        if spool is not None:
            spool.close()
        what = error.filename or path
        raise SpoolError(f"{what}: {error.strerror}") from None
    except SpoolError:
        if spool is not None:
            spool.close()
        raise


def _check(found: os.stat_result, path: Path, *, shared: bool) -> None:
    """Make sure that nobody can write there who may not; where it is `shared`, a group may, but not over each other."""
    if found.st_uid not in {0, os.geteuid()}:
        raise SpoolError(f"{path} belongs to another user (uid {found.st_uid})")
    if found.st_mode & stat.S_IWOTH:
        raise SpoolError(f"everybody may write to {path} and so put commands into the queue; chmod o-w {path}")
    if found.st_mode & stat.S_IWGRP and not (shared and found.st_mode & stat.S_ISVTX):
        raise SpoolError(
            f"others may remove or replace what somebody puts into {path}; chmod {'+t' if shared else 'g-w'} {path}"
        )


def _plain(name: str) -> str:
    """Return a name that can be shown and typed, for one that may be any bytes."""
    return _ODD.sub("_", name)[:_LONGEST]


def _tails() -> Iterator[str]:
    yield ""
    while True:
        yield f".{secrets.token_hex(4)}"


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_written(descriptor: int) -> bool:
    """Whether somebody has a file open to write to it: then nobody gets a lease to read it."""
    try:
        # Its owner may open it to write at this very moment, which is told by a signal: SIGIO would end us.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Not every file system has them.
        return error.errno == errno.EAGAIN
    return False


def taken_at(mark: str) -> float:
    """Return when a file was given this mark, in seconds since the epoch."""
    return float(int(mark[:8], 16))


def _files(directory: int) -> Iterator[tuple[str, os.stat_result]]:
    # One by one: somebody may have made millions.
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat(follow_symlinks=False)


def _remove(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in {errno.EISDIR, errno.EPERM}:
            raise
        # What somebody keeps in a directory of his own is his business.
        with suppress(OSError):
            os.rmdir(name, dir_fd=directory)
