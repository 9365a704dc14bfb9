"""Starting `queuectld` in the background."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import Final, Protocol

from queuectl_cli.client import Client
from queuectl_cli.errors import CliError, UnreachableError
from queuectl_cli.render import plural
from queuectl_cli.target import Target
from queuectld.protocol.where import SYSTEM_SOCKET

START_PATIENCE: Final = 20.0
# Another daemon holds the state directory: somebody else was faster.
_OTHER_DAEMON: Final = 75
# Codes of errors that mean: no daemon runs there.
NOT_THERE: Final = frozenset({"no_socket", "refused"})
# They belong to the process that starts the daemon, not to the daemon.
_NOT_INHERITED: Final = (
    "QUEUECTL_JOB_ID",
    "QUEUECTL_ATTEMPT",
    "QUEUECTL_ATTEMPT_TOKEN",
    "QUEUECTL_QUEUE",
    "QUEUECTL_WORKER",
    "QUEUECTL_HOST",
    # A daemon that believed them would speak for the service that we were called from.
    "NOTIFY_SOCKET",
)
_NOT_INHERITED_PREFIXES: Final = ("LISTEN_", "SUPERVISOR_", "WATCHDOG_")


class Caller(Protocol):
    """Who wants a daemon: where it looks for one, and how it speaks to it and to people."""

    scope: str | None

    def target(self) -> Target:
        """Return where the daemon is."""

    def open(self, target: Target) -> Client:
        """Return a connection."""

    def say(self, text: str) -> None:
        """Tell a person something beside the answer."""


def start_instead(app: Caller, target: Target, error: UnreachableError) -> Client:
    """Start a daemon where nobody listens and it is right. Raises `error` else, `CliError` if it does not start."""
    if error.code not in NOT_THERE:
        raise error
    if reason := why_not(target):
        error.hints = (*error.hints, reason)
        raise error
    client, ours = start(app, target)
    if ours:
        app.say(greeting(client))
    return client


def why_not(target: Target) -> str | None:
    """Say why a daemon is not started by itself here; None if it is."""
    if target.explicit:
        return "It is not started by itself where -H or QUEUECTL_HOST says where it is."
    if target.places.scope == "system":
        return "The daemon of the system is not started by itself."
    if os.environ.get("QUEUECTL_JOB_ID"):
        return "It is not started by itself from inside a job."
    if os.environ.get("QUEUECTL_AUTOSTART") == "0":
        return "QUEUECTL_AUTOSTART=0 forbids starting it by itself."
    return _of_a_service(target)


def _of_a_service(target: Target) -> str | None:
    from queuectl_cli.service.systemd import service_of, system_service  # noqa: PLC0415  (rarely needed)

    if service_of(target.places):
        return "It is a service of yours, which systemd starts."
    # Whom --user has not sent to his own queue would be sent there now, without a word.
    if SYSTEM_SOCKET in target.candidates and system_service():
        return "There is a service of the system, which does not run; --user is for a queue of your own."
    return None


def greeting(client: Client) -> str:
    """Say that a daemon was started, with how many workers, and how many jobs it found."""
    status = client.request("status")
    waiting = status["states"].get("pending", 0) + status["states"].get("failed", 0)
    rest = f", {plural(waiting)} waiting from last time" if waiting else ""
    return f"Started queuectld (pid {status['pid']}, {plural(status['limit'], 'worker')}{rest})."


def start(app: Caller, target: Target) -> tuple[Client, bool]:
    """Start a daemon in a session of its own, wait until one answers; say whether it is ours, or another was faster.

    Raises `CliError` with what it said.
    """
    state = os.path.abspath(target.places.state)  # noqa: PTH100  (as everywhere here, without pathlib)
    log = f"{state}/daemon.log"
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)  # noqa: PTH103  (same)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CliError(
            f"cannot start queuectld: {error.filename}: {error.strerror}",
            "The daemon keeps its queue there; QUEUECTL_STATE_DIR names another place.",
            code="cannot_start",
            status=77 if isinstance(error, PermissionError) else 69,
        ) from None
    try:
        begin = os.fstat(descriptor).st_size
        process = _spawn(app, descriptor)
    finally:
        os.close(descriptor)
    client = _await(app, process, log, begin)
    return client, client.request("ping")["pid"] == process.pid


def check(app: Caller) -> None:
    """See whether a daemon could start with what it is configured to. Raises `CliError` with what it said."""
    code, said = examine(app)
    if code:
        raise CliError(
            f"the next queuectld could not start (exit {code})",
            *_for_people(said),
            "The one that runs was left alone.",
            code="cannot_start",
            status=_status(code),
        )


def examine(app: Caller, config: str | None = None) -> tuple[int, list[str]]:
    """Have the program of the daemon check itself and its configuration, that in `config` if it is not the usual one.

    Return its exit code, and the lines that it said about what is wrong. Raises `CliError` if that takes too long.
    """
    try:
        checked = subprocess.run(  # noqa: S603  (our own daemon)
            [*_command(app), *(["--config", config] if config else []), "--check"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env=_environment(),
            timeout=START_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CliError(
            f"the check of queuectld did not end within {START_PATIENCE:g} s", code="cannot_start", status=69
        ) from None
    return checked.returncode, checked.stderr.decode(errors="replace").splitlines()


def _spawn(app: Caller, log: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (our own daemon)
        _command(app),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env=_environment(),
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not _of_the_caller(name)}
    for name in ("QUEUECTL_STATE_DIR", "QUEUECTL_CONFIG"):
        if env.get(name):
            env[name] = os.path.abspath(env[name])  # noqa: PTH100  (the daemon's directory is another)
    return env


def _of_the_caller(name: str) -> bool:
    return name in _NOT_INHERITED or name.startswith(_NOT_INHERITED_PREFIXES)


def _command(app: Caller) -> list[str]:
    scope = [f"--{app.scope}"] if app.scope else []
    beside = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "queuectld")  # noqa: PTH100, PTH118, PTH120
    if os.access(beside, os.X_OK) and not os.path.isdir(beside):  # noqa: PTH112  (pathlib costs 3 ms)
        return [beside, *scope]
    return [sys.executable, "-P", "-m", "queuectld.main", *scope]


def _await(app: Caller, process: subprocess.Popen[bytes], log: str, begin: int) -> Client:
    deadline = time.monotonic() + START_PATIENCE
    exited = os.pidfd_open(process.pid)
    other = False
    try:
        while time.monotonic() < deadline:
            # Resolved anew each time: the daemon records where it listens.
            target = app.target()
            try:
                client = app.open(target)
            except UnreachableError as error:
                if error.code not in {*NOT_THERE, "connection_lost"}:
                    raise
            else:
                # It is not our child any more as far as we care; init reaps it.
                process.returncode = 0
                return client
            if other:
                time.sleep(0.05)
            elif select.select([exited], [], [], 0.02)[0]:
                if process.wait() != _OTHER_DAEMON:
                    raise _failed(process.returncode, log, begin)
                other = True
    finally:
        os.close(exited)
    if other:
        raise _failed(_OTHER_DAEMON, log, begin)
    raise UnreachableError(
        f"queuectld was started (pid {process.pid}) and does not answer after {START_PATIENCE:g} s",
        f"See its log:  {log}",
        code="cannot_start",
    )


def _failed(status: int, log: str, begin: int) -> UnreachableError:
    with open(log, "rb") as file:  # noqa: PTH123  (as everywhere here, without pathlib)
        file.seek(begin)
        said = file.read(65_536).decode(errors="replace").splitlines()
    return UnreachableError(
        f"queuectld could not start (exit {status})",
        *_for_people(said),
        f"Its log:  {log}",
        code="cannot_start",
        status=_status(status),
    )


def _status(ended_with: int) -> int:
    # A configuration error keeps its own exit code.
    return ended_with if ended_with == 78 else 69


def _for_people(lines: list[str]) -> list[str]:
    """Return the last words of a daemon: its sentences, and of its log what is wrong."""
    return [line for line in map(_sentence, lines) if line][-5:]


def _sentence(line: str) -> str:
    try:
        logged = json.loads(line)
    except ValueError:
        return line
    wrong = isinstance(logged, dict) and logged.get("level") in {"error", "critical"}
    return str(logged.get("error") or logged.get("message", "")) if wrong else ""
