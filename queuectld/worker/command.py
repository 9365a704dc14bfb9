"""Starting a command, and telling why it could not be started."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import Final, NamedTuple

import msgspec

from queuectld.protocol.worker_messages import Identity, Reason, RunSpec
from queuectld.worker import child, procfs, refusal
from queuectld.worker import identity as rights
from queuectld.worker.refusal import NOT_FOUND, NotStarted
from queuectld.worker.shield import Shield

_ROOT: Final = 0


class Command(NamedTuple):
    """A running command: the leader of its session, and our ends of its two pipes, which do not block."""

    pid: int
    stdout: int
    stderr: int


class Spawner:
    """Starts commands. Keeps the last environment that it decoded: many jobs share one."""

    def __init__(self) -> None:
        self._raw = b""
        self._environment: dict[bytes, bytes] = {}
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._self = rights.own()
        self._shield = Shield()

    def spawn(self, spec: RunSpec, marker: str) -> Command | NotStarted:
        """Start a command in a session of its own; `marker` goes into its environment and names the attempt."""
        try:
            environment = self._environ(spec, marker)
        except (msgspec.MsgspecError, ValueError) as error:
            return NotStarted(Reason.NOT_STARTED, NOT_FOUND, f"the environment cannot be read: {error}")
        if complaint := _too_many_files(spec.files) or self._nobodys(spec):
            return refusal.impossible(complaint)
        opened: list[int] = []
        try:
            return self._start(spec, environment, opened)
        except OSError as error:
            return _explain(spec, error)
        except (ValueError, IndexError) as error:
            # A NUL byte, or no argument at all.
            return refusal.impossible(str(error))
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _nobodys(self, spec: RunSpec) -> str | None:
        # The daemon always says so. That it did not must not make root of anybody.
        if spec.identity is not None or os.geteuid() != _ROOT:
            return None
        return "its worker was not told whose it is"

    def _other(self, spec: RunSpec) -> Identity | None:
        """Return whose rights it has to be given, if it is not to have our own."""
        wanted = spec.identity
        if wanted is None or (self._self is not None and rights.same(wanted, self._self)):
            return None
        return wanted

    def _start(self, spec: RunSpec, environment: dict[bytes, bytes], opened: list[int]) -> Command | NotStarted:
        # What is in `opened` is closed afterwards: the command's ends always, ours if there is no command.
        other = self._other(spec)
        stdin = self._nothing if spec.stdin is None else _open(spec.stdin, opened)
        script = None if spec.script is None or other is None else _open(spec.script, opened)
        stdout, stdout_end = os.pipe2(os.O_CLOEXEC)
        opened += (stdout, stdout_end)
        stderr, stderr_end = os.pipe2(os.O_CLOEXEC)
        opened += (stderr, stderr_end)
        os.set_blocking(stdout, False)
        os.set_blocking(stderr, False)
        if other is not None:
            rights.give(stdout_end, other.uid)
            rights.give(stderr_end, other.uid)
        argv = [_bytes(child.SCRIPT_NAME if script and word == spec.script else word) for word in spec.argv]
        wanted = child.Start(spec, argv, environment, other, stdin, stdout_end, stderr_end, script)
        with self._shield.lowered():
            # The fast vfork is for those that nothing has to be done for on the way.
            plain = other is None and spec.nice is None and spec.files is None
            started = _vfork(wanted) if plain else child.start(wanted)
        if isinstance(started, NotStarted):
            return started
        opened.remove(stdout)
        opened.remove(stderr)
        return Command(started, stdout, stderr)

    def _environ(self, spec: RunSpec, marker: str) -> dict[bytes, bytes]:
        raw = bytes(spec.env)
        if raw != self._raw:
            decoded = msgspec.json.decode(raw, type=dict[str, str])
            self._environment = {_bytes(name): _bytes(value) for name, value in decoded.items()}
            self._raw = raw
        environment = self._environment.copy()
        for name, value in spec.extra_env.items():
            environment[_bytes(name)] = _bytes(value)
        environment[_bytes(procfs.MARKER_VARIABLE)] = _bytes(marker)
        return environment


def _vfork(wanted: child.Start) -> int:
    spec = wanted.spec
    cwd = spec.cwd if spec.elsewhere is None or os.access(spec.cwd, os.X_OK) else spec.elsewhere
    process = subprocess.Popen(  # noqa: S603 - running what users ask for is the purpose
        wanted.argv,
        stdin=wanted.stdin,
        stdout=wanted.stdout,
        stderr=wanted.stderr,
        cwd=_bytes(cwd),
        env=wanted.environment,
        umask=-1 if spec.umask is None else spec.umask,
        start_new_session=True,
    )
    # We reap it ourselves, for its resource usage; the object must not try to, or warn.
    process.returncode = 0
    return process.pid


def _open(path: str, opened: list[int]) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    opened.append(descriptor)
    return descriptor


def _bytes(text: str) -> bytes:
    # What came as UTF-8 goes on as UTF-8, whatever locale the worker was started in.
    return text.encode(errors="surrogateescape")


def _too_many_files(files: int | None) -> str | None:
    # Linux knows no infinity here: the limit is a number.
    if files is None or files <= (most := resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        return None
    return f"it asks for {files} open files, and its worker may give it {most} at most"


def _explain(spec: RunSpec, error: OSError) -> NotStarted:
    if error.filename == _bytes(spec.cwd):
        return refusal.nowhere(spec.cwd, error)
    if error.filename is not None and error.filename == spec.stdin:
        return refusal.unreadable("input", error)
    if error.filename is not None and error.filename == spec.script:
        return refusal.unreadable("script", error)
    return refusal.unfit(spec.argv[0] if spec.argv else "", error)
