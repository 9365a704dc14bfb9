from __future__ import annotations

import os
import socket

import pytest

from queuectld.host.notify import Notifier, service_manager, watchdog_seconds


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request, tmp_path):
    """A service manager's socket, and how it is named in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = str(tmp_path / "notify") if request.param == "a path" else f"@queuectl-test-{os.getpid()}"
        listener.bind(name.replace("@", "\0"))
        listener.setblocking(False)
        yield listener, name


def lines(listener):
    return listener.recv(4096).decode().split("\n")


def test_readiness_is_told_with_a_line_for_people(manager):
    listener, name = manager

    Notifier({"NOTIFY_SOCKET": name}).ready("running → fine")

    assert lines(listener) == ["READY=1", "STATUS=running → fine"]


def test_the_end_asks_for_the_time_that_it_needs(manager):
    listener, name = manager

    Notifier({"NOTIFY_SOCKET": name}).stopping("draining", 36.5)

    assert lines(listener) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=36500000", "STATUS=draining"]


def test_a_reload_tells_since_when(manager):
    listener, name = manager

    Notifier({"NOTIFY_SOCKET": name}).reloading("reading")

    said = lines(listener)
    assert (said[0], said[2]) == ("RELOADING=1", "STATUS=reading")
    assert said[1].removeprefix("MONOTONIC_USEC=").isdigit()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_where_nobody_listens_nothing_happens(environ):
    Notifier(environ).alive()


def test_a_manager_that_does_not_read_holds_nobody_up(manager):
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})

    for _ in range(10_000):
        notifier.alive()

    assert lines(listener) == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "42"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "43"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(environ, seconds):
    assert watchdog_seconds(environ, 42) == seconds


def test_nobody_waits_for_a_sign_of_life_that_could_not_be_given():
    assert Notifier({"WATCHDOG_USEC": "500000"}).watchdog is None


@pytest.mark.parametrize(
    ("environ", "who"),
    [
        ({}, None),
        ({"SYSTEMD_EXEC_PID": "7"}, "systemd"),
        ({"SYSTEMD_EXEC_PID": "8"}, None),
        ({"SUPERVISOR_ENABLED": "1"}, "supervisord"),
        ({"SUPERVISOR_ENABLED": "1", "SYSTEMD_EXEC_PID": "8"}, "supervisord"),
    ],
)
def test_who_keeps_us_up_is_known_from_the_environment(environ, who):
    assert service_manager(environ, 7) == who
