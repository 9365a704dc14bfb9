"""The worker's entry: ``python -P -m queuectld.worker --state DIR --store UUID --name w3 --orphan-timeout 60``.

Where there are cgroups: ``--cgroups DIR --home DIR``, see `queuectld.worker.enclosure`.
"""

from __future__ import annotations

import contextlib
import os
import sys

from queuectld.worker import procfs
from queuectld.worker.identity import pass_on_no_capability
from queuectld.worker.loop import WorkerLoop
from queuectld.worker.options import read_options


def main(arguments: list[str]) -> None:
    """Run a worker. Everything it needs has been imported: its files may be replaced while it works."""
    options = read_options(arguments)
    with contextlib.suppress(PermissionError):
        # Already a leader if the daemon started us.
        os.setsid()
    procfs.become_subreaper()
    pass_on_no_capability()
    # Keeps no file system busy; all paths are absolute.
    os.chdir("/")
    WorkerLoop(options).run()


if __name__ == "__main__":
    main(sys.argv[1:])
