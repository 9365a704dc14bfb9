"""Where the lines of the log go: a stream, or a file that can be opened anew. A log that is lost stops nobody."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import Final, Protocol

from queuectld.errors import BadConfigError

# Of syslog, which the journal understands in front of a line.
_PRIORITIES: Final = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>", "critical": b"<2>"}
# Somebody else may own a link of that name, or a pipe that nobody reads.
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A full disk keeps no daemon from starting.
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class Target(Protocol):
    """Takes whole lines, from any thread."""

    def write(self, level: str, line: bytes) -> None:
        """Write a line with its newline. Raises nothing."""


class Sink:
    """What structlog gives its finished lines to."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def _send(self, line: bytes, *, level: str) -> None:
        self._target.write(level, line)

    debug = partialmethod(_send, level="debug")
    info = partialmethod(_send, level="info")
    warning = partialmethod(_send, level="warning")
    error = partialmethod(_send, level="error")
    critical = partialmethod(_send, level="critical")


class Stream:
    """A descriptor. Where the journal reads it, each line begins with its priority."""

    def __init__(self, descriptor: int, *, journal: bool) -> None:
        self._descriptor = descriptor
        self._journal = journal
        # Collecting garbage may log, in the middle of a write.
        self._lock = threading.RLock()

    def write(self, level: str, line: bytes) -> None:
        """Write a line. Raises nothing."""
        if self._journal:
            line = _PRIORITIES[level] + line
        with self._lock, suppress(OSError):
            while line:
                line = line[os.write(self._descriptor, line) :]


class LogFile:
    """A file of the daemon's own. While it cannot be written, lines go to a stream, and each tries the file again.

    What is critical goes to the stream in any case: whoever started us should see it.
    """

    def __init__(
        self,
        path: str,
        mode: int,
        stream: Stream,
        tell: Callable[[str, str | None, int], None],
        *,
        required: bool = True,
    ) -> None:
        """`tell` is called with path, trouble and lines that went elsewhere, when trouble begins and (None) ends.

        Raises `BadConfigError` if the file is `required` and cannot be opened for another reason than a full disk.
        """
        self.path = path
        self._mode = mode
        self._stream = stream
        self._tell = tell
        self._lock = threading.RLock()
        self._descriptor: int | None = None
        self._trouble: str | None = None
        self._missed = 0
        try:
            self._descriptor = open_log(path, mode)
        except OSError as error:
            if required and error.errno not in _PASSING:
                raise unusable(path, error) from None

    def write(self, level: str, line: bytes) -> None:
        """Write a line. Raises nothing."""
        with self._lock:
            before, missed = self._trouble, self._missed
            now = self._trouble = self._put(line)
            self._missed = 0 if now is None else missed + 1
        if now is not None or level == "critical":
            self._stream.write(level, line)
        if (now is None) != (before is None):
            self._tell(self.path, now, missed)

    def reopen(self) -> bool:
        """Open the file of that name that is there now, or make it; return whether it worked. Raises nothing."""
        with self._lock:
            self._close()
            before, trouble = self._trouble, self._put(b"")
            self._trouble = trouble or before
        if trouble is not None and before is None:
            self._tell(self.path, trouble, 0)
        return trouble is None

    def problems(self) -> Sequence[str]:
        """Return what keeps lines from the file."""
        if self._trouble is None:
            return ()
        return (f"the log file {self.path} cannot be written ({self._trouble}): the log goes to standard error",)

    def _put(self, line: bytes) -> str | None:
        """Append a line, all of it or nothing; return what went wrong."""
        try:
            # Nobody could find what is written to a file without a name.
            if self._descriptor is not None and os.fstat(self._descriptor).st_nlink == 0:
                self._close()
            if self._descriptor is None:
                self._descriptor = open_log(self.path, self._mode)
            _append(self._descriptor, line)
        except OSError as error:
            return error.strerror or str(error)
        return None

    def _close(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _append(descriptor: int, line: bytes) -> None:
    written = os.write(descriptor, line)
    if written == len(line):
        return
    start = os.lseek(descriptor, 0, os.SEEK_CUR) - written
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        # Half a line would spoil the next one as well.
        if os.fstat(descriptor).st_size == start + written:
            os.ftruncate(descriptor, start)
        raise


def open_log(path: str, mode: int) -> int:
    """Open a log file to append, or make it with these permissions; return its descriptor. Raises `OSError`."""
    _check_directory(Path(path).parent)
    try:
        descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        descriptor = os.open(path, _FLAGS)
    else:
        # Whatever our umask takes away.
        os.fchmod(descriptor, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return descriptor


def check_log(path: str) -> None:
    """See whether the file could be opened, without doing so. Raises `BadConfigError`."""
    file = Path(path)
    try:
        _check_directory(file.parent)
        found = file.lstat() if file.is_symlink() or file.exists() else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise _no_file(path)
        if not os.access(file.parent if found is None else file, os.W_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except OSError as error:
        raise unusable(path, error) from None


def _check_directory(directory: Path) -> None:
    mode = directory.stat().st_mode
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    if mode & stat.S_IWOTH:
        raise OSError(errno.EPERM, f"others may write to {directory} and could put another file in its place")


def _no_file(path: str) -> OSError:
    return OSError(errno.EINVAL, "it is no regular file", path)


_ADVICE: Final = {
    errno.ENOENT: "its directory does not exist; make it first",
    errno.EACCES: "this user may not write there",
    errno.ELOOP: "it is a symbolic link; name the file itself",
    errno.ENXIO: "it is no regular file",
    errno.ENOTDIR: "part of that path is a file, not a directory",
    errno.EISDIR: "it is a directory",
    errno.EROFS: "its file system is mounted read-only",
}


def unusable(path: str, error: OSError) -> BadConfigError:
    """Return what to tell somebody who named such a log file."""
    why = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return BadConfigError(f"`log_file` {path} cannot be used: {why}", path="log_file")
