"""A `queuectld` that is installed as a script, and can be replaced by another one, as an upgrade does."""

from __future__ import annotations

import sys

from tests.system.livedaemon import LiveDaemon

_SCRIPT = """#!{python} -P
import os, sys, time
from pathlib import Path
{before}
from queuectld.main import run
run()
"""


class Installation:
    """The script that a daemon is started by. What stands in `before` runs first; `checking` is true in a check."""

    def __init__(self, daemon: LiveDaemon) -> None:
        self.script = daemon.home / "bin" / "queuectld"
        self.script.parent.mkdir()
        self.gate = daemon.home / "begin"
        self.arrived = daemon.home / "arrived"
        self.install()
        daemon.program = (str(self.script),)

    def install(self, before: str = "") -> None:
        """Put this version in the place of the one before."""
        draft = self.script.with_suffix(".new")
        checking = 'checking = "--check" in sys.argv'
        draft.write_text(_SCRIPT.format(python=sys.executable, before=f"{checking}\n{before}"))
        draft.chmod(0o755)
        draft.replace(self.script)

    def install_slow(self) -> None:
        """Install one that passes its check, and then does nothing before `open`."""
        self.install(
            "if not checking:\n"
            f"    Path({str(self.arrived)!r}).touch()\n"
            f"    while not Path({str(self.gate)!r}).exists(): time.sleep(0.01)\n"
        )

    def open(self) -> None:
        """Let a slow one begin."""
        self.gate.touch()
