"""A real daemon with a state directory of its own: started, killed, stopped, and nothing of it left at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests import cgroup_place
from tests.log_schema import check_log
from tests.system import processes
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError, Wire

DAEMON = (sys.executable, "-P", "-m", "queuectld.main")
CLI = (sys.executable, "-P", "-m", "queuectl_cli.main")
# Where `queuectl` and `queuectld` are installed.
PROGRAMS = Path(sys.executable).parent


class Ran(NamedTuple):
    """What became of a command line."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else f'"{value}"'


class LiveDaemon:
    """`home` has everything: state, configuration, logs, and the home directory that jobs see."""

    def __init__(self, home: Path, **config: Any) -> None:
        self.home = home
        self.state = home / "state"
        self.socket = self.state / "queuectl.sock"
        self.log = home / "queuectld.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.program: Sequence[str] = DAEMON
        self.configure(**{"workers": 2, "shutdown_grace": 1, "orphan_timeout": 10} | config)
        self.env = {
            "PATH": f"{PROGRAMS}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "QUEUECTL_STATE_DIR": str(self.state),
            "QUEUECTL_CONFIG": str(home / "queuectld.toml"),
            "QUEUECTL_AUTOSTART": "0",
            # A file that a test changes is read when the test says so.
            "QUEUECTLD_WATCH_CONFIG": "false",
        }

    def configure(self, **config: Any) -> None:
        """Write the configuration file; takes effect at the next start."""
        lines = [f"{key} = {_toml(value)}\n" for key, value in config.items()]
        (self.home / "queuectld.toml").write_text("".join(lines))

    # Life and death of the daemon.

    def start(self, *prefix: str) -> Self:
        """Start a daemon and wait until it answers. `prefix` goes in front of its command line."""
        self.launch(*prefix)
        wait_for(self.answers, f"the daemon answers; its log:\n{self.log_tail()}", deadline=30)
        return self

    def launch(self, *prefix: str, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()) -> None:
        """Start a daemon, and do not wait; it inherits the descriptors `pass_fds`."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *self.program],
                cwd=self.home,
                env=self.env | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def answers(self) -> bool:
        """Whether it takes clients; fails if it ended instead."""
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.log_tail()}"
        try:
            Wire(self.socket).close()
        except OSError:
            return False
        return True

    @property
    def pid(self) -> int:
        """The number of the daemon that answers; not that of a program which started it."""
        with self.wire() as wire:
            return int(wire.call("ping")["pid"])

    def kill(self) -> None:
        """SIGKILL, to the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def again(self) -> Self:
        """Kill it and start the next one."""
        self.kill()
        return self.start()

    def stop(self, *, deadline: float = 30.0) -> int:
        """SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(deadline)

    def clean(self) -> list[processes.Process]:
        """End everything, by force; return what was alive."""
        roots = cgroup_place.roots((process.pid for process in processes.of(self.home)), self.state)
        ended = processes.end(self.home)
        if self.process is not None:
            self.process.wait()
        for root in roots:
            cgroup_place.end(root)
        return ended

    def log_tail(self, size: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def log_lines(self) -> list[dict[str, Any]]:
        """Return what the daemons logged, each line held against its schema; fails if one does not fit."""
        return check_log(self.log.read_bytes() if self.log.exists() else b"")

    # Ways to talk to it.

    def wire(self) -> Wire:
        return Wire(self.socket)

    def cli(
        self,
        *words: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        deadline: float = 60.0,
    ) -> Ran:
        """Run `queuectl` with these words. Without `stdin` its input is empty."""
        done = self.run([*CLI, *words], stdin=stdin, env=env, cwd=cwd, deadline=deadline)
        return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        deadline: float = 60.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program as somebody who uses this daemon."""
        return subprocess.run(
            argv,
            input=(stdin or "").encode(),
            env=self.env | dict(env or {}),
            cwd=cwd or self.home,
            capture_output=True,
            timeout=deadline,
            check=False,
        )

    def spawn_cli(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `queuectl` and let it run."""
        return subprocess.Popen(
            [*CLI, *words],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    # What tests wait for.

    def state_of(self, job: str) -> str:
        with self.wire() as wire:
            return wire.state(job)

    def history(self, job: str) -> list[dict[str, Any]]:
        with self.wire() as wire:
            return wire.history(job)

    def output(self, job: str) -> bytes:
        with self.wire() as wire:
            return wire.output(job)

    def counts(self) -> dict[str, int]:
        with self.wire() as wire:
            return wire.counts()

    def worker_of(self, job: str) -> int:
        """Wait until a job runs; return the number of its worker's process."""
        wait_for(lambda: self.history(job)[-1:] and self.history(job)[-1]["pid"], f"job {job} has started")
        return next(int(worker["pid"]) for worker in self.workers() if worker["job"] == job)

    def wait_for_state(self, job: str, *states: str, deadline: float = 30.0) -> dict[str, Any]:
        """Wait until a job is in one of these states; return it."""

        def reached() -> dict[str, Any] | None:
            try:
                with self.wire() as wire:
                    found = wire.job(job)
            except RefusedError as error:
                # Who adds it may not be through with that.
                if error.code == "no_such_job":
                    return None
                raise
            return found if found["state"] in states else None

        return wait_for(reached, f"job {job} is {' or '.join(states)}", deadline=deadline)

    def wait_for_counts(self, deadline: float = 60.0, **counts: int) -> None:
        """Wait until exactly so many jobs are in each state."""
        with self.wire() as wire:
            wait_for(lambda: wire.counts() == counts, f"the jobs are {counts}", deadline=deadline)

    def workers(self) -> list[dict[str, Any]]:
        with self.wire() as wire:
            return wire.call("worker_list")["workers"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.clean()
