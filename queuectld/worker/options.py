"""The command line of a worker: how the daemon starts one, what it reads there, and how it is found again by it."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from queuectld.worker import procfs

_PROGRAM: Final = ("-P", "-m", "queuectld.worker")


class Options(NamedTuple):
    """What a worker is told. Paths are absolute, `orphan_timeout` is in seconds."""

    # The state directory, and the uuid of the store that its attempts belong to.
    state: str
    store: str
    name: str
    orphan_timeout: float
    # Where cgroups for workers and attempts are made, and the one that the daemon is in; None: nowhere.
    cgroups: str | None = None
    home: str | None = None

    def words(self) -> list[str]:
        """Return what stands behind the name of the Python that runs it."""
        words = [*_PROGRAM, "--state", self.state, "--store", self.store]
        words += ["--name", self.name, "--orphan-timeout", str(self.orphan_timeout)]
        if self.cgroups is not None and self.home is not None:
            words += ["--cgroups", self.cgroups, "--home", self.home]
        return words


def read_options(arguments: list[str]) -> Options:
    """Read the command line. Raises `SystemExit` if it is not what a daemon says."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    try:
        return Options(
            state=os.path.abspath(given["--state"]),
            store=given["--store"],
            name=given["--name"],
            orphan_timeout=float(given["--orphan-timeout"]),
            cgroups=given.get("--cgroups"),
            home=given.get("--home"),
        )
    except (KeyError, ValueError) as error:
        raise SystemExit(f"a worker is started by queuectld, not by hand: {error}") from error


def store_served_by(pid: int, state: str) -> str | None:
    """Return the store of a process that is a worker of this user and state directory; None if it is none.

    The directory may have been called by another name then, through a link or a mount.
    """
    words = [os.fsdecode(word) for word in procfs.command_line(pid)]
    if words[1:4] != [*_PROGRAM] or words[4:7:2] != ["--state", "--store"] or procfs.users(pid) != {os.geteuid()}:
        return None
    return words[7] if len(words) > 7 and _same_place(words[5], state) else None


def _same_place(one: str, other: str) -> bool:
    try:
        return one == other or os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
