"""Hostile peers on the socket that belongs to the workers: rubbish, half messages, and whoever pretends to be one."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from queuectld.protocol.worker_messages import CHANNEL_VERSION
from tests.faults.suite import Suite, Tally, home
from tests.system import processes
from tests.system.bystander import MIB, memory
from tests.system.conftest import SURPRISES
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.witness import Witness

CONFIG: Final[dict[str, Any]] = {"workers": 2, "shutdown_grace": 0.1, "adopt_timeout": 2, "vitals_interval": 0.3}
_NOBODY: Final = 65534

# What a stranger says, without being anybody.
RUBBISH: Final[dict[str, bytes]] = {
    "nothing": b"",
    "half a line": b'{"msg":"hello","proto',
    "no JSON": b"hello\n",
    "no UTF-8": b'{"msg":"beat","x":"\xff\xfe"}\n',
    "bytes": bytes(range(256)) * 4 + b"\n",
    "nesting": b'{"msg":"beat","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "nesting that does not end": b'{"msg":"beat","x":' + b"[" * 100_000 + b"\n",
    "half a surrogate": b'{"msg":"hello","store":"\\ud800"}\n',
    "no message": b"{}\n[]\nnull\n1\n",
    "another message": b'{"msg":"dance"}\n',
    "a message of the daemon": b'{"msg":"exit"}\n',
    "no hello before": b'{"msg":"ended","token":1,"outcome":{"reason":"exited","ended_at":1}}\n{"msg":"beat"}\n',
    "numbers without end": b'{"msg":"beat","token":1%s}\n' % (b"0" * 5000),
    "empty lines": b"\n" * 10_000,
}

# What somebody says who is not who he says: each has something in place of the truth.
LIES: Final[dict[str, dict[str, Any]]] = {
    "another's number": {"pid": 1, "pid_start": 1},
    "no number": {"pid": -1},
    "a huge number": {"pid": 10**30},
    "another start": {"pid_start": 12},
    "an old version": {"protocol": 0},
    "the version before": {"protocol": CHANNEL_VERSION - 1},
    "a version to come": {"protocol": 10**30},
    "another store": {"store": "0" * 32},
    "an attempt that never was": {"state": {"type": "running", "token": 999_999, "pid": 1, "pid_start": 1}},
    "an attempt with a huge number": {"state": {"type": "running", "token": 10**30}},
    "an attempt below all": {"state": {"type": "running", "token": -1}},
    "the end of an attempt that never was": {
        "state": {"type": "ended", "token": 999_999, "outcome": {"reason": "exited", "ended_at": 1}}
    },
    "the end of a huge attempt": {
        "state": {"type": "ended", "token": 10**30, "outcome": {"reason": "exited", "ended_at": 1e308}}
    },
    "another's attempt": {"state": {"type": "running", "token": "live"}},
    "the end of another's attempt": {
        "state": {"type": "ended", "token": "live", "outcome": {"reason": "exited", "ended_at": 1, "exit_code": 0}}
    },
    "a name that is none": {"name": "\u0000\n" * 2000},
}

# A process of its own: whoever is believed to be a worker may be ended as one.
_PRETENDER: Final = """
import json, os, socket, sys, time
path, lie, after = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
start = int(open('/proc/self/stat').read().rpartition(')')[2].split()[19])
hello = {'msg': 'hello', 'protocol': VERSION, 'store': sys.argv[4], 'name': 'w1', 'pid': os.getpid(),
         'pid_start': start, 'state': {'type': 'idle'}} | lie
sock = socket.socket(socket.AF_UNIX)
sock.connect(path)
sock.sendall(json.dumps(hello).encode() + b'\\n')
if after:
    sock.sendall(after.encode() + b'\\n')
print('said', flush=True)
heard = sock.makefile('rb')
for line in heard:
    message = json.loads(line)
    if message['msg'] == 'run':
        # It is given something to do, and tells a tale of how that ended.
        open('told', 'w').close()
        outcome = json.load(open(sys.argv[5]))
        sock.sendall(json.dumps({'msg': 'ended', 'token': message['token'], 'outcome': outcome}).encode() + b'\\n')
    if message['msg'] == 'exit':
        break
