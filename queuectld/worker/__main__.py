"""The worker's entry: ``python -P -m queuectld.worker --state DIR --store UUID --name w3 --orphan-timeout 60``.

Where there are cgroups: ``--cgroups DIR --home DIR``, see `queuectld.worker.enclosure`.
"""

from __future__ import annotations

import contextlib
import os
import sys

from queuectld.worker import procfs
from queuectld.worker.loop import Loop, Options


def main(arguments: list[str]) -> None:
    """Run a worker. Everything it needs has been imported: its files may be replaced while it works."""
    options = read_options(arguments)
    with contextlib.suppress(PermissionError):
        # Already a leader if the daemon started us.
        os.setsid()
    procfs.become_subreaper()
    # Keeps no file system busy; all paths are absolute.
    os.chdir("/")
    Loop(options).run()


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


if __name__ == "__main__":
    main(sys.argv[1:])
