"""``ssh://``: a daemon on another host, spoken to over the stdin and stdout of ``queuectl dial-stdio`` there."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import socket
import subprocess
from contextlib import suppress
from typing import Final

from queuectl_cli.errors import LostError, UnreachableError
from queuectl_cli.target import Target

# Seconds until the first byte: people may have to type a password. Whoever comes back does not wait so long.
FIRST_TIME: Final = 120.0
AGAIN: Final = 15.0
# Seconds for `ssh` to end once nothing is to be said any more.
_END: Final = 2.0
# Ctrl-C is for us: a connection that it took along could not even ask for the end of the job. What is ignored before
# `exec` stays so.
_SHIELDED: Final = ("/bin/sh", "-c", 'trap "" INT QUIT; exec "$@"', "sh")
_OPTIONS: Final = ("-T", "-o", "ClearAllForwardings=yes", "-o", "ConnectTimeout=30")
# What it says of itself, and a shell of what it cannot run.
_OF_SSH: Final = 255
_NOT_FOUND: Final = 127
_NOT_RUN: Final = 126


def tunnel(target: Target, *, again: bool) -> socket.socket:
    """Return a socket whose other end is the daemon there, for the first time or `again`.

    Raises `CliError` that tells apart what is wrong.
    """
    program = shutil.which("ssh")
    if program is None:
        raise UnreachableError(
            f"cannot reach {target.name}: there is no `ssh` here", "Debian:  apt install openssh-client"
        )
    # What it says is for us to tell, and a full pipe would stop it.
    said = os.memfd_create("ssh")
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603  (the user's own ssh)
            [*_SHIELDED, program, *_words(target)],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=said,
            env=_environment(),
        )
    connection = _Tunnel(ours, target, process, said)
    try:
        _await(connection, target, AGAIN if again else FIRST_TIME)
    except BaseException:
        # It may be asking for a password, and nobody would type it any more.
        process.terminate()
        connection.close()
        raise
    return connection


def _await(connection: socket.socket, target: Target, seconds: float) -> None:
    if not select.select([connection], [], [], seconds)[0]:
        raise UnreachableError(f"cannot reach {target.name} (no answer)", _alone(target), code="timeout")


def _words(target: Target) -> tuple[str, ...]:
    port = ("-p", str(target.port)) if target.port else ()
    # A command line for the shell there.
    queuectl = os.environ.get("QUEUECTL_SSH_QUEUECTL") or "queuectl"
    return (*_OPTIONS, *port, "--", target.login, f"{queuectl} {shlex.join((*target.remote, 'dial-stdio'))}")


def _alone(target: Target) -> str:
    return f"Try it alone:  ssh {f'-p {target.port} ' * bool(target.port)}{target.login} true"


def _environment() -> dict[str, str]:
    # Should `ssh` be told to pass variables on: what says where the daemon is here would lead astray there.
    return {name: value for name, value in os.environ.items() if name != "QUEUECTL_HOST"}


class _Tunnel(socket.socket):
    """Our end; where it ends before a word was said, it says why."""

    def __init__(self, ours: socket.socket, target: Target, process: subprocess.Popen[bytes], said: int) -> None:
        super().__init__(fileno=ours.detach())
        self._target = target
        self._process = process
        self._said = said
        self._begun = False

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive; an empty answer is the end. Raises `CliError` if that is the beginning, too."""
        try:
            data = super().recv(bufsize, flags)
        except ConnectionError:
            data = b""
        if not data and not self._begun:
            raise self._explain()
        self._begun = True
        return data

    def close(self) -> None:
        """End it, at both ends."""
        if self._said < 0:
            return
        super().close()
        os.close(self._said)
        self._said = -1
        # It may stay for others, who share its connection to the host.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END)
        self._process.returncode = self._process.returncode or 0

    def _explain(self) -> UnreachableError:
        target = self._target
        try:
            status = self._process.wait(_END)
        except subprocess.TimeoutExpired:
            status = 0
        lines = self._lines()
        if status == _OF_SSH:
            return UnreachableError(f"ssh cannot reach {target.login}", *lines, _alone(target), code="ssh")
        if status in {_NOT_FOUND, _NOT_RUN}:
            return UnreachableError(
                f"there is no queuectl at {target.login} that ssh can run",
                *lines,
                "Name it:  QUEUECTL_SSH_QUEUECTL=/path/to/queuectl",
                code="ssh",
            )
        if status == 0:
            return LostError(
                f"lost the connection to queuectld at {target.name} (it closed the connection)",
                *lines,
                code="connection_lost",
            )
        if status == 2:
            return UnreachableError(
                f"the queuectl at {target.login} does not know what it was asked",
                *lines,
                "Bring both to the same version.",
                code="protocol",
                status=76,
            )
        return UnreachableError(
            f"no queuectld answers at {target.login}",
            *lines,
            code="unreachable",
            status=status if status in {77, 78} else 69,
        )

    def _lines(self) -> list[str]:
        """Return the last that was said there; what a host sends is not for the terminal as it is."""
        size = os.fstat(self._said).st_size
        text = os.pread(self._said, 4096, max(0, size - 4096)).decode(errors="replace")
        lines = ["".join(char if char.isprintable() else "?" for char in line.strip()) for line in text.splitlines()]
        return [line.removeprefix("Error: ") for line in lines if line][-5:]
