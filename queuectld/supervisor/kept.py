"""Processes that commands left running on purpose, and that nobody may end who clears up after something else."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from queuectld.protocol.output import attempt_name
from queuectld.supervisor.groups import Groups, find_groups
from queuectld.worker import cgroups, procfs
from queuectld.worker.kept import DIRECTORY, Kept


class Spared(NamedTuple):
    """What is to be let live: processes, and whatever is marked with one of these attempts."""

    pids: frozenset[int]
    markers: frozenset[bytes]


NOTHING: Final = Spared(frozenset(), frozenset())


def spared_among(
    processes: Collection[procfs.Stat], known: Iterable[tuple[int, int]], fenced: Iterable[int]
) -> frozenset[int]:
    """Decide which processes are kept: the `known`, by number and start time, the `fenced` by cgroups, all below."""
    starts = {process.pid: process.start for process in processes}
    roots = {pid for pid, start in known if starts.get(pid) == start}
    return frozenset(procfs.family(roots.union(fenced), processes))


class KeptProcesses:
    """The files of one store, in which workers wrote down what is kept."""

    def __init__(self, state: Path, store: str, boot_id: str, groups: Groups) -> None:
        """`state` is the state directory, `store` the uuid of the store."""
        self._directory = state / DIRECTORY
        self._store = store
        self._boot_id = boot_id
        self._groups = groups

    def spared(self, processes: Iterable[procfs.Stat] | None = None) -> Spared:
        """Return what is kept of all attempts; `processes` are those of the host, if they are known already."""
        kept = dict(self._read())
        if not kept:
            return NOTHING
        fenced = [pid for token in kept for group in self._groups_of(token) for pid in cgroups.members(group)]
        markers = frozenset(f"{self._store}/{token}".encode() for token in kept)
        known = [one.processes for one in kept.values() if one.boot == self._boot_id]
        everything = procfs.processes() if processes is None else processes
        return Spared(spared_among(list(everything), chain.from_iterable(known), fenced), markers)

    def tokens(self) -> frozenset[int]:
        """Return the attempts that left something."""
        return frozenset(token for token, _ in self._read())

    def drop(self, token: int) -> None:
        """Keep nothing of an attempt."""
        self._file(token).unlink(missing_ok=True)

    def prune(self) -> None:
        """Forget the attempts of which nothing lives any more."""
        for token, kept in self._read():
            if not self._lives(token, kept):
                for group in self._groups_of(token):
                    cgroups.remove(group)
                # Last: who sees that it is forgotten finds nothing of it any more.
                self.drop(token)

    def _lives(self, token: int, kept: Kept) -> bool:
        if kept.boot != self._boot_id:
            return False
        if any(procfs.start_time(pid) == start for pid, start in kept.processes):
            return True
        # What was kept may have had children and ended.
        populated = any(cgroups.members(group) for group in self._groups_of(token))
        return populated or bool(procfs.marked(f"{self._store}/{token}".encode()))

    def _groups_of(self, token: int) -> list[str]:
        return self._groups.all_of_attempt(token)

    def _file(self, token: int) -> Path:
        return self._directory / attempt_name(self._store, token)

    def _read(self) -> Iterator[tuple[int, Kept]]:
        for path in self._directory.glob(f"{self._store}.*"):
            # A file that is no such list was written by nobody.
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                if path.suffix[1:].isdigit():
                    yield int(path.suffix[1:]), msgspec.json.decode(path.read_bytes(), type=Kept)


def prune_of_others(state: Path, store: str, boot_id: str) -> None:
    """Forget, as `KeptProcesses.prune` does, what stores kept that were in this state directory before `store`."""
    names = {path.name.partition(".")[0] for path in (state / DIRECTORY).glob("*.*")}
    for other in names - {store}:
        # Not what a worker is about to give its name.
        if other.isalnum():
            KeptProcesses(state, other, boot_id, find_groups(other, wanted=False)).prune()
