"""QueueCTL as it is installed as a service, in a machine in the machine; seen from outside, where that is quicker."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from tests.log_schema import check_log
from tests.sysbox.box import Box
from tests.system.waiting import wait_for
from tests.system.wire import Wire

UNIT = "queuectld.service"
PROGRAMS = f"{sys.prefix}/bin"
MARKER = b"QUEUECTL_ATTEMPT_TOKEN="
CONFIG = """
workers = 2
shutdown_grace = 0
kill_after = 0.5
max_kill_after = 1
"""
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

    # What the machine is booted with.
    files: ClassVar = {"/etc/queuectl/queuectld.toml": CONFIG}
    queuectl_program = f"{PROGRAMS}/queuectl"
    scope = "--system"
    socket = "run/queuectl/queuectl.sock"
    state = "/var/lib/queuectl"
    config = "/etc/queuectl/queuectld.toml"
    # Where units are changed until the next boot.
    passing_units = "/run/systemd/system"
    place = "/var/tmp"

    def __init__(self, box: Box) -> None:
        self.box = box

    # What an administrator does.

    def install(self) -> str:
        return self.shell(f"{self.queuectl_program} daemon install 2>&1")

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.box.run(*self.as_whose_it_is(shlex.join(["systemctl", *words])), check=check)

    def systemctl_in_background(self, *words: str) -> subprocess.Popen[bytes]:
        return self.box.start(*self.as_whose_it_is(shlex.join(["exec", "systemctl", *words])))

    def queuectl(self, *words: str, check: bool = True) -> str:
        return self.shell(shlex.join([self.queuectl_program, *words]), check=check)

    def shell(self, line: str, *, check: bool = True) -> str:
        return self.box.run(*self.as_whose_it_is(line), check=check)

    def as_whose_it_is(self, line: str) -> list[str]:
        """Return the arguments by which its owner runs a line of the shell."""
        return ["env", "-u", "QUEUECTL_HOST", "HOME=/root", "sh", "-c", line]

    def write(self, path: str, text: str) -> None:
        self.shell(f"mkdir -p $(dirname {path}) && printf %s {shlex.quote(text)} >{path}")

    def set(self, line: str) -> None:
        """Add a line to the configuration, until `restore`."""
        self.shell(f"echo {shlex.quote(line)} >>{self.config}")

    def reconfigure(self, name: str, text: str) -> None:
        """Put a drop-in beside the unit, until `restore`."""
        self.write(f"{self.passing_units}/{UNIT}.d/{name}.conf", text)
        self.systemctl("daemon-reload")

    def restore(self) -> None:
        """Have it run, with nothing of the test before."""
        self.shell(f"rm -rf {self.passing_units}/{UNIT}.d")
        self.write(self.config, CONFIG)
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

    def daemons(self) -> set[int]:
        """Return the processes of the program `queuectld`."""
        found = {pid: _read(place / "cmdline").split(b"\0") for pid, place in self.box.processes().items()}
        return {pid for pid, words in found.items() if f"{PROGRAMS}/queuectld".encode() in words[:2]}

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


USER = "alice"
HOME = f"/home/{USER}"
# A log-in as at a terminal: PAM tells logind, which starts the user's own manager. It ends when it is stopped.
LOG_IN = "systemd-run --quiet --unit=login-{} --uid={} --property=PAMName=login sleep infinity"


class UserService(Service):
    """The service of a user, told by himself."""

    files: ClassVar = {
        # Not the ten seconds in which most people log in again.
        "/etc/systemd/logind.conf.d/test.conf": "[Login]\nUserStopDelaySec=0\n",
    }
    scope = "--user"
    state = f"{HOME}/.local/state/queuectl"
    config = f"{HOME}/.config/queuectl/queuectld.toml"

    def __init__(self, box: Box) -> None:
        super().__init__(box)
        self.sessions = 0
        for unit in ("dbus.service", "systemd-logind.service"):
            box.run("systemctl", "start", unit)
        box.run("useradd", "--create-home", USER)
        # It is there before him where something is bound into it.
        box.run("chown", "--recursive", f"{USER}:", HOME)
        self.uid = box.run("id", "-u", USER)
        self.socket = f"run/user/{self.uid}/queuectl/queuectl.sock"
        self.passing_units = f"/run/user/{self.uid}/systemd/user"
        self.write(self.config, CONFIG)

    def install(self) -> str:
        if not self.has_manager:
            self.lingers(whether=True)
            self.wait_for_manager()
        return super().install()

    def as_whose_it_is(self, line: str) -> list[str]:
        env = [f"HOME={HOME}", f"XDG_RUNTIME_DIR=/run/user/{self.uid}", "PATH=/usr/bin:/bin"]
        user = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups"]
        return [*user, "env", "-i", "-C", HOME, *env, "sh", "-c", line]

    def systemctl(self, *words: str, check: bool = True) -> str:
        return super().systemctl("--user", *words, check=check)

    def systemctl_in_background(self, *words: str) -> subprocess.Popen[bytes]:
        return super().systemctl_in_background("--user", *words)

    def of_systemd(self) -> str:
        return self.box.run("journalctl", "--no-pager", "--output", "cat", f"USER_UNIT={UNIT}")

    def log_in(self) -> None:
        self.sessions += 1
        self.box.run("sh", "-c", LOG_IN.format(self.sessions, USER))
        self.wait_for_manager()

    def log_out(self) -> None:
        self.box.run("systemctl", "stop", "login-*.service")

    def lingers(self, *, whether: bool) -> None:
        self.box.run("loginctl", "enable-linger" if whether else "disable-linger", USER)

    def wait_for_manager(self) -> None:
        def runs() -> bool:
            return self.systemctl("is-system-running", check=False) in {"running", "degraded"}

        wait_for(runs, "his manager runs")

    @property
    def has_manager(self) -> bool:
        return self.box.run("systemctl", "is-active", f"user@{self.uid}.service", check=False) != "inactive"


def completed_once(service: Service, name: str) -> None:
    """Let a long job go: it has gone on, whatever happened to the daemon."""
    service.let_go(name)
    service.wait_for_state(name, "completed")
    assert (service.runs(name), len(service.history(name))) == (1, 1)


def completed_the_second_time(service: Service, name: str, reason: str = "interrupted") -> None:
    """Let a long job go: it was given back, and no retry was spent."""
    service.let_go(name)
    service.wait_for_state(name, "completed")
    assert [attempt["reason"] for attempt in service.history(name)] == [reason, "exited"]
    assert service.job(name)["retries_left"] == service.job(name)["max_retries"]


def nothing_is_left(service: Service) -> None:
    """After a test: it runs, once, and nothing else does but workers without a job."""
    service.restore()
    service.wait_until_nothing_is_left()
    assert service.shown("ActiveState") == "active"
    wait_for(lambda: service.daemons() == {service.pid}, "there is one daemon")


def in_order(service: Service) -> None:
    """At the end: nothing failed that nobody foresaw, and a copy made while the daemon runs passes the check."""
    copy = f"/tmp/copy-{os.urandom(4).hex()}"
    queuectld = f"{PROGRAMS}/queuectld {service.scope}"
    said = service.shell(f"{queuectld} db backup {copy} && {queuectld} db check {copy}")

    assert said.endswith("is in order."), said
    assert {line["event"] for line in service.log()}.isdisjoint({"uncaught", "request.failed", "library.warning"})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
