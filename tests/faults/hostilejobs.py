"""Hostile jobs: whatever a command does to itself, its worker or the host, its end is recorded and nothing stays."""

from __future__ import annotations

import contextlib
import random
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import psutil

from tests.disks import hindrance, small_disk
from tests.faults.suite import Suite, Tally, home
from tests.system import processes
from tests.system.bystander import MIB, memory, others_are_served
from tests.system.conftest import SURPRISES
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

CONFIG: Final[dict[str, Any]] = {
    "workers": 3,
    "shutdown_grace": 0.1,
    "vitals_interval": 0.3,
    "adopt_timeout": 2,
    "output_limit": MIB,
}
# What a worker may use, in MiB.
_WORKER: Final = 40.0
# Seconds in which any of them has to be over.
_DEADLINE: Final = 60.0
_OVER: Final = ("completed", "dead", "cancelled")


def _nothing_more(attempt: dict[str, Any], size: int) -> str:
    del attempt, size
    return ""


class Deed(NamedTuple):
    """What a job does. `size` in the command is replaced by how much of it is done, `home` by a place of the test."""

    command: str
    # How it ends: state and reason of the last attempt.
    state: str = "completed"
    reason: str = "exited"
    # Of a short run and of a long one.
    sizes: tuple[int, int] = (1, 1)
    fields: Mapping[str, Any] = MappingProxyType({})
    # Looks at what is on record of it afterwards; returns what is wrong.
    look: Callable[[dict[str, Any], int], str] = _nothing_more
    # A program of this text lies at `home`/deed.
    program: str = ""


def _leftovers(attempt: dict[str, Any], size: int) -> str:
    found = len(attempt["leftovers"])
    return "" if found >= size else f"{found} of {size} leftovers are named"


def _bytes(attempt: dict[str, Any], size: int) -> str:
    return "" if attempt["output_bytes"] == size else f"{attempt['output_bytes']} of {size} bytes were seen"


def _python(text: str) -> str:
    return f"exec {shlex.quote(sys.executable)} -c {shlex.quote(text)}"


# Stays, and names the place of the test in its arguments, so that it is found if it survives.
_STAY: Final = "sh -c 'while :; do sleep 1; done' {home}"
# Once only: those who run beside it lose an attempt, and `max_lost` of them would be no fault of theirs.
_FIRST: Final = "[ $QUEUECTL_ATTEMPT -gt 1 ] || "
_WORKERS: Final = (
    "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in *'queuectld.worker --state {home}'*) "
)

