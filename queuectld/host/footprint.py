"""What the daemon takes up on its host."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from queuectld.figures.picture import Footprint


def footprint(database: Path) -> Footprint:
    """Look at the files of the database, its disk, and this process. Asks the disk: not for the loop."""
    system = _system(database.parent)
    return Footprint(
        database=_size(database),
        log=_size(database.with_name(f"{database.name}-wal")),
        disk_free=None if system is None else system.f_bavail * system.f_frsize,
        disk_size=None if system is None else system.f_blocks * system.f_frsize,
        cpu_seconds=sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
        memory=_resident(),
        open_files=len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208  (names are enough; one is that of the look)
        most_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def _size(path: Path) -> int | None:
    # By name: a descriptor of the database, closed, would drop the locks of SQLite.
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # Between two starts of the log.
        return 0
    except OSError:
        return None


def _system(directory: Path) -> os.statvfs_result | None:
    try:
        return os.statvfs(directory)
    except OSError:
        return None


def _resident() -> int:
    pages = Path("/proc/self/statm").read_bytes().split()[1]
    return int(pages) * resource.getpagesize()
