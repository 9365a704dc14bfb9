"""The Debian package in a machine of its own: installed, used, upgraded under running jobs, removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectld.protocol.words import VERSION
from tests.packaging.conftest import NEWER
from tests.sysbox.box import Box, boot
from tests.system.waiting import wait_for

# Whoever comes first builds the packages.
pytestmark = pytest.mark.timeout(300)
OLD, NEW = "/debs/old.deb", "/debs/new.deb"
LIB, STATE, CONFIG = "/usr/lib/queuectl", "/var/lib/queuectl", "/etc/queuectl/queuectld.toml"
UNITS = ("queuectld.service", "queuectld.socket")
# A few dozen that are over soon, and say each time that they have run.
MANY = "yes 'echo $QUEUECTL_JOB_ID >>/root/ran; sleep 0.05' | head -n 60 | queuectl enqueue --lines -"
# Workers are started and ended all the time.
RESTLESS = "until [ -e /root/enough ]; do queuectl config set workers 6; queuectl config set workers 1; done"


@pytest.fixture(scope="module")
def machine(debs: Path) -> Iterator[Box]:
    with boot({}, {"/debs": debs}) as box:
        # In images of containers nothing may be started; this one is a machine.
        box.run("rm", "-f", "/usr/sbin/policy-rc.d")
        yield box


@pytest.fixture
def bare(machine: Box) -> Iterator[Box]:
    """A machine without it."""
    yield machine
    machine.run("dpkg", "--purge", "queuectl")
    assert leftovers(machine) == ""
    assert processes(machine) == ""


@pytest.fixture
def box(bare: Box) -> Box:
    """A machine in which this version is installed."""
    install(bare, OLD)
    return bare


def install(box: Box, deb: str) -> str:
    return box.run("sh", "-c", f"dpkg --install --force-confold {deb} 2>&1")


def leftovers(box: Box) -> str:
    """Return files of ours, but for the records of what was once logged and installed."""
    places = ("/etc", "/run", "/usr/bin", "/usr/lib", "/var/lib", "/var/log", "/var/spool")
    return box.run("find", *places, "-xdev", "-maxdepth", "4", "-name", "queuectl*", check=False)


def processes(box: Box) -> str:
    """Return what runs of ours. The brackets: or grep would find itself."""
    return box.run("sh", "-c", "grep -als '[q]ueuectl' /proc/[0-9]*/cmdline | xargs -r head", check=False)


def queuectl(box: Box, *words: str, check: bool = True) -> Any:
    said = box.run("env", "QUEUECTL_AUTOSTART=0", "queuectl", *words, check=check)
    return json.loads(said) if "json" in words else said


def job(box: Box, name: str) -> dict[str, Any]:
    (found,) = queuectl(box, "show", name, "-o", "json")
    return dict(found)


def daemon(box: Box) -> tuple[str, str]:
    """Return version and process of the one that answers."""
    status = queuectl(box, "status", "-o", "json")
    return status["version"], str(status["pid"])


def start_a_job(box: Box) -> None:
    """Start one that ends when `/root/go` is there."""
    box.run("rm", "-f", "/root/go")
    queuectl(box, "enqueue", "--id", "long", "until [ -e /root/go ]; do sleep 0.02; done; echo done")
    wait_for(lambda: job(box, "long")["state"] == "processing", "it runs")


def finish_the_job(box: Box) -> None:
    box.run("touch", "/root/go")
    wait_for(lambda: job(box, "long")["state"] == "completed", "it is through")
    assert job(box, "long")["attempts"] == 1
    assert queuectl(box, "logs", "long") == "done"


def test_it_runs_as_soon_as_it_is_installed(box: Box) -> None:
    assert [box.property(unit, "ActiveState") for unit in UNITS] == ["active", "active"]
    assert [box.property(unit, "UnitFileState") for unit in UNITS] == ["enabled", "enabled"]

    assert queuectl(box, "run", "--", "echo", "hello") == "hello"

    assert daemon(box) == (VERSION, box.property("queuectld", "MainPID"))
    assert box.run("stat", "-c", "%G %a", "/run/queuectl/queuectl.sock") == "queuectl 660"
    assert box.run("id", "-gn", "queuectl") == "queuectl"


def test_members_of_the_group_may_use_it_with_their_own_rights_and_nobody_else(box: Box) -> None:
    for user, groups in {"member": "queuectl", "stranger": ""}.items():
        box.run("useradd", "--create-home", "--groups", groups, user)
    who = "queuectl --system run -- id -un 2>&1"

    assert box.run("runuser", "-u", "member", "--", "sh", "-c", who) == "member"

    assert box.run("runuser", "-u", "stranger", "--", "sh", "-c", who, check=False).startswith("Error: ")
    (one,) = queuectl(box, "list", "-o", "json")
    assert one["owner"] == "member"


def test_the_configuration_it_comes_with_is_valid_and_says_what_the_defaults_are(box: Box) -> None:
    settings = queuectl(box, "config", "list", "-o", "json")
    decided = {row["key"] for row in settings if row["origin"] == "file"}
    before = [row["value"] for row in settings]

    box.run("sed", "-i", r"s/^#\([^#]\)/\1/", CONFIG)
    box.run("systemctl", "restart", "queuectld")

    settings = queuectl(box, "config", "list", "-o", "json")
    assert decided == {"socket_mode", "socket_group"}
    assert {row["origin"] for row in settings} == {"file"}
    assert [row["value"] for row in settings] == before


def test_an_upgrade_is_taken_up_in_the_same_process_while_a_job_goes_on(box: Box) -> None:
    start_a_job(box)
    _, before = daemon(box)

    said = install(box, NEW)

    assert f"queuectld {NEWER} has taken over from {VERSION} (pid {before})" in said
    assert daemon(box) == (NEWER, before)
    assert (box.property("queuectld", "MainPID"), box.property("queuectld", "NRestarts")) == (before, "0")
    finish_the_job(box)


def test_an_upgrade_in_the_midst_of_work_loses_nothing_and_starts_nothing_that_is_half_there(box: Box) -> None:
    box.run("sh", "-c", f"rm -f /root/ran /root/enough; ({RESTLESS}) >/dev/null 2>&1 &")

    for deb in (NEW, OLD):
        box.run("sh", "-c", MANY)
        install(box, deb)

    box.run("sh", "-c", MANY)
    queuectl(box, "wait", "--state", "pending,processing")
    box.run("touch", "/root/enough")
    version, pid = daemon(box)
    assert version == VERSION
    jobs = queuectl(box, "list", "--limit", "1000", "-o", "json")
    assert [(one["state"], one["attempts"]) for one in jobs] == [("completed", 1)] * 180
    assert sorted(box.read("/root/ran").split()) == sorted(one["id"] for one in jobs)
    journal = [json.loads(line) for line in box.journal("queuectld").splitlines() if line.startswith("{")]
    logged = [line for line in journal if str(line["pid"]) == pid]
    assert [line for line in logged if line["level"] not in {"debug", "info"}] == []
    assert sum(line["event"] == "worker.started" for line in logged) > 20


def test_a_release_stays_as_long_as_something_runs_from_it(box: Box) -> None:
    own = ["runuser", "-u", "nobody", "--", "env", "HOME=/tmp/own", "QUEUECTL_STATE_DIR=/tmp/own/state", "queuectl"]
    box.run("install", "-d", "-o", "nobody", "/tmp/own")
    box.run(*own, "daemon", "start")
    install(box, NEW)
    assert len(box.run("ls", f"{LIB}/releases").split()) == 2

    # The worker of it that is needed only now.
    assert box.run(*own, "run", "--", "echo", "hello") == "hello"
    assert VERSION in box.run(*own, "status")

    box.run(*own, "daemon", "stop")
    box.run("systemctl", "stop", "queuectld")
    install(box, NEW)
    assert box.run("ls", f"{LIB}/releases").startswith(NEWER)
    box.run("rm", "-rf", "/tmp/own")


def test_the_service_of_a_single_user_is_renewed_under_its_jobs_too(box: Box) -> None:
    own = ["runuser", "-u", "games", "--", "env", "QUEUECTL_HOST=unix:///run/queuectl/games.sock", "queuectl"]
    box.run("systemctl", "start", "queuectld@games.socket")
    box.run(*own, "enqueue", "--id", "long", "until [ -e /tmp/go ]; do sleep 0.02; done; id -un")
    wait_for(lambda: "processing" in box.run(*own, "show", "long"), "it runs")

    install(box, NEW)

    assert f"queuectld {NEWER}" in box.run(*own, "status")
    box.run("touch", "/tmp/go")
    box.run(*own, "wait", "long")
    assert box.run(*own, "logs", "long") == "games"
    (one,) = json.loads(box.run(*own, "show", "long", "-o", "json"))
    assert (one["state"], one["attempts"]) == ("completed", 1)
    box.run("systemctl", "stop", "queuectld@games.socket", "queuectld@games.service")
    box.run("rm", "-rf", "/tmp/go", "/var/lib/queuectl-games")


def test_an_upgrade_that_the_configuration_hinders_leaves_the_daemon_as_it_is(box: Box) -> None:
    start_a_job(box)
    before = daemon(box)
    box.run("sh", "-c", f"echo 'max_retrys = 3' >>{CONFIG}")

    said = install(box, NEW)

    assert "max_retrys" in said
    assert "queuectl daemon reexec" in said
    assert daemon(box) == before
    finish_the_job(box)
    box.run("sed", "-i", "/max_retrys/d", CONFIG)
    queuectl(box, "daemon", "reexec")
    assert daemon(box) == (NEWER, before[1])


def test_an_upgrade_that_breaks_off_leaves_the_version_before_it_and_all_that_belongs_to_it(box: Box) -> None:
    start_a_job(box)
    before = daemon(box)
    box.run("sh", "-c", f"head -c -300000 {NEW} >/root/broken.deb")

    assert "unexpected end" in box.run(
        "sh", "-c", "dpkg --install /root/broken.deb 2>&1 && echo installed", check=False
    )

    assert box.run("dpkg-query", "--show", "--showformat", "${Status} ${Version}", "queuectl").split() == [
        *("install", "ok", "installed"),
        VERSION,
    ]
    assert daemon(box) == before
    assert queuectl(box, "run", "--", "echo", "hello") == "hello"
    assert box.run("dpkg", "--verify", "queuectl") == ""
    finish_the_job(box)


def test_a_daemon_that_was_stopped_is_not_started_by_an_upgrade(box: Box) -> None:
    box.run("systemctl", "disable", "--now", *UNITS)

    install(box, NEW)

    assert [box.property(unit, "ActiveState") for unit in UNITS] == ["inactive", "inactive"]
    assert [box.property(unit, "UnitFileState") for unit in UNITS] == ["disabled", "disabled"]


def test_what_dpkg_watches_over_stays_as_it_was_packed_and_what_was_lost_comes_back(box: Box) -> None:
    queuectl(box, "run", "--", "true")
    assert box.run("dpkg", "--verify", "queuectl") == ""
    box.run("sh", "-c", f"rm {LIB}/current/lib/python3*/site-packages/queuectl_cli/main.py")

    install(box, OLD)

    assert queuectl(box, "run", "--", "echo", "hello") == "hello"


def test_after_a_removal_nothing_runs_and_a_purge_alone_takes_the_jobs_away(box: Box) -> None:
    queuectl(box, "enqueue", "--id", "kept", "true")
    queuectl(box, "enqueue", "--id", "stubborn", "--kill-after", "0.1", "trap '' TERM; while :; do sleep 0.1; done")
    queuectl(box, "config", "set", "shutdown_grace", "0")
    wait_for(lambda: job(box, "stubborn")["state"] == "processing", "it runs")

    box.run("dpkg", "--remove", "queuectl")

    assert processes(box) == ""
    assert [box.property(unit, "LoadState") for unit in UNITS] == ["not-found", "not-found"]
    assert box.run("sh", "-c", f"test -e {LIB} || echo gone") == "gone"
    assert "error" not in box.journal("queuectld-sweep").lower()
    install(box, NEW)
    assert job(box, "kept")["state"] == "completed"
    queuectl(box, "cancel", "stubborn")

    said = box.run("dpkg", "--purge", "queuectl")

    assert f"Removing {STATE} ..." in said
    # Files may belong to it.
    assert box.run("getent", "group", "queuectl")


def test_it_works_where_systemd_does_not_run(bare: Box) -> None:
    without = ["unshare", "--mount", "sh", "-ec"]
    hidden = "mount -t tmpfs none /run/systemd; "

    said = bare.run(*without, hidden + f"dpkg --install {OLD}; queuectl daemon start; queuectl run -- echo hello")
    assert said.endswith("hello")
    _, before = daemon(bare)
    said = bare.run(*without, hidden + f"dpkg --install {NEW}")
    assert daemon(bare) == (NEWER, before), said
    bare.run(*without, hidden + "dpkg --remove queuectl")

    assert processes(bare) == ""
