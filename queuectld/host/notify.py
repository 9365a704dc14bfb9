"""Tells the service manager how we are, as `sd_notify(3)` describes; says nothing where nobody asks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """One service manager, or none. Never blocks and never fails: who does not listen misses something."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` is that of this process: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog = watchdog_seconds(environ, os.getpid())
        if self._address.startswith("@"):
            # Of the abstract namespace, whose names begin with a zero byte.
            self._address = "\0" + self._address[1:]

    @property
    def watchdog(self) -> float | None:
        """Within how many seconds `alive` has to be said, again and again; None: nobody waits for it."""
        return self._watchdog if self._address else None

    def ready(self, status: str) -> None:
        """We serve; also at the end of a reload."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """We take up something new; `ready` follows."""
        # Since when, so that the manager can tell this from what it heard of an earlier one.
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")

    def stopping(self, status: str, seconds: float) -> None:
        """We end, and have this long before somebody should lose patience; may be said again."""
        self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", f"STATUS={status}")

    def alive(self) -> None:
        """We get on."""
        self._say("WATCHDOG=1")

    def status(self, status: str) -> None:
        """How we are, in a line for people."""
        self._say(f"STATUS={status}")

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            try:
                connection.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, self._address)
            except OSError:
                return


def service_manager(environ: Mapping[str, str], pid: int) -> str | None:
    """Return who keeps this process up, `systemd` or `supervisord`; None if nobody says so, or says it to another."""
    if environ.get("SYSTEMD_EXEC_PID") == str(pid):
        return "systemd"
    return "supervisord" if environ.get("SUPERVISOR_ENABLED") else None


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how patient the watchdog of the service manager is with this process; None if it does not watch it."""
    given = environ.get("WATCHDOG_USEC", "")
    if not (given.isascii() and given.isdigit()) or int(given) == 0:
        return None
    return int(given) / 1e6 if environ.get("WATCHDOG_PID", str(pid)) == str(pid) else None
