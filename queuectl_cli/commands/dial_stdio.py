"""``queuectl dial-stdio``: the other end of ``ssh://``; passes bytes between its stdin and stdout and the daemon."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Final

import click

from queuectl_cli.client import dial
from queuectl_cli.errors import UsageError
from queuectl_cli.options import App, common

_PIECE: Final = 262_144


@click.command("dial-stdio")
@common()
@click.pass_obj
def dial_stdio(app: App) -> None:
    """Speak the protocol on stdin and stdout, with the daemon of this host: what ssh:// runs at the other end.

    A daemon that does not run is not started: it would end with the session.
    """
    from threading import Thread  # noqa: PLC0415  (only here)

    target = app.target()
    if not target.local:
        raise UsageError(f"dial-stdio speaks with a daemon of its own host, and {target.name} is none")
    connection = dial(target)
    connection.settimeout(None)
    Thread(target=_ask, args=(connection,), daemon=True).start()
    # When the daemon has answered to the end, we end, whether or not anybody would ask more.
    _answer(connection)


def _ask(connection: socket.socket) -> None:
    # Either end may be gone: the other direction tells.
    with suppress(OSError):
        while data := os.read(0, _PIECE):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def _answer(connection: socket.socket) -> None:
    while data := _received(connection):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(1, rest) :]


def _received(connection: socket.socket) -> bytes:
    with suppress(ConnectionError):
        return connection.recv(_PIECE)
    return b""
