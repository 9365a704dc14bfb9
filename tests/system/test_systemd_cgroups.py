"""Under a real systemd: what is delegated to us is used, and never in a way that keeps the service from starting."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectld.worker import cgroups
from tests import cgroup_place
from tests.sysbox.box import PROJECT, Box, boot
from tests.system.waiting import wait_for

STATE = "/var/lib/queuectl"
UNIT = """
[Service]
Type=exec
{exec}
User=daemon
StateDirectory=queuectl
Environment=QUEUECTL_STATE_DIR={state} PYTHONPATH={project} QUEUECTL_SHUTDOWN_GRACE=0
Delegate=yes
KillMode=process
Restart=on-failure
RestartSec=0.1
"""
PLAIN = f"ExecStart={sys.executable} -P -m queuectld.main"
# Goes below the cgroup of its service. The service manager of today can do that itself (DelegateSubgroup=).
BELOW = "ExecStart=+/bin/sh /opt/below"
# What jobs could be held to is not there in a machine in the machine, but this controller is.
BELOW_SCRIPT = f"""
set -e
unit=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
mkdir -p $unit/main
echo $$ >$unit/main/cgroup.procs
chown daemon $unit $unit/cgroup.* $unit/main $unit/main/cgroup.*
exec setpriv --reuid daemon --regid daemon --clear-groups {sys.executable} -P -c '
import sys
import queuectld.supervisor.groups as groups
groups.WANTED = ("hugetlb",)
from queuectld.main import main
sys.exit(main())
'
"""
# What the systemctl of systemd 254 says of a service with DelegateSubgroup=main.
SYSTEMCTL = """#!/bin/sh
case "$*" in
*DelegateSubgroup*queuectld.service) echo main;;
*) exec /usr/bin/systemctl "$@";;
esac
"""
JOB = f"""
echo $$ >>{STATE}/pids
(cd /; setsid env -i sh -c 'echo $$ >>{STATE}/pids; exec sleep 1000' &)
until [ -e {STATE}/go ]; do sleep 0.02; done
"""


def unit(how: str) -> dict[str, str]:
    text = UNIT.format(exec=how, state=STATE, project=PROJECT)
    return {"/etc/systemd/system/queuectld.service": text, "/opt/below": BELOW_SCRIPT}


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with boot(unit(PLAIN)) as found:
        found.run("systemctl", "start", "queuectld")
        isolation(found)
        yield found


def queuectl(box: Box, *words: str, check: bool = True) -> Any:
    line = shlex.join([sys.executable, "-P", "-m", "queuectl_cli.main", *words])
    said = box.run("env", f"PYTHONPATH={PROJECT}", "QUEUECTL_AUTOSTART=0", "sh", "-c", line, check=check)
    return json.loads(said) if "json" in words else said


def shown(box: Box, job: str) -> dict[str, Any]:
    (found,) = queuectl(box, "show", job, "-o", "json")
    return dict(found)


def answers(box: Box) -> bool:
    return bool(queuectl(box, "status", check=False))


def isolation(box: Box) -> dict[str, Any]:
    wait_for(lambda: answers(box), f"it answers: {box.journal('queuectld')}")
    status: dict[str, Any] = queuectl(box, "status", "-o", "json")
    return status["isolation"]


def pids(box: Box) -> list[str]:
    return box.run("cat", f"{STATE}/pids", check=False).split()


def alive(box: Box, pid: str) -> bool:
    return "State:\tZ" not in (text := box.run("cat", f"/proc/{pid}/status", check=False)) and bool(text)


def start_a_job(box: Box, name: str) -> list[str]:
    box.run("rm", "-f", f"{STATE}/pids", f"{STATE}/go")
    queuectl(box, "enqueue", "--id", name, "--clean-env", JOB)
    wait_for(lambda: len(pids(box)) == 2, "the job has started")
    return pids(box)


def kill_the_daemon(box: Box) -> None:
    """Kill it, and see the service manager start it again."""
    restarts, pid = int(box.property("queuectld", "NRestarts")), box.property("queuectld", "MainPID")
    box.run("kill", "-9", pid)
    wait_for(lambda: int(box.property("queuectld", "NRestarts")) == restarts + 1, "it was started again")
    wait_for(lambda: box.property("queuectld", "SubState") == "running", "it runs")
    assert "219" not in box.journal("queuectld")
    wait_for(lambda: answers(box), "it answers")


def finish_the_job(box: Box, name: str) -> None:
    box.run("touch", f"{STATE}/go")
    wait_for(lambda: shown(box, name)["state"] == "completed", "the job is through")
    assert shown(box, name)["attempts"] == 1


def test_a_user_who_is_given_his_cgroup_uses_it(box: Box) -> None:
    place = "/sys/fs/cgroup/system.slice/queuectld.service"

    found = isolation(box)

    assert found["cgroup"].startswith(f"{place}/queuectl.")
    assert (found["controllers"], found["reason"]) == ([], None)


def test_a_job_goes_on_through_a_crash_of_the_daemon_and_the_service_starts_again(box: Box) -> None:
    started = start_a_job(box, "crash")

    kill_the_daemon(box)

    assert all(alive(box, pid) for pid in started)
    finish_the_job(box, "crash")
    wait_for(lambda: not any(alive(box, pid) for pid in started), "nothing is left of it")


def test_what_fled_is_found_when_worker_and_daemon_die(box: Box) -> None:
    started = start_a_job(box, "both")
    (worker,) = [one["pid"] for one in queuectl(box, "worker", "list", "-o", "json") if one["job"] == "both"]

    box.run("sh", "-c", f"kill -9 {box.property('queuectld', 'MainPID')} {worker}")

    wait_for(lambda: not any(alive(box, pid) for pid in started), "all of it is ended")
    wait_for(lambda: answers(box), "it answers")
    box.run("touch", f"{STATE}/go")
    wait_for(lambda: shown(box, "both")["state"] == "completed", "it ran again")


def test_nothing_is_left_when_the_service_stops(box: Box) -> None:
    place = isolation(box)["cgroup"]
    assert box.run("test", "-d", place) == ""

    box.run("systemctl", "stop", "queuectld")

    assert box.property("queuectld", "Result") == "success"
    assert box.run("sh", "-c", f"test -e {place} || echo gone") == "gone"
    box.run("systemctl", "start", "queuectld")


@contextlib.contextmanager
def controller(box: Box, name: str) -> Iterator[None]:
    """Pass a controller on to the services of a machine in the machine, from this one."""
    top = cgroup_place.top()
    if name not in cgroups.controllers(top):
        pytest.skip(f"this machine has no controller {name} of version 2")
    here = box.cgroup
    # Others may take it away, at the end of what they do.
    wait_for(lambda: enabled(top, name) and enabled(here, name), f"{name} is passed on")
    try:
        box.run(
            "sh", "-c", "cd /sys/fs/cgroup; for d in . system.slice; do echo +hugetlb >$d/cgroup.subtree_control; done"
        )
        yield
    finally:
        box.halt()
        with contextlib.suppress(OSError):
            Path(top, "cgroup.subtree_control").write_text(f"-{name}")


def enabled(directory: str, name: str) -> bool:
    try:
        Path(directory, "cgroup.subtree_control").write_text(f"+{name}")
    except OSError:
        return False
    return True


PLACE = "/sys/fs/cgroup/system.slice/queuectld.service"


def test_controllers_are_enabled_beside_us_where_the_service_manager_starts_us_below() -> None:
    with boot(unit(BELOW) | {"/usr/local/bin/systemctl": SYSTEMCTL}) as box, controller(box, "hugetlb"):
        box.run("chmod", "+x", "/usr/local/bin/systemctl")
        box.run("systemctl", "start", "queuectld")

        found = isolation(box)

        assert found["cgroup"].startswith(f"{PLACE}/queuectl.")
        assert (found["controllers"], found["reason"]) == (["hugetlb"], None)
        assert box.read(f"{PLACE}/cgroup.subtree_control") == "hugetlb"
        assert box.read(f"{found['cgroup']}/cgroup.subtree_control") == "hugetlb"
        assert box.read(f"{PLACE}/main/cgroup.subtree_control") == ""
        assert box.read(f"{PLACE}/cgroup.procs") == ""
        started = start_a_job(box, "below")
        assert all("/queuectl." in box.read(f"/proc/{pid}/cgroup") for pid in started)

        # And here is the trap: this service manager does not, and cannot start the service any more.
        box.run("kill", "-9", box.property("queuectld", "MainPID"))
        wait_for(lambda: "status=219/CGROUP" in box.journal("queuectld"), "it cannot be started")


def test_who_went_below_by_himself_is_not_led_into_the_trap() -> None:
    with boot(unit(BELOW)) as box, controller(box, "hugetlb"):
        box.run("systemctl", "start", "queuectld")

        found = isolation(box)

        assert found["cgroup"].startswith(f"{PLACE}/queuectl.")
        assert (found["controllers"], found["reason"]) == ([], None)
        assert box.read(f"{PLACE}/cgroup.subtree_control") == ""
        started = start_a_job(box, "below")
        kill_the_daemon(box)
        assert all(alive(box, pid) for pid in started)
        finish_the_job(box, "below")
