"""A real supervisord that keeps a daemon up by the section that is shipped."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

from tests.system import processes
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

PROGRAMS = ("supervisord", "supervisorctl")
SECTION = Path(__file__).parents[2] / "deploy" / "supervisor" / "queuectld.conf"
CONFIG = """
[unix_http_server]
file={home}/supervisor.sock
[supervisord]
logfile={home}/supervisord.log
pidfile={home}/supervisord.pid
nodaemon=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/supervisor.sock
"""


def missing() -> str:
    """Say what is not installed; nothing if all is there."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(lacking)} is not installed; Debian has it in supervisor" if lacking else ""


def section(daemon: LiveDaemon) -> str:
    """Return the section as shipped, but for the places of this test."""
    text = SECTION.read_text()
    for key, value in {"command": " ".join(daemon.program), "stderr_logfile": daemon.log}.items():
        text, found = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
        assert found == 1, key
    return re.sub(r"^user=.*\n", "", text, flags=re.MULTILINE)


class Supervisord:
    """Starts and stops the daemon in the place of its test."""

    def __init__(self, daemon: LiveDaemon) -> None:
        self.daemon = daemon
        self._file = daemon.home / "supervisord.conf"
        self._file.write_text(CONFIG.format(home=daemon.home) + section(daemon))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with (self.daemon.home / "supervisord.out").open("ab") as out:
            self.process = subprocess.Popen(
                ["supervisord", "-c", self._file],
                env=self.daemon.env,
                cwd=self.daemon.home,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        wait_for(lambda: "queuectld" in self.ctl("status"), "supervisord answers")
        return self

    def started(self) -> Self:
        """Start it, and wait until the daemon answers."""
        self.start()
        wait_for(self.answers, f"the daemon answers: {self.daemon.log_tail()}")
        return self

    def answers(self) -> bool:
        try:
            self.daemon.wire().close()
        except OSError:
            return False
        return True

    def ctl(self, *words: str) -> str:
        done = subprocess.run(
            ["supervisorctl", "-c", self._file, *words], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def state(self) -> str:
        """Return RUNNING, EXITED, STOPPED, …"""
        return self.ctl("status", "queuectld").split()[1]

    def pid(self) -> int:
        return int(self.ctl("pid", "queuectld"))

    def told(self) -> str:
        """Return its own log."""
        return (self.daemon.home / "supervisord.log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End it with the daemon."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def daemons(daemon: LiveDaemon) -> list[int]:
    """Return the processes of this place that are daemons."""
    return [one.pid for one in processes.of(daemon.home) if "queuectld.main" in one.command]
