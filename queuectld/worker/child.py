"""The child between its fork and its command, where that takes more than a plain start: above all another user.

The order is the point. Everything that is ours is let go of first, then the rights, for good; only then is anything
touched that the job names: directory, limits, program. So a job reaches what its user may reach, on network file
systems and FUSE too, where root may less than the user; and the worker itself is never, for no moment, a process that
the user may signal or trace. A fast spawn (vfork) would share our memory with somebody else's process, and enter the
directory as root.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, NoReturn

import msgspec

from queuectld.protocol.worker_messages import Identity, RunSpec
from queuectld.worker import identity as rights
from queuectld.worker import refusal, signals
from queuectld.worker.refusal import NotStarted

# By this name the command finds its script, which lies where its user may not look: as a shell names what `<(…)` gives.
SCRIPT: Final = 63
SCRIPT_NAME: Final = f"/proc/self/fd/{SCRIPT}"
# A directory or program on a dead file system holds the child up, not us: after so many seconds it counts as started.
_PATIENCE: Final = 2.0
# A report is written at one stroke.
_LONGEST: Final = select.PIPE_BUF // 8
# What Python handles or ignores; every other signal was put right when the worker began.
_OURS: Final = tuple(map(int, (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGXFSZ)))
_PIPE: Final = int(signal.SIGPIPE)

_decoder: Final = msgspec.json.Decoder(NotStarted)


class Start(NamedTuple):
    """What the child is to become."""

    spec: RunSpec
    argv: list[bytes]
    environment: dict[bytes, bytes]
    # None: it stays who it is.
    identity: Identity | None
    # Our descriptors that become its standard ones, and its script.
    stdin: int
    stdout: int
    stderr: int
    script: int | None


class _RefusedError(Exception):
    """It cannot go on."""

    def __init__(self, told: NotStarted) -> None:
        super().__init__(told.message)
        self.told = told


def start(wanted: Start) -> int | NotStarted:
    """Start a command in a session of its own; return its process. Raises `OSError`, as for what the host refuses."""
    programs = _programs(wanted)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _be_the_child(wanted, programs, writer)
        os.close(writer)
        writer = -1
        told = _report(reader)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if told is None:
        return pid
    # It may be held up by its user even now.
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return told


def _report(reader: int) -> NotStarted | None:
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    if not waiting.poll(_PATIENCE * 1000):
        return None
    report = os.read(reader, select.PIPE_BUF)
    return _decoder.decode(report) if report else None


def _programs(wanted: Start) -> list[bytes]:
    """Return the files to try, in order."""
    program = wanted.argv[0]
    if os.path.dirname(program):
        return [program]
    return [os.path.join(os.fsencode(place), program) for place in os.get_exec_path(wanted.environment)]  # type: ignore[arg-type]  # typeshed knows no bytes


# In the child.


def _be_the_child(wanted: Start, programs: list[bytes], writer: int) -> NoReturn:
    code = refusal.NOT_EXECUTABLE
    try:
        try:
            _become(wanted, programs, writer)
        except _RefusedError as error:
            told = error.told
        except (OSError, ValueError) as error:
            # A NUL byte, for one.
            told = refusal.impossible(str(error))
        code = told.exit_code or code
        _say(told, writer)
    finally:
        # Whatever happens, nothing of the worker goes on here.
        os._exit(code)


def _become(wanted: Start, programs: list[bytes], writer: int) -> NoReturn:
    spec, identity = wanted.spec, wanted.identity

    def stranded(error: OSError) -> NotStarted:
        return refusal.unfit(spec.argv[0], error)

    blame = stranded
    try:
        _let_go(wanted, writer)
        if identity is not None:
            blame = partial(refusal.forbidden, f"it cannot run as user {identity.uid}")
            rights.leave_keyring()
            rights.assume(identity)
        if spec.umask is not None:
            os.umask(spec.umask)
        if spec.nice is not None:
            blame = partial(refusal.forbidden, f"the nice value {spec.nice} may not be set")
            os.setpriority(os.PRIO_PROCESS, 0, spec.nice)
        if spec.files is not None:
            blame = partial(refusal.forbidden, f"it may not be held to {spec.files} open files")
            resource.setrlimit(resource.RLIMIT_NOFILE, (spec.files, spec.files))
        blame = partial(refusal.nowhere, spec.cwd)
        _enter(spec)
        blame = stranded
        _execute(wanted, programs)
    except OSError as error:
        raise _RefusedError(blame(error)) from None


def _let_go(wanted: Start, writer: int) -> None:
    """Keep nothing of the worker but what the command is given, and the descriptor to report by."""
    # A signal that its user sends must not look as if it had been sent to the worker.
    signal.set_wakeup_fd(-1)
    signals.make_default((*_OURS, _PIPE))
    os.setsid()
    for standard, descriptor in enumerate((wanted.stdin, wanted.stdout, wanted.stderr)):
        os.dup2(descriptor, standard)
    kept = {writer}
    if wanted.script is not None:
        os.dup2(wanted.script, SCRIPT)
        kept.add(SCRIPT)
    # The program does not get them anyway; but one that is held up on its way there would keep our connection open.
    lowest = 3
    for passed in sorted(kept):
        os.closerange(lowest, passed)
        lowest = passed + 1
    os.closerange(lowest, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _enter(spec: RunSpec) -> None:
    try:
        os.chdir(spec.cwd.encode(errors="surrogateescape"))
    except OSError:
        if spec.elsewhere is None:
            raise
        os.chdir(spec.elsewhere)


def _execute(wanted: Start, programs: list[bytes]) -> NoReturn:
    failure: OSError | None = None
    for program in programs:
        try:
            os.execve(program, wanted.argv, wanted.environment)  # noqa: S606 - running what users ask for is the purpose
        except OSError as error:
            # One that is there and cannot be executed is more worth telling than those that are not there.
            if failure is None or failure.errno in {errno.ENOENT, errno.ENOTDIR}:
                failure = error
    raise failure or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _say(told: NotStarted, writer: int) -> None:
    """Tell the worker; or, if that does not wait for us any more, whoever reads what the command wrote."""
    told = told._replace(message=told.message[:_LONGEST])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.write(writer, msgspec.json.encode(told))
    except BrokenPipeError:
        with suppress(OSError):
            os.write(2, told.message.encode(errors="replace") + b"\n")
