"""The service of systemd: whether it is one, whether that is in order, and whether it outlives a log-out."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator

from queuectl_cli.client import Message
from queuectl_cli.doctor.finding import FAIL, OK, WARN, Finding
from queuectl_cli.errors import CliError
from queuectl_cli.service.systemd import SERVICE, SOCKET, Manager, lingers, listener, show, systemd_runs
from queuectl_cli.target import Target


def service(target: Target, status: Message | None) -> Iterator[Finding]:
    """Look at the service that is behind a socket; `status` is what the daemon says, if one answers."""
    manager = listener(target)
    if manager is None or not systemd_runs():
        return
    if not manager.installed(os.path.lexists):
        yield Finding("service", OK, "it is no service of systemd; `queuectl daemon install` makes it one")
        return
    try:
        yield _state(manager, status)
    except CliError as error:
        yield Finding("service", WARN, error.message, " ".join(error.hints))
    if manager.user and not lingers(user := getpass.getuser()):
        yield Finding(
            "linger", WARN, "it ends with your last session, and its jobs too", f"loginctl enable-linger {user}"
        )


def _state(manager: Manager, status: Message | None) -> Finding:
    active, result, pid = (show(manager, name) for name in ("ActiveState", "Result", "MainPID"))
    if active == "failed":
        units = f"{SERVICE} {SOCKET}"
        user = "--user " * manager.user
        hint = f"See why:  journalctl {user}-u {SERVICE} -n 20   Then:  systemctl {user}reset-failed {units}"
        return Finding("service", FAIL, f"{SERVICE} has failed ({result}), and is not started again", hint)
    if status is not None and active == "active" and str(status["pid"]) != pid:
        hint = "Let the service take over:  queuectl daemon restart"
        return Finding("service", WARN, f"the daemon (pid {status['pid']}) is not {SERVICE} (pid {pid})", hint)
    if status is not None and active != "active":
        hint = "Let the service take over:  queuectl daemon restart"
        return Finding("service", WARN, f"{SERVICE} is {active}; the daemon was started by hand", hint)
    return Finding("service", OK, f"{SERVICE} is {active}")
