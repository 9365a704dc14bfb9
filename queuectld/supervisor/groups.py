"""The cgroups of a store: one for each worker and what it runs, and some for single attempts, below one directory.

They lie in the cgroup of the daemon, and get no controllers, since a cgroup whose children have some may hold no
process itself: a service whose cgroup is such a one cannot be started again as long as a worker lives in it. Only
where the service manager puts us into a cgroup below that of our service (`DelegateSubgroup=`), they lie beside ours,
and get those that jobs are held to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from queuectld.protocol.replies import Isolation
from queuectld.worker import cgroups, procfs
from queuectld.worker.enclosure import enclosure_name

# What limits of jobs are kept with.
WANTED: tuple[str, ...] = ("memory",)
# So much of the store's uuid tells stores apart.
_DIGITS: Final = 12
# What does not die within this, at the start, is left for later.
_PATIENCE: Final = 2.0
_PAUSE: Final = 0.002

_WHY_NOT: Final = {
    errno.EROFS: "it is mounted read-only",
    errno.EACCES: "it belongs to another user; under systemd Delegate=yes lets us in",
    errno.EPERM: "it belongs to another user; under systemd Delegate=yes lets us in",
    errno.EAGAIN: "it may have no more cgroups below it",
    errno.EOPNOTSUPP: "it is one of threads",
}


class Groups:
    """Where the cgroups of a store are, or why there are none."""

    def __init__(self, isolation: Isolation, home: str | None, strays: Collection[str] = ()) -> None:
        """`home` is where the daemon is; `strays` are directories of daemons of this store that were elsewhere."""
        self.isolation = isolation
        self.home = home
        self._strays = strays

    @property
    def root(self) -> str | None:
        """The directory that they lie in."""
        return self.isolation.cgroup

    @property
    def _roots(self) -> list[str]:
        return [root for root in (self.root, *self._strays) if root is not None]

    def of_attempt(self, token: int) -> str | None:
        """Return the cgroup that an attempt may have of its own."""
        return None if self.root is None else f"{self.root}/{token}"

    def all_of_attempt(self, token: int) -> list[str]:
        """Return what an attempt may have had of its own, wherever a daemon was."""
        return [f"{root}/{token}" for root in self._roots]

    def of_worker(self, pid: int, start: int) -> str:
        """Return the cgroup that a worker should live in, where there are any."""
        return f"{self.root}/{enclosure_name(pid, start)}"

    def all_of_worker(self, pid: int, start: int) -> list[str]:
        """Return what a worker may have lived in."""
        return [f"{root}/{enclosure_name(pid, start)}" for root in self._roots]

    def sweep(self, *, live: Collection[int], workers: Iterable[tuple[int, int]], spared: Collection[int]) -> None:
        """Kill what is left in cgroups of attempts that are not `live` and of workers that are gone; remove those.

        `workers` are others that may be gone already, and are seen to elsewhere; `spared` are processes to let live.
        """
        busy = {str(token) for token in live} | {enclosure_name(*worker) for worker in workers}
        doomed = [place for root in self._roots for place in _below(root) if not _busy(place, busy)]
        for place in doomed:
            end(place, spared)
        doomed = [place for place in doomed if not spared_in(place, spared)]
        until = time.monotonic() + _PATIENCE
        while (doomed := [place for place in doomed if not cgroups.remove(place)]) and time.monotonic() < until:
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Remove what is empty."""
        for root in self._roots:
            cgroups.remove(root)


def end(directory: str, spared: Collection[int]) -> bool:
    """SIGKILL everything in a cgroup unless something there is to be spared; return whether something lived there."""
    if spared_in(directory, spared):
        return False
    try:
        alive = cgroups.populated(directory)
    except OSError:
        return False
    if alive:
        cgroups.kill(directory)
    return alive


def spared_in(directory: str, spared: Collection[int]) -> bool:
    """Whether any of these processes is in a cgroup."""
    return bool(spared) and not set(cgroups.members(directory)).isdisjoint(spared)


def _below(root: str) -> list[str]:
    try:
        return [entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _busy(place: str, busy: Collection[str]) -> bool:
    name = Path(place).name
    if name in busy:
        return True
    pid, _, start = name.removeprefix("w").partition("-")
    # That of a worker which lives, whether it is known here or not.
    return pid.isdigit() and start.isdigit() and procfs.start_time(int(pid)) == int(start)


# Where they can be.


def find_groups(store: str, *, wanted: bool = True) -> Groups:
    """See whether cgroups can be used, by doing it; `store` is the uuid of the store."""
    home = cgroups.own()
    if home is None:
        return Groups(_none("no cgroup of version 2 is to be seen here"), None)
    name = f"queuectl.{store[:_DIGITS]}"
    above = str(Path(home).parent)
    beside = not cgroups.delegated(home) and cgroups.delegated(above)
    if not wanted:
        return Groups(_none("`cgroups` is `off` in the configuration"), home, _strays(home, name))
    root = f"{above if beside else home}/{name}"
    strays = [stray for stray in _strays(home, name) if stray != root]
    try:
        _try_out(root, home)
    except OSError as error:
        cgroups.remove(root)
        why = _WHY_NOT.get(error.errno or 0, error.strerror)
        return Groups(_none(f"{Path(root).parent} cannot be used: {why}"), home, strays)
    enabled = _enable(root, WANTED) if beside and _started_below(home) else ()
    return Groups(Isolation(cgroup=root, controllers=enabled, reason=None), home, strays)


def _none(reason: str) -> Isolation:
    return Isolation(cgroup=None, controllers=(), reason=reason)


def _try_out(root: str, home: str) -> None:
    probe = f"{root}/probe.{os.getpid()}"
    try:
        cgroups.make(root)
        cgroups.make(probe)
        cgroups.enter(probe)
        cgroups.enter(home)
    finally:
        cgroups.remove(probe)


def _started_below(home: str) -> bool:
    """Whether it is the service manager that starts us in `home`, the next time too, and not we who went there.

    It starts us in the cgroup of the service else, and that fails where one below has a controller and a process.
    """
    service, subgroup = Path(home).parent, Path(home).name
    manager = ["--user"] if "/user@" in home else []
    argv = ["systemctl", *manager, "show", "--property=DelegateSubgroup", "--value", "--", service.name]
    try:
        said = subprocess.run(argv, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout  # noqa: S603  (fixed words)
    except (OSError, subprocess.SubprocessError):
        return False
    return said.strip() == subgroup


def _enable(root: str, wanted: Collection[str]) -> tuple[str, ...]:
    """Enable controllers above our directory and in it, as far as there are any; return those that jobs are held to."""
    parent = str(Path(root).parent)
    with contextlib.suppress(OSError):
        cgroups.enable(parent, [name for name in wanted if name in cgroups.controllers(parent)])
        here = [name for name in wanted if name in cgroups.controllers(root)]
        cgroups.enable(root, here)
        return tuple(here)
    return ()


def _strays(home: str, name: str) -> list[str]:
    """Find the directories of that name all over the hierarchy: a daemon may start where the one before was not."""
    top = Path(home)
    while top.parent != top and (top.parent / "cgroup.procs").exists():
        top = top.parent
    return [place for place in cgroups.below(str(top)) if Path(place).name == name]
