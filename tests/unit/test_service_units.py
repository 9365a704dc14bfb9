from __future__ import annotations

import os

import pytest

from queuectl_cli.service import installing
from queuectl_cli.service.systemd import Manager, manager_of
from queuectl_cli.service.units import plan_install, plan_uninstall, shipped

SYSTEM = manager_of("system", {})
USER = manager_of("user", {"HOME": "/home/ann"})


def installed(manager: Manager, *paths: str) -> bool:
    return manager.installed(set(paths).__contains__)


def test_a_queue_of_its_own_is_nobodys_service():
    assert manager_of("private", {}) is None


@pytest.mark.parametrize(
    ("manager", "path"),
    [
        (SYSTEM, "/etc/systemd/system/queuectld.service"),
        (SYSTEM, "/usr/lib/systemd/system/queuectld.service"),
        (USER, "/home/ann/.config/systemd/user/queuectld.service"),
        (USER, "/home/ann/.config/systemd/user/sockets.target.wants/queuectld.socket"),
        (USER, "/etc/systemd/user/default.target.wants/queuectld.service"),
    ],
)
def test_a_unit_makes_it_a_service(manager, path):
    assert installed(manager, path)


def test_a_unit_that_a_package_offers_to_every_user_makes_it_nobodys_service():
    assert not installed(USER, "/etc/systemd/user/queuectld.service", "/usr/lib/systemd/user/queuectld.service")


def test_what_is_removed_is_what_was_written_and_nothing_else():
    files = shipped()
    for manager in (SYSTEM, USER):
        written = {
            file.path for file in plan_install(manager, files, "/opt/bin", version=257, hardened=not manager.user).files
        }
        others = {f"{manager.units}/queuectld.service.d/override.conf", f"{manager.units}/other.service"}

        removal = plan_uninstall(manager, files, [], (written | others).__contains__)

        assert set(removal.paths) == written


def test_what_is_not_installed_is_not_stopped():
    assert plan_uninstall(USER, shipped(), [], lambda _: False).before == []


def test_instances_are_stopped_with_it():
    removal = plan_uninstall(
        SYSTEM, shipped(), ["queuectld@ann.socket"], lambda path: path.endswith("queuectld.socket")
    )

    assert removal.before[0] == ("systemctl", "disable", "--now", "queuectld.socket", "queuectld@ann.socket")


def hazards(monkeypatch, kinds):
    """What is said of /opt/bin, where each place has an owner and a mode."""

    def look(path):
        uid, mode = kinds.get(str(path), (0, 0o755))
        return os.stat_result((mode, 0, 0, 0, uid, 0, 0, 0, 0, 0))

    monkeypatch.setattr(os, "stat", look)
    return list(installing.hazards("/opt/bin"))


def test_a_place_that_is_roots_alone_is_no_hazard(monkeypatch):
    assert hazards(monkeypatch, {"/opt": (0, 0o1777)}) == []


@pytest.mark.parametrize(
    ("place", "kind", "said"),
    [
        ("/opt/bin/queuectld", (12345, 0o755), "belongs to user 12345, who so decides what root runs"),
        ("/opt", (12345, 0o755), "belongs to user 12345"),
        ("/opt/bin", (0, 0o777), "can be changed by others than root"),
        ("/opt", (0, 0o750), "is closed to other users"),
    ],
)
def test_a_place_that_others_can_change_or_cannot_reach_is_told_of(monkeypatch, place, kind, said):
    [warning] = hazards(monkeypatch, {place: kind})

    assert warning.startswith(f"{place} {said}")
