"""Processes, as /proc and the kernel know them. Light on purpose: workers and the supervisor both stand on it.

A process is named by its number and its start time (clock ticks since boot), since numbers are used again. All of this
must expect a process to vanish between two calls, so "gone" is an answer here and never an error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MARKER_VARIABLE: Final = "QUEUECTL_ATTEMPT_TOKEN"
# States of /proc/N/stat in which a process runs nothing any more and only waits to be reaped.
_DEAD: Final = frozenset({"Z", "X", "x"})
# 52 numbers of at most 20 digits and a name of at most 64 bytes are less.
_STAT_SIZE: Final = 2048
_PR_SET_CHILD_SUBREAPER: Final = 36
# Connections that may wait to be accepted: more than there can be workers.
_BACKLOG: Final = 1024

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Stat(NamedTuple):
    """One process. `start` is in clock ticks since boot."""

    pid: int
    name: str
    state: str
    ppid: int
    pgrp: int
    session: int
    start: int

    @property
    def alive(self) -> bool:
        """Whether it still runs something: a zombie does not."""
        return self.state not in _DEAD


def stat(pid: int) -> Stat | None:
    """Return what is known of a process, zombies included, or None if there is no such process."""
    try:
        line = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name is in parentheses and may contain anything, parentheses and spaces included.
    before, _, after = line.rpartition(b")")
    if not after:
        return None
    fields = after.split()
    return Stat(
        pid=pid,
        name=before.partition(b"(")[2].decode(errors="replace"),
        state=fields[0].decode(),
        ppid=int(fields[1]),
        pgrp=int(fields[2]),
        session=int(fields[3]),
        start=int(fields[19]),
    )


def _read(path: str) -> bytes:
    # A file object would cost twice the system calls, and this is part of the start of every command.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _STAT_SIZE)
    finally:
        os.close(descriptor)


def start_time(pid: int) -> int | None:
    """Return when a living process started, in clock ticks since boot; None if it is gone. A zombie counts as gone."""
    found = stat(pid)
    return found.start if found and found.alive else None


def processes() -> Iterator[Stat]:
    """Yield every process of the host, zombies included."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := stat(int(entry))):
            yield found


def family(roots: Iterable[int], everything: Iterable[Stat]) -> set[int]:
    """Return these processes and all that are below them, on ways that lead through `everything` alone."""
    children: dict[int, list[int]] = {}
    for process in everything:
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def marked(marker: bytes) -> list[int]:
    """Return the processes whose environment names this attempt, ``<store uuid>/<token>``.

    Exactly: the token 1 does not match 11. Processes of others, whose environment may not be read, are passed over, and
    so are zombies, which have none; and one that is just executing a new program has none for a moment, so ask twice.
    """
    wanted = b"\0" + MARKER_VARIABLE.encode() + b"=" + marker + b"\0"
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and wanted in _environ(entry)]


def marker(pid: int) -> bytes | None:
    """Return the attempt that the environment of a process names; None if it names none, or may not be read."""
    _, found, rest = _environ(str(pid)).partition(b"\0" + MARKER_VARIABLE.encode() + b"=")
    return rest.partition(b"\0")[0] if found else None


def _environ(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return b"\0" + file.read() + b"\0"
    except OSError:
        return b""


def command_line(pid: int) -> list[bytes]:
    """Return the words that a process was started with; none if it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return file.read().split(b"\0")[:-1]
    except OSError:
        return []


def users(pid: int) -> frozenset[int]:
    """Return the users that a process is, real, effective and saved; none if it is gone.

    Whoever starts a program that makes him another is still the real one, and may have given it any words.
    """
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            _, _, rest = file.read().partition(b"\nUid:")
            return frozenset(map(int, rest.partition(b"\n")[0].split()[:3]))
    except OSError:
        return frozenset()


def boot_id() -> str:
    """Return what names this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def become_subreaper() -> None:
    """Let orphaned descendants become our children, wherever they fled to. Raises `OSError`."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def signal_process(pid: int, start: int, number: int) -> bool:
    """Send a signal to the process of that number and start time; return False if that one is gone.

    The descriptor is opened before the start time is read, so the signal cannot reach a process that took over the
    number. Raises `PermissionError` if the process is not ours to signal.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(pid) != start:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def connect_unix(directory: str, name: str) -> socket.socket:
    """Connect to the socket `name` in `directory`, however long its path is. Raises `OSError`.

    Never waits: a listener whose queue is full is an error too. What is returned does not block either.
    """
    with _short(directory) as place:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.connect(f"{place}/{name}")
        except BaseException:
            connection.close()
            raise
    return connection


def bind_unix(directory: str, name: str, mode: int = 0o600) -> socket.socket:
    """Listen on the socket `name` in `directory`, however long its path is, replacing one that a dead daemon left.

    The mode is set before anybody can connect. Raises `OSError`.
    """
    with _short(directory) as place:
        path = f"{place}/{name}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, mode)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    return listener


@contextlib.contextmanager
def _short(directory: str) -> Iterator[str]:
    # The path of a socket is limited to 107 bytes; a directory of any depth fits in through its descriptor.
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
