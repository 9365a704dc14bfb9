"""Cgroups (version 2) as directories: where ours is, and what can be done with one that is ours.

A cgroup holds whatever was started in it and never left, however it fled from its parents: with a session of its own,
twice forked, its environment cleared. Used without controllers it needs no rights but those on the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from collections.abc import Iterator
from typing import Final

# By these a service manager says that what is below a cgroup is not its own any more.
_DELEGATED: Final = ("user.delegate", "trusted.delegate")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
# There is no such directory; or there was, and it went away after the file in it was opened.
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV})
_BLOCK: Final = 1 << 16


# Where.


def own() -> str | None:
    """Return the directory of the cgroup that this process is in; None where there is none, or none to be seen."""
    path = _path()
    if path is None:
        return None
    for root, mount in _mounts():
        base = root.rstrip("/")
        if path == root or path.startswith(f"{base}/"):
            directory = os.path.normpath(f"{mount}/{path[len(base) :]}")
            # Namespaces can make it look right and be wrong.
            if os.getpid() in _pids(directory):
                return directory
    return None


def _path() -> str | None:
    with contextlib.suppress(OSError):
        for line in _read("/proc/self/cgroup").splitlines():
            if line.startswith("0::/"):
                return line[3:]
    return None


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield what part of the hierarchy is mounted where; of mounts upon each other the last one counts."""
    for line in reversed(_read("/proc/self/mountinfo").splitlines()):
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            words = fields.split(" ")
            yield _plain(words[3]), _plain(words[4])


def _plain(path: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), path)


def delegated(directory: str) -> bool:
    """Whether a service manager has left a cgroup to whoever runs in it, controllers included."""
    for name in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"1":
                return True
    return False


# What can be done with one.


def make(directory: str) -> None:
    """Make a cgroup, unless it is there. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory)


def enter(directory: str) -> None:
    """Move this process there; what it starts from now on begins there. Raises `OSError`."""
    _write(f"{directory}/cgroup.procs", b"0")


def populated(directory: str) -> bool:
    """Whether anything lives in it or below; a zombie does not. What is not there is empty. Raises `OSError`."""
    try:
        return "populated 1" in _read(f"{directory}/cgroup.events")
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise


def below(directory: str) -> Iterator[str]:
    """Yield a cgroup and all that are below it, parents first."""
    yield directory
    try:
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for child in children:
        yield from below(child)


def members(directory: str) -> list[int]:
    """Return the processes in it and below it."""
    return [pid for place in below(directory) for pid in _pids(place)]


def kill(directory: str) -> None:
    """SIGKILL everything in it and below, at one stroke: nothing escapes by forking. Nothing happens if it is gone."""
    try:
        _write(f"{directory}/cgroup.kill", b"1")
    except OSError:
        # Before Linux 5.14; whoever asks looks whether it is empty, and comes back.
        for pid in members(directory):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def remove(directory: str) -> bool:
    """Remove it with all below, as far as they are empty; return whether it is gone."""
    for place in reversed(list(below(directory))):
        with contextlib.suppress(OSError):
            os.rmdir(place)
    return not os.path.isdir(directory)


# Controllers.


def controllers(directory: str) -> list[str]:
    """Return the controllers that can be used in it; none where there is no cgroup. `enable` passes them on."""
    try:
        return _read(f"{directory}/cgroup.controllers").split()
    except OSError:
        return []


def enable(directory: str, names: list[str]) -> None:
    """Let the cgroups below it use these controllers, which must be its own. Raises `OSError`.

    From then on no process may be in it itself. Where that is so for the cgroup of a service, the service manager
    cannot start the service again as long as anything is left below.
    """
    if names:
        _write(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in names).encode())


# What controllers tell and do. Without the controller, or without a cgroup, there is no such file.


def cpu_seconds(directory: str) -> float | None:
    """Return the seconds of processor time of all that ever ran in a cgroup."""
    found = _field(f"{directory}/cpu.stat", "usage_usec")
    return None if found is None else found / 1e6


def oom_kills(directory: str) -> int | None:
    """Return how many processes of a cgroup the kernel has killed for want of memory."""
    return _field(f"{directory}/memory.events", "oom_kill")


def confine(directory: str, most: int) -> bool:
    """Let the kernel hold a cgroup to so many bytes of memory; return whether it does.

    It kills all of it at once: half a tree is of no use. Swap would put the end off, and take the host along. Not where
    we are in it ourselves.
    """
    if os.getpid() in _pids(directory) or not _wrote(f"{directory}/memory.max", b"%d" % most):
        return False
    _wrote(f"{directory}/memory.oom.group", b"1")
    _wrote(f"{directory}/memory.swap.max", b"0")
    return True


# Inside.


def _field(path: str, name: str) -> int | None:
    try:
        fields = dict(line.split(" ", 1) for line in _read(path).splitlines())
        return int(fields[name])
    except (OSError, KeyError, ValueError):
        return None


def _wrote(path: str, data: bytes) -> bool:
    try:
        _write(path, data)
    except OSError:
        return False
    return True


def _pids(directory: str) -> list[int]:
    try:
        # A zero is a process of another namespace.
        return [pid for pid in map(int, _read(f"{directory}/cgroup.procs").split()) if pid]
    except OSError:
        return []


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while data := os.read(descriptor, _BLOCK):
            parts.append(data)
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="surrogateescape")


def _write(path: str, data: bytes) -> None:
    # Never made: in a directory that is no cgroup this must not look like success.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
