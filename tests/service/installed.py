"""QueueCTL as it is installed as a service, in a machine in the machine; seen from outside, where that is quicker."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.log_schema import check_log
from tests.sysbox.box import Box
from tests.system.waiting import wait_for
from tests.system.wire import Wire

UNIT = "queuectld.service"
PROGRAMS = f"{sys.prefix}/bin"
MARKER = b"QUEUECTL_ATTEMPT_TOKEN="
# Quick to lose patience, so that tests are.
DROP_IN = """
[Service]
WatchdogSec=2
TimeoutAbortSec=1
"""
CONFIG = """
workers = 2
shutdown_grace = 0
kill_after = 0.5
max_kill_after = 1
"""
FILES = {
    f"/etc/systemd/system/{UNIT}.d/90-test.conf": DROP_IN,
    "/etc/queuectl/queuectld.toml": CONFIG,
}
# Marked by nothing but its name.
SLEEPER = "sleep 1234567"
# Goes on until it is let, and leaves something of itself that flees.
LONG = """
echo run >>{0}.runs
(cd /; setsid env -i {1} &)
until [ -e {0}.go ]; do sleep 0.02; done
"""


class Service:
    """The service of the system."""

    queuectl_program = f"{PROGRAMS}/queuectl"
    socket = "run/queuectl/queuectl.sock"
    state = "/var/lib/queuectl"

    def __init__(self, box: Box) -> None:
        self.box = box

    # What an administrator does.

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.box.run("systemctl", *words, check=check)

    def systemctl_in_background(self, *words: str) -> subprocess.Popen[bytes]:
        return self.box.start("systemctl", *words)

    def queuectl(self, *words: str, check: bool = True) -> str:
        return self.shell(shlex.join([f"{PROGRAMS}/queuectl", *words]), check=check)

    def shell(self, line: str, *, check: bool = True) -> str:
        return self.box.run("env", "-u", "QUEUECTL_HOST", "HOME=/root", "sh", "-c", line, check=check)

    def reconfigure(self, name: str, text: str) -> None:
        """Put a drop-in beside the unit, until `restore`."""
        place = f"/run/systemd/system/{UNIT}.d"
        self.box.run("sh", "-c", f"mkdir -p {place} && printf %s {shlex.quote(text)} >{place}/{name}.conf")
        self.systemctl("daemon-reload")

    def restore(self) -> None:
        """Have it run, with nothing of the test before."""
        self.box.run("rm", "-rf", f"/run/systemd/system/{UNIT}.d")
        self.box.run("sh", "-c", f"cat >/etc/queuectl/queuectld.toml <<'.'\n{CONFIG}\n.")
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", check=False)
        self.systemctl("start", "queuectld.socket", UNIT)

    # What is seen.

    def shown(self, name: str, unit: str = UNIT) -> str:
        return self.systemctl("show", "--property", name, "--value", unit)

    @property
    def pid(self) -> int:
        return int(self.shown("MainPID"))

    def wire(self) -> Wire:
        return Wire(self.box.root / self.socket)

    def job(self, name: str) -> dict[str, Any]:
        with self.wire() as wire:
            return wire.job(name)

    def history(self, name: str) -> list[dict[str, Any]]:
        with self.wire() as wire:
            return wire.history(name)

    def wait_for_state(self, name: str, state: str) -> None:
        wait_for(lambda: self.job(name)["state"] == state, f"job {name} is {state}")

    def wait_until(self, name: str, value: str, unit: str = UNIT) -> None:
        wait_for(lambda: self.shown(name, unit) == value, f"{name} of {unit} is {value}")

    def of_jobs(self) -> dict[int, str]:
        """Return workers and all processes of jobs: marked, in a cgroup of a worker, or one that fled on purpose."""
        found = {}
        for pid, place in self.box.processes().items():
            command = _read(place / "cmdline").replace(b"\0", b" ").decode(errors="replace")
            ours = MARKER in _read(place / "environ") or b"/queuectl." in _read(place / "cgroup")
            if ours or "queuectld.worker" in command or command.strip() == SLEEPER:
                found[pid] = command
        return found

    def long_job(self, name: str) -> set[int]:
        """Start a job that goes on until `let_go`; return its processes."""
        before = self._sleepers()
        with self.wire() as wire:
            wire.enqueue(LONG.format(f"{self.place}/{name}", SLEEPER), id=name)
        wait_for(lambda: self.runs(name) == 1, f"job {name} runs")
        wait_for(lambda: self.history(name)[-1]["pid"], "the process is on record")
        return wait_for(lambda: self._sleepers() - before)

    def wait_until_nothing_is_left(self) -> None:
        """Wait until there are no processes of jobs but workers, once no job runs."""
        with self.wire() as wire:
            wait_for(lambda: "processing" not in wire.counts(), "no job runs")
        wait_for(lambda: all("queuectld.worker" in one for one in self.of_jobs().values()), f"left: {self.of_jobs()}")

    def _sleepers(self) -> set[int]:
        return {pid for pid, command in self.of_jobs().items() if command.strip() == SLEEPER}

    @property
    def place(self) -> str:
        return "/var/tmp"

    def runs(self, name: str) -> int:
        file = self.box.root / f"{self.place}/{name}.runs".lstrip("/")
        return len(file.read_text().split()) if file.exists() else 0

    def let_go(self, name: str) -> None:
        (self.box.root / f"{self.place}/{name}.go".lstrip("/")).touch()

    def journal(self) -> str:
        """Return the entries of the journal that are ours, as JSON."""
        return self.box.run("journalctl", "--no-pager", "--output", "json", "--all", "SYSLOG_IDENTIFIER=queuectld")

    def log(self) -> list[dict[str, Any]]:
        """Return what was logged, each line held against its schema."""
        lines = [json.loads(entry)["MESSAGE"] for entry in self.journal().splitlines()]
        return check_log("".join(f"{line}\n" for line in lines if line.startswith("{")).encode())

    def of_systemd(self) -> str:
        """Return what systemd says of it."""
        return self.box.run("journalctl", "--no-pager", "--output", "cat", "_PID=1", f"UNIT={UNIT}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def in_order(service: Service) -> str:
    """Return what the check of the database says, of a copy that is made while the daemon runs."""
    copy = f"/tmp/copy-{os.urandom(4).hex()}"
    service.shell(f"{PROGRAMS}/queuectld --system db backup {copy}")
    return service.shell(f"{PROGRAMS}/queuectld --system db check {copy}")
