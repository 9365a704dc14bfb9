"""Sockets that a service manager listens on and passes to us, as `sd_listen_fds(3)` describes.

They are its own: neither made, nor given a mode, nor removed by us, and after a re-exec passed to us again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import structlog

from queuectld.errors import BadConfigError
from queuectld.host.handover import passed_descriptors

log = structlog.get_logger()

# Their names in the socket units (`FileDescriptorName=`).
CONTROL: Final = "control"
TCP: Final = "tcp"

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)


class Found(NamedTuple):
    """A descriptor that was passed, and what it is. `family` is None if it is no socket."""

    descriptor: int
    name: str
    family: int | None = None
    stream: bool = False
    listens: bool = False
    # The path, or ``host:port``; empty for a Unix socket without a file.
    where: str = ""


class PassedSockets(NamedTuple):
    """What we listen on; a program that is passed none listens where it is configured to."""

    control: Found | None = None
    tcp: Found | None = None
    # Those that are not for us.
    strange: tuple[Found, ...] = ()


NONE_PASSED: Final = PassedSockets()


def passed_sockets(environ: Mapping[str, str]) -> PassedSockets:
    """Return the sockets that were passed to this process. Raises `BadConfigError` if one cannot be what it is for."""
    descriptors = passed_descriptors(environ)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (len(descriptors) - len(names))
    passed = assign(_look(descriptor, name) for descriptor, name in zip(descriptors, names, strict=False))
    for one in passed.strange:
        log.warning(
            "A socket that the service manager passed is not used: FileDescriptorName= has to be control or tcp",
            event_name="server.strange_socket",
            key=one.name,
            address=one.where,
        )
    return passed


def assign(found: Iterable[Found]) -> PassedSockets:
    """Decide what each socket is for: by its name, or where that says nothing, by its kind. Raises `BadConfigError`."""
    given: dict[str, Found] = {}
    unnamed: list[Found] = []
    strange: list[Found] = []
    for one in found:
        if one.name not in {CONTROL, TCP}:
            unnamed.append(one)
            continue
        _check(one)
        if one.name in given:
            strange.append(one)
        else:
            given[one.name] = one
    for one in unnamed:
        use = _by_kind(one)
        if use is None or use in given:
            strange.append(one)
        else:
            given[use] = one
    return PassedSockets(given.get(CONTROL), given.get(TCP), tuple(strange))


def _by_kind(one: Found) -> str | None:
    if not (one.stream and one.listens):
        return None
    if one.family == socket.AF_UNIX:
        return CONTROL if one.where else None
    return TCP if one.family in _INTERNET else None


def _check(one: Found) -> None:
    wanted = (socket.AF_UNIX,) if one.name == CONTROL else _INTERNET
    kind = "a Unix socket with a path" if one.name == CONTROL else "a TCP socket"
    if one.family in wanted and one.stream and one.listens and one.where:
        return
    raise BadConfigError(
        f"the service manager passed something as `{one.name}` that is not {kind} which listens: look at "
        f"ListenStream=, FileDescriptorName= and Accept= of its socket unit (descriptor {one.descriptor})"
    )


def _look(descriptor: int, name: str) -> Found:
    try:
        # Of a duplicate, so that nothing happens to what was passed.
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            stream = sock.type == socket.SOCK_STREAM
            return Found(descriptor, name, sock.family, stream, listens, _where(sock))
    except OSError:
        return Found(descriptor, name)


def _where(sock: socket.socket) -> str:
    match sock.getsockname():
        case str(path):
            return path
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return ""
