"""Carries out what `units` decides: programs found, files written and removed, systemd told."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Iterator, Sequence

from queuectl_cli.errors import CliError, UsageError
from queuectl_cli.service.systemd import Manager, manager_of, systemd_runs, tell
from queuectl_cli.service.units import Plan, Removal, Write
from queuectld.protocol.where import Places


def manager_for(places: Places) -> Manager:
    """Return whose service it is to be. Raises `UsageError` for a queue that is set apart."""
    manager = manager_of(places.scope, os.environ)
    if manager is None:
        raise UsageError(
            "a queue of its own (QUEUECTL_STATE_DIR) is no service",
            "Say which one is meant:  --user  or  --system",
        )
    return manager


def check_allowed(manager: Manager, verb: str) -> None:
    """Raises `CliError` where systemd does not run, or we are not root and it is that of the system."""
    if not systemd_runs():
        raise CliError(
            "systemd does not run here, so there is nothing to install a service in",
            "See what it would be:          queuectl daemon install -n",
            "Run it in the background:      queuectl daemon start",
            code="no_systemd",
        )
    if not manager.user and os.geteuid() != 0:
        raise CliError(
            f"only root can {verb} a service of the system",
            f"As root:  sudo queuectl daemon {verb}",
            f"Your own: queuectl --user daemon {verb}",
            code="permission",
            status=77,
        )


def check_no_package(manager: Manager) -> None:
    """Raises `CliError` if a package has installed the units: they would be hidden by ours."""
    for place in () if manager.user else manager.others:
        if os.path.exists(f"{place}/queuectld.service"):  # noqa: PTH110  (pathlib costs 3 ms)
            raise CliError(
                f"a package has installed the service already ({place}/queuectld.service)",
                "Enable it:  systemctl enable --now queuectld.socket queuectld.service",
                code="packaged",
            )


def programs() -> str:
    """Return the directory that has both of our programs. Raises `CliError`.

    Rather that of links to them: where these lead to may have another name after the next upgrade.
    """
    for place in (os.path.abspath(sys.argv[0]), os.path.realpath(sys.argv[0]), sys.executable):  # noqa: PTH100
        folder = os.path.dirname(place)  # noqa: PTH120
        if all(os.access(f"{folder}/{name}", os.X_OK) for name in ("queuectl", "queuectld")):
            return folder
    raise CliError(
        "the programs queuectl and queuectld are not installed where this runs from",
        "Install them first:  pipx install queuectl   or   pip install queuectl",
    )


def version() -> int:
    """Return the version of systemd; 0 if it is not there."""
    if shutil.which("systemctl") is None:
        return 0
    words = tell(("systemctl", "--version")).split()
    number = words[1].partition(".")[0] if len(words) > 1 else ""
    return int(number) if number.isdecimal() else 0


def hazards(folder: str) -> Iterator[str]:
    """Say what is wrong with a service of root that runs programs from this directory."""
    behind = os.path.dirname(os.path.realpath(f"{folder}/queuectld"))  # noqa: PTH120
    for place in (f"{folder}/queuectld", *_upwards(folder), *_upwards(behind)):
        found = os.stat(place)  # noqa: PTH116
        if found.st_uid != 0:
            yield f"{place} belongs to {_name(found.st_uid)}, who so decides what root runs"
            return
        if found.st_mode & 0o022 and not found.st_mode & 0o1000:
            yield f"{place} can be changed by others than root (mode {found.st_mode & 0o7777:o})"
            return
    for place in (*_upwards(folder), *_upwards(behind)):
        if not os.stat(place).st_mode & 0o001:  # noqa: PTH116
            yield f"{place} is closed to other users: queuectld@USER.service cannot run from there"
            return


def _upwards(folder: str) -> Iterator[str]:
    while True:
        yield folder
        if folder == "/":
            return
        folder = os.path.dirname(folder)  # noqa: PTH120


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def carry_out(plan: Plan) -> bool:
    """Write and run; return whether a file has changed. Raises `CliError`."""
    changed = [_write(file) for file in plan.files]
    for command in plan.commands:
        tell(command)
    return any(changed)


def _write(file: Write) -> bool:
    try:
        with open(file.path, encoding="utf-8") as before:  # noqa: PTH123
            if before.read() == file.text:
                return False
    except (OSError, UnicodeDecodeError):
        pass
    os.makedirs(os.path.dirname(file.path), mode=0o755, exist_ok=True)  # noqa: PTH103, PTH120
    draft = f"{file.path}.new"
    with open(draft, "w", encoding="utf-8") as fresh:  # noqa: PTH123
        os.fchmod(fresh.fileno(), 0o644)
        fresh.write(file.text)
    os.replace(draft, file.path)  # noqa: PTH105
    return True


def instances(manager: Manager) -> Sequence[str]:
    """Return the units for single users that are enabled."""
    found = [
        name
        for place in _folders(manager.units, ".wants")
        for name in os.listdir(place)  # noqa: PTH208
        if name.startswith("queuectld@") and not name.startswith("queuectld@.")
    ]
    return sorted(set(found))


def _folders(folder: str, end: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(end)]  # noqa: PTH208
    except OSError:
        return []


def remove(removal: Removal) -> None:
    """Stop, remove, and have systemd forget. Raises `CliError`."""
    for command in removal.before:
        tell(command)
    for path in removal.paths:
        os.unlink(path)  # noqa: PTH108
        if path.endswith(".conf"):
            _remove_empty(os.path.dirname(path))  # noqa: PTH120
    for command in removal.after:
        tell(command)


def _remove_empty(folder: str) -> None:
    # What an administrator has put beside our drop-in stays.
    if folder.endswith(".d") and "/queuectld" in folder and not os.listdir(folder):  # noqa: PTH208
        os.rmdir(folder)  # noqa: PTH106
