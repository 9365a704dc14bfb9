from __future__ import annotations

import pytest

from queuectld.service.environment import captured, pack_environment, unpack_environment

LEFT_OUT = [
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
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "WATCHDOG_USEC",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "CREDENTIALS_DIRECTORY",
    "SUPERVISOR_ENABLED",
    "QUEUECTL_ATTEMPT_TOKEN",
    "QUEUECTL_JOB_ID",
]


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
