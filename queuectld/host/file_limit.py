"""How many files the daemon may have open: one a connection, so as many as the host allows."""

from __future__ import annotations

import resource
from typing import Final, NamedTuple

# Files for the store, its log, and the pipes and descriptors of workers.
_OURS: Final = 1024


class FileLimit(NamedTuple):
    """A limit on open files, as the kernel has it."""

    soft: int
    hard: int

    @property
    def clients(self) -> int:
        """How many connections may be open, so that the store and a few hundred workers have what they need, too."""
        # Linux knows no infinity here: the limit is a number.
        return max(self.hard // 2, self.hard - _OURS)

    def restore(self, pid: int = 0) -> None:
        """Hold a process to this limit (0: our own): programs that use select() break where more is allowed."""
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.soft, self.hard))


def raise_file_limit() -> FileLimit:
    """Allow this process as many files as it may have; return what was allowed before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return FileLimit(soft, hard)
