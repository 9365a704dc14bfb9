"""The state directory: made with safe permissions, and held by one daemon at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from queuectld.durable import replace_file
from queuectld.errors import StoreError, StoreLockedError
from queuectld.protocol.where import SOCKET_RECORD

LOCK: Final = "lock"
DATABASE: Final = "queue.db"
OUTCOMES: Final = "outcomes"
OUTPUT: Final = "output"
INPUT: Final = "input"
RESERVE: Final = "reserve"
OVERRIDES: Final = "overrides.json"

_MODE: Final = 0o700
# Who could write here could put commands into the queue.
_TOO_OPEN: Final = stat.S_IWGRP | stat.S_IWOTH


class StateDir:
    """A state directory that this process holds, until `close` or its end. Paths in it are absolute."""

    def __init__(self, path: Path, lock: int) -> None:
        """Use `open_state_dir`. Whoever keeps the descriptor `lock` open keeps the lock."""
        self.path = path
        self._lock = lock

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.path / DATABASE

    @property
    def reserve(self) -> Path:
        """Space that is put by for a full disk."""
        return self.path / RESERVE

    @property
    def outcomes(self) -> Path:
        """Where workers put results while no daemon is there."""
        return self.path / OUTCOMES

    @property
    def output(self) -> Path:
        """Where workers put what commands write."""
        return self.path / OUTPUT

    @property
    def input(self) -> Path:
        """Standard input and scripts of live attempts."""
        return self.path / INPUT

    def record_socket(self, socket: str | os.PathLike[str]) -> None:
        """Write down where clients connect, for those that look in the usual place. Raises `StoreError`."""
        file, text = self.path / SOCKET_RECORD, os.fsencode(socket) + b"\n"
        try:
            # Nothing is written that is there already: a daemon has to come back on a disk that is full.
            if not (file.exists() and file.read_bytes() == text):
                replace_file(file, text)
        except OSError as error:
            raise _explained(self.path, error) from None

    def prune_input(self, live: frozenset[int]) -> int:
        """Remove the files of attempts whose token is not `live`; return how many. Their names begin with the token."""
        stale = [file for file in self.input.iterdir() if _token(file) not in live]
        for file in stale:
            file.unlink(missing_ok=True)
        return len(stale)

    def in_place(self) -> bool:
        """Whether the directory of that name is still the one that is held, and was not moved, removed or covered."""
        try:
            return os.path.samestat(os.fstat(self._lock), (self.path / LOCK).stat())
        except OSError:
            return False

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock."""
        return self._lock

    def close(self) -> None:
        """Let another daemon have it."""
        os.close(self._lock)


def _token(file: Path) -> int | None:
    first = file.name.partition(".")[0]
    return int(first) if first.isascii() and first.isdigit() else None


def open_state_dir(path: str | os.PathLike[str], *, held: int | None = None) -> StateDir:
    """Make the directory and what belongs in it, and take its lock; `held` is the descriptor of a lock that we hold.

    Raises `StoreLockedError` if another daemon holds it, `StoreError` with advice if it cannot be used.
    """
    directory = Path(path).absolute()
    try:
        directory.mkdir(mode=_MODE, parents=True, exist_ok=True)
        _check(directory)
        lock = _take_lock(directory) if held is None else _keep_lock(directory, held)
        for name in (OUTCOMES, OUTPUT, INPUT):
            (directory / name).mkdir(mode=_MODE, exist_ok=True)
    except OSError as error:
        raise _explained(directory, error) from None
    return StateDir(directory, lock)


def check_writable(directory: Path) -> None:
    """Make sure that the disk of a state directory which is there may be written to. Raises `StoreError`."""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise _explained(directory, OSError(errno.EROFS, os.strerror(errno.EROFS), str(directory)))


def _check(directory: Path) -> None:
    found = directory.stat()
    if found.st_uid not in {0, os.geteuid()}:
        raise StoreError(f"{directory} belongs to another user (uid {found.st_uid}); run the daemon as that user")
    if found.st_mode & _TOO_OPEN:
        raise StoreError(f"others may write to {directory} and so put commands into the queue; chmod 700 {directory}")
    read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    if not read_only and not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise StoreError(f"{directory} may not be written to by its own daemon; chmod 700 {directory}")


def _take_lock(directory: Path) -> int:
    # Python opens files so that no program started later inherits them: a worker that outlives us holds no lock.
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _leave_name(descriptor)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).strip()
        os.close(descriptor)
        who = f" (process {holder.decode()})" if holder.isdigit() else ""
        raise StoreLockedError(f"another daemon{who} holds {directory}") from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _leave_name(descriptor: int) -> None:
    """Write down who holds the lock, for those who ask."""
    name = b"%d\n" % os.getpid()
    try:
        os.pwrite(descriptor, name, 0)
        os.ftruncate(descriptor, len(name))
    except OSError as error:
        # A daemon has to come back on a disk that is full.
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise


def _keep_lock(directory: Path, descriptor: int) -> int:
    """Go on holding a lock that this process took when it was another program."""
    if not os.path.samestat(os.fstat(descriptor), (directory / LOCK).stat()):
        raise StoreError(f"the lock that was handed over is not that of {directory}: start the daemon again")
    # Nothing new for who holds it.
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


_ADVICE: Final = {
    errno.EACCES: "this user may not write there; set QUEUECTL_STATE_DIR to a directory of your own",
    errno.EPERM: "this user may not write there; set QUEUECTL_STATE_DIR to a directory of your own",
    errno.EROFS: "its file system is mounted read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOTDIR: "part of that path is a file, not a directory",
    errno.EEXIST: "there is a file of that name, not a directory",
    errno.ENODEV: "is its file system mounted?",
    errno.EIO: "the device fails; is its file system mounted?",
    errno.ESTALE: "is its file system mounted?",
    errno.ENOTCONN: "is its file system mounted?",
    errno.ENOLCK: "its file system has no locks; use a local one",
    errno.ELOOP: "it is a symbolic link where there must be none",
}


def _explained(directory: Path, error: OSError) -> StoreError:
    advice = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    where = error.filename or directory
    return StoreError(f"the state directory {directory} cannot be used: {advice} ({where}: {error.strerror})")
