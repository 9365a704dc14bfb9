"""The service manager of the system, or of a user: where its units are, and how it is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from queuectl_cli.errors import CliError
from queuectl_cli.target import Target
from queuectld.protocol.where import SYSTEM_SOCKET, Places

SERVICE: Final = "queuectld.service"
SOCKET: Final = "queuectld.socket"
TCP_SOCKET: Final = "queuectld-tcp.socket"
SWEEP: Final = "queuectld-sweep.service"
# It is there where systemd runs.
_RUNS: Final = "/run/systemd/system"
_OF_PACKAGES: Final = ("/usr/lib/systemd/system", "/lib/systemd/system")
# A unit that is wanted by one of these is enabled.
_WANTS: Final = (
    "sockets.target.wants/queuectld.socket",
    "default.target.wants/queuectld.service",
    "multi-user.target.wants/queuectld.service",
)
# Seconds in which a service that stops has ended its jobs, by far.
_PATIENCE: Final = 600.0


class Manager(NamedTuple):
    """`units` is the directory for units that are installed by hand, `others` are those that packages fill."""

    user: bool
    units: str
    others: tuple[str, ...]

    def systemctl(self, *words: str) -> tuple[str, ...]:
        """Return a command line for it."""
        return ("systemctl", "--user", *words) if self.user else ("systemctl", *words)

    def installed(self, exists: Callable[[str], bool]) -> bool:
        """Whether QueueCTL is one of its services; of units that a package has for every user, if they are enabled."""
        if exists(f"{self.units}/{SERVICE}"):
            return True
        if not self.user:
            return any(exists(f"{place}/{SERVICE}") for place in self.others)
        return any(exists(f"{place}/{wants}") for place in (self.units, *self.others) for wants in _WANTS)


def manager_of(scope: str, env: Mapping[str, str]) -> Manager | None:
    """Return who would look after a daemon of this scope; nobody does after a queue of its own apart."""
    if scope == "system":
        return Manager(user=False, units="/etc/systemd/system", others=_OF_PACKAGES)
    if scope == "user":
        config = env.get("XDG_CONFIG_HOME") or f"{env.get('HOME') or '/'}/.config"
        return Manager(user=True, units=f"{config}/systemd/user", others=("/etc/systemd/user",))
    return None


def systemd_runs() -> bool:
    """Whether systemd is what started this machine."""
    return os.path.isdir(_RUNS)  # noqa: PTH112  (pathlib costs 3 ms)


def service_of(places: Places) -> Manager | None:
    """Return the manager that has the daemon of this place as an installed service; None if there is none."""
    manager = manager_of(places.scope, os.environ)
    if manager is None or not systemd_runs() or not manager.installed(os.path.lexists):
        return None
    return manager


def system_service() -> bool:
    """Whether QueueCTL is an installed service of the system."""
    manager = manager_of("system", os.environ)
    return manager is not None and systemd_runs() and manager.installed(os.path.lexists)


def tell(argv: tuple[str, ...]) -> str:
    """Run a command of the service manager, return what it prints. Raises `CliError` with what it said."""
    try:
        done = subprocess.run(  # noqa: S603  (fixed words)
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except FileNotFoundError:
        raise CliError(f"there is no program {argv[0]!r} here", "It belongs to systemd.", code="no_systemd") from None
    except subprocess.TimeoutExpired:
        raise CliError(f"`{' '.join(argv)}` did not end within {_PATIENCE:g} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CliError(f"`{' '.join(argv)}` failed (exit {done.returncode})", *said[-5:], code="systemd")
    return done.stdout.decode(errors="replace")


def show(manager: Manager, name: str, unit: str = SERVICE) -> str:
    """Return a property of a unit. Raises `CliError`."""
    return tell(manager.systemctl("show", "--property", name, "--value", unit)).strip()


def waking(manager: Manager) -> tuple[str, ...]:
    """Return the sockets for which systemd starts the service when somebody connects. Raises `CliError`."""
    return tuple(unit for unit in (SOCKET, TCP_SOCKET) if show(manager, "ActiveState", unit) == "active")


def listens(manager: Manager) -> bool:
    """Whether systemd listens for the service, and starts it when somebody connects. Raises `CliError`."""
    return show(manager, "ActiveState", SOCKET) == "active"


def asleep(manager: Manager) -> bool:
    """Whether it does not run, and would be woken by a look. Raises `CliError`."""
    return show(manager, "ActiveState") in {"inactive", "failed"} and listens(manager)


def stopped(target: Target) -> bool:
    """Whether somebody stops or has stopped the service for which systemd listens: to connect would undo that."""
    manager = listener(target)
    if manager is None or not systemd_runs():
        return False
    try:
        return show(manager, "ActiveState") in {"inactive", "deactivating", "failed"} and listens(manager)
    except CliError:
        return False


def listener(target: Target) -> Manager | None:
    """Return whose service it would be that listens there; None if that is nobody's usual place."""
    if target.path == SYSTEM_SOCKET:
        return manager_of("system", os.environ)
    mine = target.places.scope == "user" and target.path == target.places.socket
    return manager_of("user", os.environ) if mine else None


def lingers(user: str) -> bool:
    """Whether the services of a user go on when he logs out."""
    return os.path.exists(f"/var/lib/systemd/linger/{user}")  # noqa: PTH110  (pathlib costs 3 ms)
