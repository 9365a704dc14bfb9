"""What `daemon install` writes and runs, and `daemon uninstall` takes away; decided here, done in `installing`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from queuectl_cli.errors import CliError
from queuectl_cli.service.systemd import SERVICE, SOCKET, SWEEP, TCP_SOCKET, Manager

# What stands in the units for the directory of our programs.
_PLACEHOLDER: Final = "/usr/bin/queuectl"
_RECENT: Final = "60-systemd-254.conf"
_HARDENING: Final = "queuectld@.service.d/50-hardening.conf"
# By name in our directory: what is no unit, and where it goes.
_BESIDE: Final = {
    "sysusers.conf": ("/etc/sysusers.d/queuectl.conf", ("systemd-sysusers",)),
    "tmpfiles.conf": ("/etc/tmpfiles.d/queuectl.conf", ("systemd-tmpfiles", "--create")),
}


class Write(NamedTuple):
    """A file, and what has to stand in it."""

    path: str
    text: str


class Plan(NamedTuple):
    """Files to write, then commands to run, each in this order."""

    files: Sequence[Write]
    commands: Sequence[tuple[str, ...]]


class Removal(NamedTuple):
    """Commands to run, then files to remove, then more commands."""

    before: Sequence[tuple[str, ...]]
    paths: Sequence[str]
    after: Sequence[tuple[str, ...]]


def shipped() -> Mapping[str, str]:
    """Return the files that come with us, by their name in ``deploy/systemd``. Raises `CliError`."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    # In an installation they are in the package; in a source tree beside it.
    for folder in (f"{package}/units", f"{os.path.dirname(package)}/deploy/systemd"):  # noqa: PTH120
        if os.path.isdir(folder):  # noqa: PTH112
            return {name: _read(f"{folder}/{name}") for name in _below(folder)}
    raise CliError("the units of systemd are not there; is this installation complete?")


def _below(folder: str) -> list[str]:
    return sorted(os.path.relpath(f"{place}/{name}", folder) for place, _, names in os.walk(folder) for name in names)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        return file.read()


def units_for(manager: Manager, files: Mapping[str, str], *, version: int, hardened: bool) -> dict[str, str]:
    """Return the units of one manager by their place in its directory, as far as systemd `version` knows them."""
    mine = {
        name.removeprefix("user/"): text
        for name, text in files.items()
        if name.endswith((".service", ".socket")) and name.startswith("user/") == manager.user
    }
    if version >= 254:
        services = [name for name in (SERVICE, "queuectld@.service") if name in mine]
        mine |= {f"{name}.d/{_RECENT}": files[_RECENT] for name in services}
    if hardened and not manager.user:
        mine[_HARDENING] = files[_HARDENING]
    return mine


def plan_install(
    manager: Manager, files: Mapping[str, str], programs: str, *, version: int, hardened: bool = False
) -> Plan:
    """Decide what is written and run, up to the start; `programs` is the directory of our programs."""
    units = units_for(manager, files, version=version, hardened=hardened)
    writes = [
        Write(f"{manager.units}/{name}", text.replace(_PLACEHOLDER, f"{programs}/queuectl"))
        for name, text in sorted(units.items())
    ]
    commands: list[tuple[str, ...]] = []
    if not manager.user:
        writes += [Write(path, files[name]) for name, (path, _) in _BESIDE.items()]
        commands += [(*command, path) for path, command in _BESIDE.values()]
    commands += [
        manager.systemctl("daemon-reload"),
        manager.systemctl("enable", SERVICE, SOCKET),
        manager.systemctl("start", SOCKET, SERVICE),
    ]
    return Plan(writes, commands)


def plan_uninstall(
    manager: Manager, files: Mapping[str, str], instances: Iterable[str], exists: Callable[[str], bool]
) -> Removal:
    """Decide what is taken away; `instances` are enabled units for single users."""
    everything = [f"{manager.units}/{name}" for name in units_for(manager, files, version=10_000, hardened=True)]
    if not manager.user:
        everything += [path for path, _ in _BESIDE.values()]
    units = [name for name in (SOCKET, TCP_SOCKET, SERVICE, SWEEP) if exists(f"{manager.units}/{name}")]
    before = [manager.systemctl("disable", "--now", *units, *sorted(instances))] if units else []
    if units and not manager.user:
        # Those that somebody has started, and nobody has enabled.
        before.append(manager.systemctl("stop", "queuectld*@*.socket", "queuectld*@*.service"))
    return Removal(before, sorted(filter(exists, everything)), [manager.systemctl("daemon-reload")])