""".replace("VERSION", str(CHANNEL_VERSION))

# What somebody tells of a command that he was given to run.
TALES: Final[dict[str, dict[str, Any]]] = {
    "a huge exit code": {"reason": "exited", "ended_at": 1.0, "exit_code": 10**30},
    "an end after all times": {"reason": "exited", "ended_at": 1e308, "exit_code": 0},
    "no reason": {"reason": "boredom", "ended_at": 1.0},
    "a number of bytes below none": {"reason": "exited", "ended_at": 1.0, "exit_code": 1, "output_bytes": -(10**30)},
    "a message without end": {"reason": "exited", "ended_at": 1.0, "exit_code": 1, "message": "x" * 10_000_000},
    "leftovers without end": {"reason": "exited", "ended_at": 1.0, "exit_code": 1, "leftovers": ["1 x"] * 200_000},
    "half a surrogate": {"reason": "exited", "ended_at": 1.0, "exit_code": 1, "message": "\ud800"},
}


class Stage:
    """A daemon that has something to do, whatever strangers do."""

    def __init__(self, daemon: LiveDaemon, tally: Tally) -> None:
        self._daemon, self._tally = daemon, tally
        self._path = daemon.state / "worker.sock"
        self._witness = Witness(daemon.home / "witness")
        with daemon.wire() as wire:
            self._store = wire.greeting["store"]
        self._jobs = 0
        # There is one once a pretender was given a job.
        self._told = daemon.home / "told"

    def rubbish(self, name: str, text: bytes, cut: int) -> None:
        """Say something, at once or in pieces, and leave."""
        with contextlib.closing(self._connect()) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(text), cut):
                sock.sendall(text[start : start + cut])
        self._well(f"rubbish: {name}")

    def many_who_stay(self, count: int) -> None:
        """Connect, send half a line, and stay."""
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                sock = stack.enter_context(contextlib.closing(self._connect()))
                sock.sendall(b'{"msg":')
            self._well("many who stay")

    def huge_lines(self, count: int, size: int) -> None:
        """Say a line without an end, so many at once."""
        before = memory(self._daemon)
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                sock = stack.enter_context(contextlib.closing(self._connect()))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(size):
                        sock.sendall(b"x" * MIB)
            grown = memory(self._daemon) - before
            self._tally.check("strangers take no memory", other=[f"{grown:.0f} MiB"] if grown > 24 else [])
            self._well("huge lines")

    def lie(self, name: str, lie: dict[str, Any]) -> None:
        """Pretend to be a worker, while one runs a job."""
        with self._running() as (job, token):
            told = json.loads(json.dumps(lie).replace('"live"', str(token)))
            with self._pretender(told, after='{"msg":"beat","token":5}'):
                self._well(f"lie: {name}")
            self._well(f"lie: {name}")
            with self._daemon.wire() as wire:
                state = wire.state(job)
            self._tally.check(
                "nobody takes another's attempt", lost=[f"{name}: {state}"] if state != "processing" else []
            )

    def tale(self, name: str, tale: dict[str, Any]) -> None:
        """Be taken for a worker, be given a job, and tell a tale of its end."""
        jobs = []
        with self._daemon.wire() as wire, self._pretender({}, tale=tale) as pretender:

            def given() -> bool:
                # More than the others can take at once.
                for _ in range(CONFIG["workers"] * 2):
                    jobs.append(f"told-{self._jobs}")
                    self._jobs += 1
                    wire.enqueue("sleep 0.02", id=jobs[-1], max_retries=0)
                wire.call("wait", select={"ids": jobs})
                return pretender.poll() is not None or self._told.exists()

            self._told.unlink(missing_ok=True)
            wait_for(given, "the pretender is taken for a worker, or sent away")
            self._tally.figures.setdefault("tales told", "0")
            if self._told.exists():
                self._tally.figures["tales told"] = str(int(self._tally.figures["tales told"]) + 1)
            states = {job: wire.state(job) for job in jobs}
        stuck = [f"{name}: {job} is {state}" for job, state in states.items() if state not in {"completed", "dead"}]
        self._tally.check("each job has an end", lost=stuck)
        self._well(f"tale: {name}")

    def of_another_user(self) -> None:
        """Let somebody else at the socket, whom the kernel names."""
        opened = [self._daemon.home, self._daemon.state, self._path]
        modes = [(file, file.stat().st_mode & 0o777) for file in opened]
        for file in opened:
            file.chmod(0o777)
        try:
            with self._running() as (job, token):
                told = {"state": {"type": "running", "token": token}}
                with self._pretender(told, "setpriv", f"--reuid={_NOBODY}", "--clear-groups") as pretender:
                    wait_for(lambda: pretender.poll() is not None, "it is hung up on")
                with self._daemon.wire() as wire:
                    state = wire.state(job)
                self._tally.check("nobody takes another's attempt", lost=[state] if state != "processing" else [])
        finally:
            for file, mode in modes:
                file.chmod(mode)
        refused = [line for line in self._daemon.log_lines() if line.get("peer_uid") == _NOBODY]
        self._tally.check("other users are refused", other=[] if refused else ["nobody was refused"])
        self._well("another user")

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        # Waits for its turn, where a socket with a timeout would be refused.
        sock.connect(str(self._path))
        sock.settimeout(20)
        return sock

    @contextlib.contextmanager
    def _pretender(
        self, lie: dict[str, Any], *prefix: str, after: str = "", tale: dict[str, Any] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        # Longer than an argument may be.
        story = self._daemon.home / "tale.json"
        story.write_text(json.dumps(tale or {}))
        words = [str(self._path), json.dumps(lie), after, self._store, str(story)]
        with subprocess.Popen(
            [*prefix, sys.executable, "-c", _PRETENDER, *words],
            cwd=self._daemon.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            try:
                process.stdout.readline()
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def _running(self) -> Iterator[tuple[str, int]]:
        """A job that runs as long as this lasts, and its token; then it has to end well."""
        gate = self._daemon.home / f"gate-{self._jobs}"
        job = f"running-{self._jobs}"
        self._jobs += 1
        with self._daemon.wire() as wire:
            wire.enqueue(self._witness.command(f"until [ -e {gate} ]; do sleep 0.02; done"), id=job, max_retries=0)
        line = wait_for(lambda: self._witness.started(job), f"{job} runs")
        yield job, line.token
        gate.touch()
        found = self._daemon.wait_for_state(job, "completed", "dead", "failed", "cancelled")
        wrong = [f"{job}: {found['state']}, {found['reason']}, {found['attempts']} attempts"]
        fine = (found["state"], found["attempts"]) == ("completed", 1)
        self._tally.check("running jobs end as if nobody was there", lost=[] if fine else wrong)

    def _well(self, name: str) -> None:
        """A job from its beginning to its end: the daemon is well."""
        self._tally.fault(name)
        self._tally.runs += 1
        job = f"well-{self._jobs}"
        self._jobs += 1
        with self._daemon.wire() as wire:
            wire.enqueue(self._witness.command(), id=job)
        try:
            self._daemon.wait_for_state(job, "completed")
        except AssertionError as error:
            self._tally.check("jobs run on", lost=[f"{name}: {error}"])
        else:
            self._tally.check("jobs run on")

    def end(self) -> None:
        """Look at everything once more, and stop."""
        check = self._tally.check
        check("attempts do not overlap", doubled=self._witness.overlaps())
        check("no attempt and no token begins twice", doubled=self._witness.repeated())
        code = self._daemon.stop()
        check("a stop ends well", other=[f"exit code {code}"] if code else [])
        check("no process is left", left_over=[str(one) for one in processes.of(self._daemon.home)])
        surprises = [str(line)[:1500] for line in self._daemon.log_lines() if line["event"] in SURPRISES]
        check("nothing surprises the daemon", other=surprises[:5])


def attack(tally: Tally, rounds: int, seed: int) -> None:
    """Do all of it so often, each time in another order."""
    luck = random.Random(seed)
    with home() as place, LiveDaemon(place, **CONFIG) as daemon:
        daemon.start()
        stage = Stage(daemon, tally)
        for _ in range(rounds):
            deeds: list[Callable[[], None]] = [
                *(lambda name=name: stage.rubbish(name, RUBBISH[name], luck.choice((7, 10**6))) for name in RUBBISH),
                *(lambda name=name: stage.lie(name, LIES[name]) for name in LIES),
                *(lambda name=name: stage.tale(name, TALES[name]) for name in TALES),
                lambda: stage.many_who_stay(200),
                lambda: stage.huge_lines(4, 80),
                *([stage.of_another_user] if os.geteuid() == 0 else []),
            ]
            luck.shuffle(deeds)
            for deed in deeds:
                deed()
        stage.end()


SUITE: Final = Suite(
    "hostile-workers",
    "rubbish and lies on the workers' socket: half messages, huge lines, others' attempts, tales of ends",
    attack,
    rounds=20,
    unit="times all of them",
)
