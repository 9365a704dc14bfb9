from __future__ import annotations

import os

import pytest

from queuectld.parts import worker_environment
from queuectld.service.account import own_account
from queuectld.service.environment import captured, pack_environment, unpack_environment

# What systemd.exec(5), sd_listen_fds(3), sd_watchdog_enabled(3) and supervisord name.
OF_SERVICE = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "JOURNAL_STREAM",
    "LOG_NAMESPACE",
    "INVOCATION_ID",
    "DEBUG_INVOCATION",
    "SYSTEMD_EXEC_PID",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "FDSTORE",
    "CREDENTIALS_DIRECTORY",
    "ENCRYPTED_CREDENTIALS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "SUPERVISOR_ENABLED",
    "SUPERVISOR_PROCESS_NAME",
    "SUPERVISOR_GROUP_NAME",
    "SUPERVISOR_SERVER_URL",
]
LEFT_OUT = [
    *OF_SERVICE,
    "TERM",
    "DISPLAY",
    "SHLVL",
    "PPID",
    "_",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "XDG_SESSION_ID",
    "XDG_SESSION_TYPE",
    "QUEUECTL_ATTEMPT_TOKEN",
    "QUEUECTL_JOB_ID",
]


@pytest.mark.parametrize("name", [*OF_SERVICE, "QUEUECTL_STATE_DIR", "QUEUECTLD_WORKERS", "QUEUECTL_JOB_ID"])
def test_workers_get_nothing_that_a_service_manager_tells_the_daemon(name):
    assert worker_environment({name: "x", "PATH": "/bin", "LANG": "C"}) == {"PATH": "/bin", "LANG": "C"}


@pytest.mark.parametrize("name", OF_SERVICE)
def test_an_account_takes_nothing_of_it_from_the_daemon_either(name):
    assert name not in own_account(os.getuid(), {name: "x"}).environment


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_tells_of_terminal_session_or_service_stays_behind(name):
    assert captured({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LANG", "SSH_AUTH_SOCK", "XDG_RUNTIME_DIR", "TERMINFO", "QUEUECTL_HOST"]
)
def test_everything_else_comes_along(name):
    assert captured({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")])
def test_what_no_process_could_be_given_stays_behind(name, value):
    assert captured({name: value}) == {}


def test_equal_environments_give_equal_bytes():
    one, two = {"A": "1", "B": "2"}, {"B": "2", "A": "1"}

    assert pack_environment(one) == pack_environment(two)
    assert unpack_environment(pack_environment(one)) == one
