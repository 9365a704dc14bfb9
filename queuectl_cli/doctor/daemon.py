"""The daemon: its socket, whether it answers, and what it says of itself."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Final

from queuectl_cli.client import Client, Message
from queuectl_cli.commands.status import LATE
from queuectl_cli.doctor.finding import FAIL, OK, WARN, Finding
from queuectl_cli.errors import CliError
from queuectl_cli.isolation import in_words
from queuectl_cli.options import App
from queuectl_cli.target import Target
from queuectld.protocol.words import VERSION

# Seconds in which a healthy one answers many times over.
_PATIENCE: Final = 3.0
# Seconds in which people manage to renew a certificate.
_SOON: Final = 14 * 86400.0


def socket(app: App, target: Target, found: list[Client]) -> Iterator[Finding]:
    """Look whether a daemon listens and greets; the connection to it goes into `found`."""
    yield from _token(app, target)
    try:
        found.append(app.open(target, patience=_PATIENCE))
    except CliError as error:
        # A queue whose daemon starts with the first job is not broken.
        asleep = error.code == "no_socket" and not target.explicit
        yield Finding("socket", WARN if asleep else FAIL, error.message, " ".join(error.hints))
        return
    yield Finding("socket", OK, f"{target.name}{_mode(target)} answers")
    yield from certificate(found[0].certificate(), time.time())


def certificate(shown: Message, now: float) -> Iterator[Finding]:
    """Look how long the daemon's certificate is still good for."""
    if "notAfter" not in shown:
        return
    from ssl import cert_time_to_seconds  # noqa: PLC0415  (loaded by now)

    left = cert_time_to_seconds(shown["notAfter"]) - now
    text = f"the daemon's certificate is valid until {shown['notAfter']}"
    if left < _SOON:
        yield Finding("certificate", WARN, text, "Renew it at the daemon, then:  queuectl daemon reload")
    else:
        yield Finding("certificate", OK, text)


def _token(app: App, target: Target) -> Iterator[Finding]:
    name = app.token_name(target)
    try:
        mode = os.stat(name).st_mode if name else 0  # noqa: PTH116  (pathlib costs 3 ms)
    except OSError:
        # Said by whoever reads it.
        return
    if mode & 0o007:
        yield Finding("token", WARN, f"everybody on this host can read {name}", f"chmod o= {name}")


def _mode(target: Target) -> str:
    if target.path is None:
        return ""
    return f", mode {stat.S_IMODE(os.stat(target.path).st_mode):04o},"  # noqa: PTH116  (pathlib costs 3 ms)


def server(status: Message) -> Iterator[Finding]:
    """Look at what the daemon says of itself."""
    text = f"queuectld {status['version']}, {status['phase']} (pid {status['pid']}, {status['user']})"
    if status["version"] != VERSION:
        hint = "Bring both to the same version, then:  queuectl daemon reexec"
        yield Finding("daemon", WARN, f"{text}; queuectl is {VERSION}", hint)
    elif status["phase"] != "running":
        yield Finding("daemon", WARN, text, "It is stopping, and takes no new jobs.")
    else:
        yield Finding("daemon", OK, text)
    for problem in status["problems"]:
        yield Finding("daemon", FAIL, problem, "The daemon's log says more:  queuectl help logs")
    # An older daemon does not tell these.
    if "loop" in status:
        yield from _loop(status["loop"])
    if "isolation" in status:
        yield from _isolation(status["isolation"])


def _loop(loop: Message) -> Iterator[Finding]:
    lag, most = (f"{loop[name] * 1000:.0f} ms" for name in ("lag", "max_lag"))
    text = f"late by {lag}, at most by {most}; it stood still {loop['stalls']} times"
    if loop["lag"] > LATE or loop["stalls"]:
        hint = "The host or its disk is overloaded; the daemon's log has what it waited for."
        yield Finding("loop", WARN, text, hint)
    else:
        yield Finding("loop", OK, text)


def _isolation(isolation: Message) -> Iterator[Finding]:
    if isolation["cgroup"] is None:
        hint = "As a service with Delegate=yes the daemon has cgroups of its own."
        yield Finding("isolation", WARN, in_words(isolation), hint)
    else:
        yield Finding("isolation", OK, f"{in_words(isolation)}; in {isolation['cgroup']}")
