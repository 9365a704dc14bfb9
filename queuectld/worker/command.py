"""Starting a command, and telling why it could not be started."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from typing import Final, NamedTuple

import msgspec

from queuectld.protocol.worker_messages import Reason, RunSpec
from queuectld.worker import procfs

# It is the host that has none of these left; the command would start elsewhere, or later.
_HOST_ERRORS: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
# What a shell answers for a program that it cannot find, and for one that it may not or cannot execute.
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class Command(NamedTuple):
    """A running command: the leader of its session, and our ends of its two pipes, which do not block."""

    pid: int
    stdout: int
    stderr: int


class NotStarted(NamedTuple):
    """Why there is no running command."""

    reason: Reason
    exit_code: int | None
    message: str


class Spawner:
    """Starts commands. Keeps the last environment that it decoded: many jobs share one."""

    def __init__(self) -> None:
        self._raw = b""
        self._environment: dict[bytes, bytes] = {}
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def spawn(self, spec: RunSpec, marker: str) -> Command | NotStarted:
        """Start a command in a session of its own; `marker` goes into its environment and names the attempt."""
        try:
            environment = self._environ(spec, marker)
        except (msgspec.MsgspecError, ValueError) as error:
            return NotStarted(Reason.NOT_STARTED, NOT_FOUND, f"the environment cannot be read: {error}")
        if complaint := _too_many_files(spec.files):
            return NotStarted(Reason.NOT_STARTED, NOT_EXECUTABLE, complaint)
        opened: list[int] = []
        try:
            pid, stdout, stderr = self._start(spec, environment, opened)
        except OSError as error:
            return _explain(spec, error)
        except (ValueError, IndexError) as error:
            # A NUL byte, or no argument at all.
            return NotStarted(Reason.NOT_STARTED, NOT_EXECUTABLE, str(error))
        except subprocess.SubprocessError:
            return NotStarted(Reason.NOT_STARTED, NOT_EXECUTABLE, f"the nice value {spec.nice} may not be set")
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return Command(pid, stdout, stderr)

    def _start(self, spec: RunSpec, environment: dict[bytes, bytes], opened: list[int]) -> tuple[int, int, int]:
        # What is in `opened` is closed afterwards: the command's ends always, ours if there is no command.
        stdin = self._nothing
        if spec.stdin is not None:
            stdin = os.open(spec.stdin, os.O_RDONLY | os.O_CLOEXEC)
            opened.append(stdin)
        stdout, stdout_end = os.pipe2(os.O_CLOEXEC)
        opened += (stdout, stdout_end)
        stderr, stderr_end = os.pipe2(os.O_CLOEXEC)
        opened += (stderr, stderr_end)
        os.set_blocking(stdout, False)
        os.set_blocking(stderr, False)
        nice, files = spec.nice, spec.files
        process = subprocess.Popen(  # noqa: S603 - running what users ask for is the purpose
            [_bytes(argument) for argument in spec.argv],
            stdin=stdin,
            stdout=stdout_end,
            stderr=stderr_end,
            cwd=_bytes(spec.cwd),
            env=environment,
            umask=-1 if spec.umask is None else spec.umask,
            start_new_session=True,
            # Costs the fast vfork, so only when asked for. There are no threads here that it could lock up.
            preexec_fn=None if nice is None and files is None else lambda: _prepare(nice, files),  # noqa: PLW1509
        )
        # We reap it ourselves, for its resource usage; the object must not try to, or warn.
        process.returncode = 0
        opened.remove(stdout)
        opened.remove(stderr)
        return process.pid, stdout, stderr

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


def _bytes(text: str) -> bytes:
    # What came as UTF-8 goes on as UTF-8, whatever locale the worker was started in.
    return text.encode(errors="surrogateescape")


def _prepare(nice: int | None, files: int | None) -> None:
    if nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def _too_many_files(files: int | None) -> str | None:
    # Linux knows no infinity here: the limit is a number.
    if files is None or files <= (most := resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        return None
    return f"it asks for {files} open files, and its worker may give it {most} at most"


def _explain(spec: RunSpec, error: OSError) -> NotStarted:
    if error.errno in _HOST_ERRORS:
        return NotStarted(Reason.HOST_ERROR, None, f"the host could not start it: {error.strerror}")
    if error.filename == _bytes(spec.cwd):
        return NotStarted(Reason.NOT_STARTED, NOT_FOUND, f"the directory {spec.cwd} cannot be used: {error.strerror}")
    if spec.stdin is not None and error.filename == spec.stdin:
        return NotStarted(Reason.NOT_STARTED, NOT_FOUND, f"its input cannot be read: {error.strerror}")
    code = NOT_FOUND if error.errno in _MISSING else NOT_EXECUTABLE
    return NotStarted(Reason.NOT_STARTED, code, f"{spec.argv[0] if spec.argv else ''}: {error.strerror}")
