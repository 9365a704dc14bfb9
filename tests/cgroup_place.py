"""A place for the cgroups of a test, beside those of everybody else."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from queuectld.worker import cgroups

PATIENCE = 20.0
_ENCLOSURE = "queuectl-tests."


def home() -> str:
    """Return the cgroup that the tests run in; skips where nothing can be made below it."""
    import pytest  # noqa: PLC0415  (the benchmark uses this module, too, and is run without the test packages)

    found = cgroups.own()
    if found is None:
        pytest.skip("no cgroup of version 2 is to be seen here")
    if not os.access(f"{found}/cgroup.procs", os.W_OK):
        pytest.skip(f"{found} is not ours to write to")
    return found


def top() -> str:
    """Return where the hierarchy is mounted."""
    found = Path(cgroups.own() or home())
    while found.parent.stat().st_dev == found.stat().st_dev:
        found = found.parent
    return str(found)


def there(directory: str) -> bool:
    """Whether there is such a cgroup."""
    return Path(directory).exists()


def sleeper(directory: str) -> subprocess.Popen[bytes]:
    """Start a process that lives in a cgroup."""
    script = f"echo $$ >{directory}/cgroup.procs && exec sleep 1000"
    started = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{started.pid}/comm").read_text() != "sleep\n":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return started


@contextmanager
def place(name: str) -> Iterator[str]:
    """Name a cgroup that is not there yet, and see at the end that it is gone, with all that lived in it."""
    directory = f"{home()}/{name}"
    try:
        yield directory
    finally:
        end(directory)


@contextmanager
def enclosed() -> Iterator[Callable[[], list[str]]]:
    """Live in a cgroup of our own, with all that is started meanwhile; yields what lists the cgroups below it.

    Nothing is left of it at the end. Where none can be made, there are none below, either.
    """
    outside = cgroups.own()
    if outside is None or not os.access(f"{outside}/cgroup.procs", os.W_OK):
        yield list
        return
    # Those of runs that were killed.
    for stale in Path(outside).glob(f"{_ENCLOSURE}*"):
        if not Path(f"/proc/{stale.name.removeprefix(_ENCLOSURE)}").exists():
            end(str(stale))
    inside = f"{outside}/{_ENCLOSURE}{os.getpid()}"
    cgroups.make(inside)
    cgroups.enter(inside)
    try:
        yield lambda: list(cgroups.below(inside))[1:]
    finally:
        cgroups.enter(outside)
        end(inside)


def end(directory: str) -> None:
    """Kill all that lives in a cgroup, and remove it."""
    cgroups.kill(directory)
    deadline = time.monotonic() + PATIENCE
    while not cgroups.remove(directory):
        assert time.monotonic() < deadline, f"{directory} does not become empty"
        time.sleep(0.005)


def roots(pids: Iterable[int], state: Path) -> set[str]:
    """Return where daemons with that state directory have their cgroups: told by their workers, and by their store."""
    found = cgroups.own()
    if found is None:
        return set()
    names = {name for pid in pids if (name := _root_of(pid))}
    database = state / "queue.db"
    # A test may have spoilt it.
    with (
        contextlib.suppress(sqlite3.Error, TypeError),
        contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db,
    ):
        (uuid,) = db.execute("SELECT uuid FROM store").fetchone()
        names.add(f"{found}/queuectl.{uuid[:12]}")
    return names


def _root_of(pid: int) -> str | None:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    path = next((Path(line[3:]) for line in lines if line.startswith("0::")), Path())
    root = next((place for place in path.parents if place.name.startswith("queuectl.")), None)
    return None if root is None else f"{top()}{root}"