DEEDS: Final[dict[str, Deed]] = {
    "output without end": Deed("head -c {size} /dev/zero", sizes=(50_000_000, 10_000_000_000), look=_bytes),
    "bytes that are no text, in no line": Deed("head -c {size} /dev/urandom", sizes=(300_000, 300_000), look=_bytes),
    "both outputs at once": Deed("head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait"),
    "closes its output": Deed("exec >&- 2>&-; sleep 0.1; exit 3", "dead"),
    "closes everything": Deed(_python("import os, time; os.closerange(0, 1000); time.sleep(0.1); os._exit(4)"), "dead"),
    "forks many": Deed(
        "i=0; while [ $i -lt {size} ]; do i=$((i+1)); sleep 1000 & done", sizes=(100, 1000), look=_leftovers
    ),
    "its end leaves many running": Deed(
        "i=0; while [ $i -lt {size} ]; do i=$((i+1)); sh -c 'sleep 1000 & exit' & done; wait; exit 0",
        sizes=(100, 1000),
        look=_leftovers,
    ),
    "runs away by forking": Deed(
        "{home}/deed & sleep 0.3", program="#!/bin/sh\nset -e\nsetsid {home}/deed &\n", fields={"kill_after": 0.2}
    ),
    "runs away, ignores TERM": Deed(
        "{home}/deed & sleep 0.3",
        program="#!/bin/sh\nset -e\ntrap '' TERM HUP\n[ -e {home}/deed ]\nsetsid {home}/deed &\nsleep 0.02\n",
        fields={"kill_after": 0.2},
    ),
    "leaves by two forks and a session": Deed(f"(cd /; setsid env -i {_STAY} &); sleep 0.05", look=_leftovers),
    "setsid nohup chains": Deed(
        f'setsid nohup sh -c "setsid nohup {_STAY.replace(chr(39), chr(92) + chr(34))} &" >/dev/null 2>&1 & sleep 0.1'
    ),
    "ends at once, its child goes on": Deed(f"trap '' TERM; {_STAY} & exit 5", "dead"),
    "ignores TERM": Deed(
        "trap '' TERM INT HUP; while :; do sleep 0.1; done", "dead", "timeout", fields={"timeout": 0.3}
    ),
    "stops itself": Deed("kill -STOP $$", "dead", "timeout", fields={"timeout": 0.3}),
    "stops its worker": Deed(_FIRST + "{{ kill -STOP $PPID; sleep 1000; }}"),
    "asks its worker to end": Deed("kill -TERM $PPID; sleep 0.1; echo said"),
    "kills its worker": Deed("kill -9 $PPID; sleep 1000", "dead", "lost"),
    "kills its worker, leaves by two forks": Deed(
        f"(cd /; setsid env -i {_STAY} &); sleep 0.05; kill -9 $PPID; sleep 1000", "dead", "lost"
    ),
    "kills all workers": Deed(_FIRST + "{{ " + _WORKERS + "kill -9 ${{p#/proc/}};; esac; done; sleep 1000; }}"),
    "stops all workers": Deed(_FIRST + "{{ " + _WORKERS + "kill -STOP ${{p#/proc/}};; esac; done; sleep 1000; }}"),
    "traces its worker": Deed(
        _FIRST
        + "{{ "
        + _python("import ctypes, os, time; ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0); time.sleep(1000)")
        + "; }}"
    ),
    "traces its worker, lets it go on": Deed(
        _python("import ctypes, os, time; ctypes.CDLL(None).ptrace(0x4206, os.getppid(), 0, 0); time.sleep(0.1)")
    ),
    # It is not let go on, and stays stopped when the tracer is gone.
    "traces its worker every time": Deed(
        _python("import ctypes, os, time; ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0); time.sleep(0.1)"),
        "dead",
        "lost",
    ),
    "writes into its worker's files": Deed(
        "for f in /proc/$PPID/fd/*; do (echo rubbish >>$f) 2>/dev/null; done; for f in /proc/self/fd/*; do "
        "(echo more >>$f) 2>/dev/null; done; exit 0",
    ),
    "deletes its output": Deed("echo said; rm -rf {home}/state/output; echo more"),
    "deletes the directory of outcomes": Deed("rm -rf {home}/state/outcomes {home}/state/input; echo more"),
    "goes away and locks its directory": Deed("chmod 000 .; cd /; sleep 0.05", fields={"cwd": "{home}/own"}),
    "removes its directory": Deed('rm -rf "$PWD"; sleep 0.05', fields={"cwd": "{home}/own"}),
    "fills a file system": Deed("cat /dev/zero >{home}/full/file", "dead"),
    "reads its input for ever": Deed("while cat; do read -r line || exit 6; done", "dead"),
    "reads a terminal that is none": Deed("cat </dev/tty", "dead"),
    "a command as long as none may be": Deed(": {long}", "dead", "not_started"),
    "a variable as long as none may be": Deed("true", "dead", "not_started", fields={"env": {"V": "x" * 200_000}}),
    "an environment as large as a line": Deed("true", fields={"env": {f"V{n}": "x" * 100_000 for n in range(10)}}),
    "many arguments": Deed("set -- $(seq 1 {size}); echo $#", sizes=(10_000, 100_000)),
    "takes the processors": Deed(
        "exec nice -n -20 sh -c 'while :; do :; done'", "dead", "timeout", fields={"timeout": 0.5}
    ),
    "opens what it can": Deed(
        _python("import os, time\ntry:\n    while True: os.dup(0)\nexcept OSError:\n    time.sleep(0.1)")
    ),
    "leaves zombies": Deed(
        _python("import os, time\nfor _ in range(100):\n    if not os.fork(): os._exit(0)\ntime.sleep(0.1)")
    ),
    "leaves its cgroup": Deed(
        "sed -n 's,^0::,,p' /proc/$PPID/cgroup | while read -r d; do "
        "for m in /sys/fs/cgroup/unified /sys/fs/cgroup; do [ ! -e $m/$d/../cgroup.controllers ] || "
        f"(echo 0 >$m/$d/../cgroup.procs) 2>/dev/null; done; (cd /; setsid {_STAY} &); done; sleep 0.05"
    ),
    "makes its death slow": Deed(
        _python("import mmap; m = mmap.mmap(-1, 100 << 20)\nfor n in range(0, 100 << 20, 4096): m[n] = 1"),
    ),
}


