"""What holds jobs back until the test lets them go on."""

from __future__ import annotations

from pathlib import Path


class Gate:
    """A file that the shells of jobs look for: any number of them, in any process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # Shells of jobs look every 20 ms: short enough to be no wait, long enough to be no load.
    def wait(self) -> str:
        """Return the shell command that waits until the gate is open."""
        return f"until [ -e {self.path} ]; do sleep 0.02; done"

    def open(self) -> None:
        self.path.touch()
