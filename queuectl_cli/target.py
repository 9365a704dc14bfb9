"""Where the daemon is: from what the user says and the environment to an address."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from queuectl_cli.errors import UsageError
from queuectld.protocol.where import SOCKET_RECORD, SYSTEM_SOCKET, Places, places

# Signs that no name has, and that a shell takes for more than themselves.
_FOR_SHELLS: Final = frozenset(" '`\"$;&<>|(){}*?!")


class Trust(NamedTuple):
    """By what a daemon is known over TLS, and what we show it: names of files, and a fingerprint."""

    ca: str | None = None
    fingerprint: str | None = None
    cert: str | None = None
    key: str | None = None


class Target(NamedTuple):
    """An address; ``path`` of a Unix socket, or ``host`` and ``port`` (over SSH 0: the usual one)."""

    path: str | None
    host: str
    port: int
    places: Places
    # Named by the user (-H, QUEUECTL_HOST); nothing is started there.
    explicit: bool
    # Where a daemon might have been, first the most likely.
    candidates: tuple[str, ...] = ()
    # ``unix``, ``tcp``, ``tls`` or ``ssh``.
    scheme: str = "unix"
    trust: Trust = Trust()
    # Over SSH: as whom, and what `queuectl` is told there.
    user: str = ""
    remote: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        if self.path is not None:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.scheme == "ssh":
            return f"ssh://{f'{self.user}@' * bool(self.user)}{host}{f':{self.port}' * bool(self.port)}"
        return f"{host}:{self.port}"

    @property
    def login(self) -> str:
        """What `ssh` is told: ``user@host``."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def local(self) -> bool:
        """Whether it is a Unix socket, so that environment and directory mean something there."""
        return self.path is not None


def resolve(host: str | None, scope: str | None, env: Mapping[str, str]) -> Target:
    """Return where to connect. Raises `UsageError`."""
    where = places(env, os.getuid(), scope, os.path.isdir)
    url = host or (env.get("QUEUECTL_HOST") if scope is None else None)
    if url:
        target = parse_url(url, where)
        return target._replace(remote=(f"--{scope}", *target.remote)) if scope and target.scheme == "ssh" else target
    candidates = _candidates(where, scope, _recorded)
    path = next((path for path in candidates if os.path.exists(path)), candidates[0])  # noqa: PTH110  (pathlib costs 3 ms)
    return Target(path, "", 0, where, explicit=False, candidates=candidates)


def parse_url(url: str, where: Places) -> Target:
    """Read ``unix:///path``, ``tcp://host:port``, ``tls://host:port`` or ``ssh://host``. Raises `UsageError`."""
    scheme, sign, rest = url.partition("://")
    if scheme == "unix" and sign and rest.startswith("/"):
        return Target(rest, "", 0, where, explicit=True, candidates=(rest,))
    if scheme in {"tcp", "tls"} and sign:
        host, port = _split(rest.rstrip("/"))
        if host and port:
            return Target(None, host, port, where, explicit=True, scheme=scheme)
        raise UsageError(f"{url!r} needs a host and a port, as in {scheme}://127.0.0.1:7420")
    if scheme == "ssh" and sign:
        return _over_ssh(url, rest, where)
    raise UsageError(f"{url!r} is not an address of a daemon; write unix:///path, tls://host:port or ssh://host")


def _split(address: str) -> tuple[str, int | None]:
    """Return host and port; no port: 0; one that is none: None."""
    host, sign, port = address.rpartition(":")
    if not sign or port.endswith("]"):
        return address.strip("[]"), 0
    return host.strip("[]"), int(port) if port.isdecimal() and 0 < int(port) < 65536 else None


def _over_ssh(url: str, rest: str, where: Places) -> Target:
    place, _, path = rest.partition("/")
    user, _, address = place.rpartition("@")
    host, port = _split(address)
    # `ssh` would take what begins with a dash for an option, and its settings may have a shell read the rest.
    odd = any(word.startswith("-") or not word.isprintable() or _FOR_SHELLS & {*word} for word in (user, host))
    if not host or port is None or odd:
        raise UsageError(f"{url!r} needs a host, as in ssh://alice@example.org or ssh://example.org:2222")
    remote = ("-H", f"unix:///{path}") if path else ()
    return Target(None, host, port, where, explicit=True, scheme="ssh", user=user, remote=remote)


def _candidates(where: Places, scope: str | None, recorded: Callable[[str], str | None]) -> tuple[str, ...]:
    found = [recorded(where.state), where.socket, f"{where.state}/queuectl.sock"]
    if where.scope == "user":
        # The usual place wins over the record, which may be of a daemon before the last reboot.
        found = [where.socket, recorded(where.state), f"{where.state}/queuectl.sock"]
        # Where systemd runs one for this user, started by root.
        found.append(f"{os.path.dirname(SYSTEM_SOCKET)}/{_user()}.sock")  # noqa: PTH120  (pathlib costs 3 ms)
        if scope is None:
            found.append(SYSTEM_SOCKET)
    if where.scope == "system":
        found = [recorded(where.state), where.socket]
    return tuple(dict.fromkeys(path for path in found if path))


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _recorded(state: str) -> str | None:
    try:
        with open(f"{state}/{SOCKET_RECORD}", encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs 3 ms)
            return file.read().strip().removeprefix("unix://") or None
    except OSError:
        return None
