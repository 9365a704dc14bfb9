"""The unit of systemd that we are the main process of, and what systemd is about to do with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

# Seconds for what takes a few milliseconds.
PATIENCE: Final = 2.0


class Unit(NamedTuple):
    """A service, and whether it is one of a user's manager."""

    name: str
    user: bool

    def asking_for_jobs(self) -> tuple[str, ...]:
        """Return the command that prints what `job_of` reads."""
        manager = ("--user",) if self.user else ()
        return ("systemctl", *manager, "list-jobs", "--no-legend", "--plain", "--full", "--no-pager", "--", self.name)


def our_unit(environ: Mapping[str, str], pid: int, cgroups: str) -> Unit | None:
    """Return our unit; None if systemd did not start us.

    `environ` and `pid` are those of this process, `cgroups` is what stands in ``/proc/self/cgroup``.
    """
    if "INVOCATION_ID" not in environ or environ.get("SYSTEMD_EXEC_PID", str(pid)) != str(pid):
        # The variables were inherited from somebody who is a service.
        return None
    for line in cgroups.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" or controllers == "name=systemd":
            *above, name = _down_to_the_service(path.split("/"))
            if name:
                return Unit(name, any(part.startswith("user@") for part in above))
    return None


def _down_to_the_service(parts: list[str]) -> list[str]:
    # It may be in a cgroup below that of the service.
    while parts and not parts[-1].endswith(".service"):
        parts = parts[:-1]
    return parts or [""]


def job_of(said: str, unit: Unit) -> str | None:
    """Return what the manager is doing with the unit: ``stop``, ``restart``, …; None if that is nothing."""
    for line in said.splitlines():
        # Its number, the unit, the type, the state.
        words = line.split()
        if len(words) >= 3 and words[1] == unit.name:
            return words[2]
    return None
