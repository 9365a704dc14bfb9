"""The cgroups of one worker. Its commands begin in the cgroup that it is in, and nothing they start gets out of it.

To move a process costs 25 µs while others are moved too, and 7 ms (15 at the most) after a while of rest: the kernel
waits until no processor looks. A command must not wait so long. So the worker lives in a cgroup of its own, together
with what it runs, one attempt at a time, and leaves it only to kill all the rest: no attempt pays anything. Those that
are watched more closely, or that may leave something behind, have a cgroup of their own (0.2 ms of processor time when
all workers are busy).

Whatever fails here, commands run, contained by their parents and markers as everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from queuectld.worker import cgroups


def enclosure_name(pid: int, start: int) -> str:
    """Return what the cgroup of a worker is called: after its process, and when that started."""
    return f"w{pid}-{start}"


class Enclosure:
    """Where a worker is, and where its commands begin."""

    def __init__(self, root: str, home: str, name: str) -> None:
        """`root` is where the cgroups of workers and attempts are made, `home` the one that we were started in."""
        self._root = root
        self._home = home
        self._own = f"{root}/{name}"
        self._at = home

    @property
    def stranded(self) -> bool:
        """Whether we got into the cgroup of an attempt and not out of it again. No more of them should be run then."""
        return self._at not in {self._own, self._home}

    def settle(self) -> None:
        """Go and live in a cgroup of our own, if possible, and if we do not yet. To be called while nothing runs."""
        if self._at == self._home:
            self._enter(self._own)

    @contextmanager
    def around(self, wanted: str | None) -> Iterator[Group | None]:
        """Have what is started meanwhile begin in the cgroup `wanted`, else in that where we live."""
        before = self._at
        if wanted is not None and not self.stranded and self._enter(wanted):
            try:
                yield Group(self, wanted)
            finally:
                self._back(before)
        else:
            yield None if before == self._home else Group(self, before)

    def over(self, group: Group | None) -> None:
        """Clean up behind an attempt of which nothing is left, or nothing that is not kept."""
        if group is not None and group.directory != self._own:
            cgroups.remove(group.directory)
        self.settle()

    def leave(self) -> None:
        """Clean up behind ourselves, at the end."""
        if self.get_out(self._own):
            cgroups.remove(self._own)

    def is_in(self, directory: str) -> bool:
        """Whether we are there ourselves."""
        return self._at == directory

    def get_out(self, directory: str) -> bool:
        """Be anywhere but there, if possible; return whether we are."""
        if self._at == directory:
            self._move(self._home)
        return self._at != directory

    def _enter(self, directory: str) -> bool:
        try:
            cgroups.make(self._root)
            cgroups.make(directory)
        except OSError:
            return False
        if not self._move(directory):
            cgroups.remove(directory)
            return False
        return True

    def _back(self, before: str) -> None:
        if not self._move(before):
            self._move(self._home)

    def _move(self, directory: str) -> bool:
        try:
            cgroups.enter(directory)
        except OSError:
            return False
        self._at = directory
        return True


class Group:
    """The cgroup that an attempt began in."""

    def __init__(self, enclosure: Enclosure, directory: str) -> None:
        """`enclosure` may be in it too."""
        self._enclosure = enclosure
        self.directory = directory

    def empty(self) -> bool:
        """Whether nothing lives in it. Where we live too, having no child is the proof, and this says nothing."""
        if self._enclosure.is_in(self.directory):
            return True
        try:
            return not cgroups.populated(self.directory)
        except OSError:
            # What cannot be seen must not hold up an attempt forever.
            return True

    def members(self) -> list[int]:
        """Return the processes in it but ourselves."""
        return [pid for pid in cgroups.members(self.directory) if pid != os.getpid()]

    def kill(self) -> None:
        """SIGKILL everything in it but ourselves, at one stroke."""
        if self._enclosure.get_out(self.directory):
            cgroups.kill(self.directory)
