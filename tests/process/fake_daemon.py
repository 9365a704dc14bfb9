"""A daemon that does what a test says: real sockets and a real worker process, and no queue."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from queuectld.protocol import codec
from queuectld.protocol.worker_messages import (
    CHANNEL_VERSION,
    LINE_LIMIT,
    Beat,
    Ended,
    FromWorker,
    Hello,
    Outcome,
    Recorded,
    Run,
    RunSpec,
    Started,
    ToWorker,
    Welcome,
    decode_from_worker,
)
from queuectld.worker import identity, procfs

# Of its own for each test process: processes are found by it, all over the host.
STORE = f"store-{os.getpid()}"
PATIENCE = 20.0


def until(condition, what="the condition"):
    """Return the condition's first true value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.005)
    return value


class Connection:
    """The daemon's end of one connection of a worker."""

    def __init__(self, listener: socket.socket) -> None:
        listener.settimeout(PATIENCE)
        self.socket, _ = listener.accept()
        self.socket.settimeout(PATIENCE)
        self._lines = codec.LineBuffer(LINE_LIMIT)
        self._messages: list[FromWorker] = []
        self.hello = self.next(Hello)

    def send(self, *messages: ToWorker) -> None:
        self.socket.sendall(b"".join(codec.encode(message) for message in messages))

    def next(self, kind):
        """Return the next message, passing over beats, which must be of that kind."""
        found = self.perhaps(kind)
        assert found, f"{self._messages[0]} instead of {kind}"
        return found

    def perhaps(self, kind):
        """Return the next message, passing over beats, if it is of that kind; else leave it and return None."""
        while True:
            while not self._messages:
                data = self.socket.recv(1 << 18)
                assert data, f"the worker hung up instead of sending {kind}"
                self._messages += [decode_from_worker(line) for line in self._lines.feed(data)]
            if isinstance(self._messages[0], kind):
                return self._messages.pop(0)
            if not isinstance(self._messages[0], Beat):
                return None
            self._messages.pop(0)

    def close(self) -> None:
        self.socket.close()

    def hung_up(self) -> bool:
        """Whether the worker has closed its end, after nothing but beats."""
        while True:
            if not select.select([self.socket], [], [], PATIENCE)[0]:
                return False
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionResetError:
                return True


class FakeDaemon:
    """Listens in a state directory, starts workers, and speaks to one at a time."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.workers: list[subprocess.Popen[bytes]] = []
        self.connections: list[Connection] = []
        self.tokens = 0
        # Where the workers that are started from now on make their cgroups.
        self.cgroups: str | None = None
        # Commands that should go on until a test says so read from one of these.
        for name in ("go", "on"):
            os.mkfifo(state / name)
        self.listen()

    def listen(self) -> None:
        self.listener = procfs.bind_unix(str(self.state), "worker.sock")

    def start_worker(self, orphan_timeout: float = 60.0, cgroups: str | None = None) -> Connection:
        self.cgroups = cgroups
        self.spawn_worker(orphan_timeout)
        return self.welcome()

    def spawn_worker(
        self, orphan_timeout: float = 60.0, prefix: Sequence[str] = (), **options
    ) -> subprocess.Popen[bytes]:
        command = [
            *prefix,
            sys.executable,
            "-P",
            "-m",
            "queuectld.worker",
            "--state",
            str(self.state),
            "--store",
            STORE,
        ]
        command += ["--name", "w1", "--orphan-timeout", str(orphan_timeout)]
        if self.cgroups is not None:
            command += ["--cgroups", self.cgroups, "--home", str(Path(self.cgroups).parent)]
        worker = subprocess.Popen(command, start_new_session=True, **options)
        self.workers.append(worker)
        return worker

    def welcome(self) -> Connection:
        self.connection = self.accept()
        self.connection.send(Welcome(protocol=CHANNEL_VERSION, store=STORE))
        return self.connection

    def accept(self) -> Connection:
        """Take a worker's next connection, without a welcome."""
        connection = Connection(self.listener)
        self.connections.append(connection)
        return connection

    def go_away(self) -> None:
        """Be gone, as after a kill -9."""
        self.listener.close()
        self.connection.close()

    def come_back(self) -> Connection:
        self.listen()
        return self.welcome()

    def spec(self, *argv: str, **fields) -> RunSpec:
        env = fields.pop("env", {"PATH": os.environ["PATH"]})
        self.tokens += 1
        fields = {"cwd": "/", "output_limit": 1 << 20, "kill_after": 5.0, **fields}
        fields.setdefault("identity", identity.own())
        fields.setdefault("output", str(self.state / "output" / "0" / f"{self.tokens}.1"))
        return RunSpec(job="j", argv=argv, env=msgspec.Raw(json.dumps(env).encode()), **fields)

    def start(self, *argv: str, **fields) -> Started | None:
        """Have a command run; return who leads it, unless it ended before that was told."""
        spec = self.spec(*argv, **fields)
        self.connection.send(Run(self.tokens, spec))
        return self.connection.perhaps(Started)

    def shell(self, script: str, **fields) -> Started | None:
        return self.start("/bin/sh", "-c", script, **fields)

    def end(self) -> Outcome:
        """Return how the command ended, and confirm it."""
        ended = self.connection.next(Ended)
        assert ended.token == self.tokens
        self.connection.send(Recorded(ended.token))
        return ended.outcome

    def run(self, script: str, **fields) -> Outcome:
        self.shell(script, **fields)
        return self.end()

    def say(self, name: str) -> None:
        """Let a command go on that waits for that; each name is good for once."""
        (self.state / name).write_text("now\n")

    def file(self, suffix: str, token: int | None = None) -> Path:
        return self.state / "output" / "0" / f"{token or self.tokens}.1{suffix}"

    @property
    def outcome_file(self) -> Path:
        return self.state / "outcomes" / f"{STORE}.{self.tokens}"

    def status(self) -> str:
        """Return what the kernel says of the worker."""
        return Path(f"/proc/{self.workers[0].pid}/status").read_text()

    def clean_up(self) -> None:
        for open_ in (self.listener, *self.connections):
            open_.close()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        for token in range(1, self.tokens + 1):
            for pid in procfs.marked(f"{STORE}/{token}".encode()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether that process runs; a zombie does not."""
    return procfs.start_time(pid) is not None
