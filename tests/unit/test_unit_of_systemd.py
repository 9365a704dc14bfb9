from __future__ import annotations

import pytest

from queuectld.host.unit import Unit, job_of, our_unit

ENVIRON = {"INVOCATION_ID": "1f", "SYSTEMD_EXEC_PID": "7"}
SERVICE = Unit("queuectld.service", user=False)


@pytest.mark.parametrize(
    ("cgroups", "unit"),
    [
        ("0::/system.slice/queuectld.service\n", SERVICE),
        ("0::/system.slice/queuectld.service/daemon\n", SERVICE),
        ("1:name=systemd:/system.slice/queuectld.service\n0::/\n", SERVICE),
        ("0::/system.slice/system-queuectld.slice/queuectld@ann.service\n", Unit("queuectld@ann.service", user=False)),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/queuectld.service\n",
            Unit("queuectld.service", user=True),
        ),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_the_cgroup_names_the_unit_and_whose_it_is(cgroups, unit):
    assert our_unit(ENVIRON, 7, cgroups) == unit


@pytest.mark.parametrize("environ", [{}, {"INVOCATION_ID": "1f", "SYSTEMD_EXEC_PID": "6"}, {"SYSTEMD_EXEC_PID": "7"}])
def test_what_was_started_by_a_service_is_not_its_main_process(environ):
    assert our_unit(environ, 7, "0::/system.slice/queuectld.service\n") is None


def test_an_older_systemd_does_not_name_the_process():
    assert our_unit({"INVOCATION_ID": "1f"}, 7, "0::/system.slice/queuectld.service\n") == SERVICE


LIST = """\
 93 queuectld-sweep.service  restart waiting
 91 queuectld.service        stop    running
 94 queuectld@ann.service    start   waiting
"""


@pytest.mark.parametrize(
    ("unit", "job"),
    [
        ("queuectld.service", "stop"),
        ("queuectld-sweep.service", "restart"),
        ("queuectld@ann.service", "start"),
        ("queuectl.service", None),
    ],
)
def test_the_list_of_jobs_tells_what_is_done_with_a_unit(unit, job):
    assert job_of(LIST, Unit(unit, user=False)) == job


@pytest.mark.parametrize("said", ["", "No jobs running.\n", "Failed to connect to bus: Connection refused\n"])
def test_no_list_tells_nothing(said):
    assert job_of(said, SERVICE) is None
