"""How many files the daemon may have open: one a connection, so as many as the host allows."""

from __future__ import annotations

import resource
from typing import NamedTuple


class FileLimit(NamedTuple):
    """A limit on open files, as the kernel has it."""

    soft: int
    hard: int

    def restore(self, pid: int) -> None:
        """Hold another process to this limit: programs that use select() break where more is allowed."""
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.soft, self.hard))


def raise_file_limit() -> FileLimit:
    """Allow this process as many files as it may have; return what was allowed before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return FileLimit(soft, hard)