class Scene:
    """A daemon whose workers run deeds, and beside each of them a quiet job that has to end well."""

    def __init__(self, daemon: LiveDaemon, tally: Tally) -> None:
        self._daemon, self._tally = daemon, tally
        self._largest = 0.0

    def play(self, name: str, deed: Deed, size: int) -> None:
        """Have it done, and look at what is left of it."""
        own = self._daemon.home / "own"
        own.mkdir(exist_ok=True)
        before = memory(self._daemon)
        if deed.program:
            file = self._daemon.home / "deed"
            file.write_text(deed.program.format(home=self._daemon.home))
            file.chmod(0o700)
        fields = {
            key: value.format(home=self._daemon.home) if key == "cwd" else value for key, value in deed.fields.items()
        }
        command = deed.command.format(home=self._daemon.home, size=size, long="x" * 200_000)
        with self._daemon.wire() as wire:
            job = wire.enqueue(command, **({"max_retries": 0, "kill_after": 0.3, **fields}))
            quiet = [wire.enqueue("sleep 0.05; echo said") for _ in range(3)]
        begin = time.monotonic()
        self._tally.fault(name)
        found = self._over(job)
        self._check(name, deed, size, job, found)
        for one in quiet:
            state = self._over(one)["state"]
            self._tally.check("others' jobs end well", other=[f"{name}: {state}"] if state != "completed" else [])
        self._left(name)
        grown = memory(self._daemon) - before
        self._tally.check("the daemon's memory stays", other=[f"{name}: {grown:.1f} MiB more"] if grown > 16 else [])
        took = time.monotonic() - begin
        self._tally.runs += 1 + len(quiet)
        self._tally.figures["the slowest"] = max(self._tally.figures.get("the slowest", ""), f"{took:4.1f} s: {name}")

    def _over(self, job: str) -> dict[str, Any]:
        """Wait for the end of a job, and note what the workers use meanwhile."""

        def ended() -> dict[str, Any] | None:
            with self._daemon.wire() as wire:
                found = wire.job(job)
            self._weigh()
            return found if found["state"] in _OVER else None

        try:
            return wait_for(ended, f"{job} is over", deadline=_DEADLINE, every=0.02)
        except AssertionError:
            with self._daemon.wire() as wire:
                return wire.job(job)

    def _weigh(self) -> None:
        for worker in self._daemon.workers():
            with contextlib.suppress(psutil.Error):
                self._largest = max(self._largest, psutil.Process(worker["pid"]).memory_full_info().uss / MIB)
        self._tally.figures["largest worker"] = f"{self._largest:.1f} MiB"

    def _check(self, name: str, deed: Deed, size: int, job: str, found: dict[str, Any]) -> None:
        wrong = []
        if (found["state"], found["reason"]) != (deed.state, deed.reason):
            wrong.append(f"{name}: it is {found['state']}, {found['reason']}: {found['error']}")
        elif history := self._daemon.history(job):
            wrong += [f"{name}: {complaint}" for complaint in [deed.look(history[-1], size)] if complaint]
        self._tally.check("its end is recorded as it was", other=wrong)
        heavy = [f"{name}: {self._largest:.0f} MiB"] if self._largest > _WORKER else []
        self._tally.check("workers stay small", other=heavy)
        self._largest = 0.0

    def _left(self, name: str) -> None:
        def left() -> list[str]:
            known = {self._daemon.pid, *(worker["pid"] for worker in self._daemon.workers())}
            return [
                str(one)
                for one in processes.of(self._daemon.home)
                if one.pid not in known and "queuectld" not in one.command
            ]

        with contextlib.suppress(AssertionError):
            # A worker that dies with its job is replaced meanwhile.
            wait_for(lambda: not left(), "nothing is left", deadline=5)
        self._tally.check("no process is left", left_over=[f"{name}: {one[:200]}" for one in left()[:5]])


def attack(tally: Tally, seed: int, *, long: bool, cgroups: str = "auto", names: list[str] | None = None) -> None:
    """Do each deed once, in an order of its own, with cgroups or without."""
    chosen = names or list(DEEDS)
    random.Random(seed).shuffle(chosen)
    with home() as place, small_disk(place / "full", "1m"), LiveDaemon(place, **CONFIG, cgroups=cgroups) as daemon:
        daemon.start()
        scene = Scene(daemon, tally)
        with others_are_served(daemon, pause=0.05) as took:
            for name in chosen:
                scene.play(name, DEEDS[name], DEEDS[name].sizes[long])
        late = [f"{max(took):.1f} s"] if max(took) > 5 else []
        tally.check("clients are answered meanwhile", other=late)
        code = daemon.stop()
        tally.check("a stop ends well", other=[f"exit code {code}"] if code else [])
        left = [str(one) for one in processes.of(daemon.home)]
        tally.check("no process is left", left_over=left[:5])
        surprises = [str(line)[:1000] for line in daemon.log_lines() if line["event"] in SURPRISES]
        tally.check("nothing surprises the daemon", other=surprises[:5])


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Do all of them so often, every other time without cgroups."""
    for number in range(rounds):
        attack(tally, seed + number, long=True, cgroups=("auto", "off")[number % 2])


SUITE: Final = Suite(
    "hostile-jobs",
    "commands that flood, flee, fork, trace, stop or kill their worker, or take away what they run on",
    run,
    rounds=4,
    unit="times all of them",
    hindrance=hindrance,
)
