"""The units as they are shipped: systemd has nothing to say about them, and those of a kind say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from queuectl_cli.service.systemd import Manager
from queuectl_cli.service.units import plan_install, shipped, units_for

SYSTEM = Manager(user=False, units="/etc/systemd/system", others=())
USER = Manager(user=True, units="/home/ann/.config/systemd/user", others=())
PROGRAMS = f"{sys.prefix}/bin"
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def lay_out(place: Path, manager: Manager, *, version: int = 252, hardened: bool = False) -> list[str]:
    """Write the units as an installation does, below another root; return those that can be looked at."""
    plan = plan_install(manager, shipped(), PROGRAMS, version=version, hardened=hardened)
    names = []
    for file in plan.files:
        if not file.path.startswith(f"{manager.units}/"):
            continue
        name = file.path.removeprefix(f"{manager.units}/").replace("@.", "@someone.")
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(file.text)
        names.append(name)
    return [name for name in names if "/" not in name]


@needs_analyze
@pytest.mark.parametrize("manager", [SYSTEM, USER], ids=["system", "user"])
def test_systemd_has_nothing_to_say_about_any_unit(manager: Manager, tmp_path: Path) -> None:
    names = lay_out(tmp_path, manager)
    assert len(names) >= 4
    words = ["systemd-analyze", "verify", "--man=no", *(["--user"] if manager.user else [])]

    # Where a user's manager has its sockets it does not matter here.
    env = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run([*words, *names], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def exposure(place: Path, unit: str) -> float:
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(place / unit)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found
    return float(found[1])


@needs_analyze
def test_what_is_hardened_is_exposed_little(tmp_path: Path) -> None:
    lay_out(tmp_path, SYSTEM, hardened=True)

    assert exposure(tmp_path, "queuectld@someone.service") <= 2.2


def settings(text: str) -> set[str]:
    return {line for line in text.splitlines() if "=" in line and not line.startswith("#")}


# In what the service of one user may differ from that of the system, and that of a user's own manager.
OWN = (
    "Description",
    "Wants",
    "After",
    "OnFailure",
    "User",
    "UMask",
    "Environment",
    "EnvironmentFile",
    "ExecStart",
    "ExecReload",
    "OOMScoreAdjust",
    "StateDirectory",
    "StateDirectoryMode",
    "ConfigurationDirectory",
    "LogsDirectory",
    "LogsDirectoryMode",
    "SyslogIdentifier",
    "WantedBy",
    "Also",
)


@pytest.mark.parametrize("name", ["queuectld@.service", "user/queuectld.service"])
def test_all_kinds_of_the_service_stop_restart_and_watch_alike(name: str) -> None:
    files = shipped()

    differing = settings(files[name]) ^ settings(files["queuectld.service"])

    assert {line.partition("=")[0] for line in differing} <= set(OWN)


def test_every_unit_is_installed_with_the_programs_that_are_there() -> None:
    plan = plan_install(SYSTEM, shipped(), "/opt/q/bin", version=252)

    written = {file.path: file.text for file in plan.files}
    assert all("/usr/bin/queuectl" not in text for text in written.values())
    assert "ExecStart=/opt/q/bin/queuectld --system" in written["/etc/systemd/system/queuectld.service"]
    assert {"/etc/sysusers.d/queuectl.conf", "/etc/tmpfiles.d/queuectl.conf"} <= written.keys()


@pytest.mark.parametrize("manager", [SYSTEM, USER], ids=["system", "user"])
def test_only_a_systemd_that_knows_them_gets_the_settings_of_later_ones(manager: Manager) -> None:
    def drop_ins(version: int) -> list[str]:
        return [name for name in units_for(manager, shipped(), version=version, hardened=False) if ".d/" in name]

    assert drop_ins(253) == []
    assert "queuectld.service.d/60-systemd-254.conf" in drop_ins(254)


def test_nothing_is_hardened_that_nobody_asked_to_be() -> None:
    files = shipped()

    assert "queuectld@.service.d/50-hardening.conf" not in units_for(SYSTEM, files, version=252, hardened=False)
    assert "queuectld@.service.d/50-hardening.conf" in units_for(SYSTEM, files, version=252, hardened=True)
    assert all(".d/" not in name for name in units_for(USER, files, version=252, hardened=True))
