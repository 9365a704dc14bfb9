"""Where the daemon is: from what the user says and the environment to an address."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from queuectl_cli.errors import UsageError
from queuectld.protocol.where import SOCKET_RECORD, SYSTEM_SOCKET, Places, places


class Target(NamedTuple):
    """An address; ``path`` of a Unix socket, or ``host`` and ``port``."""

    path: str | None
    host: str
    port: int
    places: Places
    # Named by the user (-H, QUEUECTL_HOST); nothing is started there.
    explicit: bool
    # Where a daemon might have been, first the most likely.
    candidates: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        return self.path if self.path is not None else f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether it is a Unix socket, so that environment and directory mean something there."""
        return self.path is not None


def resolve(host: str | None, scope: str | None, env: Mapping[str, str]) -> Target:
    """Return where to connect. Raises `UsageError`."""
    where = places(env, os.getuid(), scope, os.path.isdir)
    url = host or (env.get("QUEUECTL_HOST") if scope is None else None)
    if url:
        return parse_url(url, where)
    candidates = _candidates(where, scope, _recorded)
    path = next((path for path in candidates if os.path.exists(path)), candidates[0])  # noqa: PTH110  (pathlib costs 3 ms)
    return Target(path, "", 0, where, explicit=False, candidates=candidates)


def parse_url(url: str, where: Places) -> Target:
    """Read ``unix:///path`` or ``tcp://host:port``. Raises `UsageError`."""
    scheme, sign, rest = url.partition("://")
    if scheme == "unix" and sign and rest.startswith("/"):
        return Target(rest, "", 0, where, explicit=True, candidates=(rest,))
    if scheme == "tcp" and sign:
        host, _, port = rest.rstrip("/").rpartition(":")
        if host and port.isdecimal() and 0 < int(port) < 65536:
            return Target(None, host.strip("[]"), int(port), where, explicit=True)
        raise UsageError(f"{url!r} needs a host and a port, as in tcp://127.0.0.1:7420")
    if scheme == "ssh" and sign:
        raise UsageError(
            f"{url!r}: this version does not connect over SSH by itself",
            "Forward the socket:  ssh -L /tmp/queuectl.sock:/run/queuectl/queuectl.sock HOST",
            "Then:                queuectl -H unix:///tmp/queuectl.sock …",
        )
    raise UsageError(f"{url!r} is not an address of a daemon; write unix:///path or tcp://host:port")


def _candidates(where: Places, scope: str | None, recorded: Callable[[str], str | None]) -> tuple[str, ...]:
    found = [recorded(where.state), where.socket, f"{where.state}/queuectl.sock"]
    if where.scope == "user":
        # The usual place wins over the record, which may be of a daemon before the last reboot.
        found = [where.socket, recorded(where.state), f"{where.state}/queuectl.sock"]
        if scope is None:
            found.append(SYSTEM_SOCKET)
    if where.scope == "system":
        found = [recorded(where.state), where.socket]
    return tuple(dict.fromkeys(path for path in found if path))


def _recorded(state: str) -> str | None:
    try:
        with open(f"{state}/{SOCKET_RECORD}", encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs 3 ms)
            return file.read().strip().removeprefix("unix://") or None
    except OSError:
        return None
