"""The service for one user, with directories of its own; hardened, and what jobs start all the same."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.service.installed import Service
from tests.sysbox.box import boot

UNIT = "queuectld@daemon.service"


class OneUser(Service):
    files: ClassVar = {
        "/etc/default/queuectl-daemon": "QUEUECTLD_SHUTDOWN_GRACE=0\nQUEUECTLD_KILL_AFTER=0.5\n",
    }
    socket = "run/queuectl/daemon.sock"
    state = "/var/lib/queuectl-daemon"


@pytest.fixture(scope="module")
def service() -> Iterator[OneUser]:
    with boot(OneUser.files) as box:
        service = OneUser(box)
        service.queuectl("daemon", "install", "--hardened")
        service.systemctl("disable", "--now", "queuectld.socket", "queuectld.service")
        service.systemctl("enable", "--now", "queuectld@daemon.socket")
        yield service


def outcome(service: OneUser, command: str) -> tuple[str, str]:
    """Run a command as a job; return its state and what it said."""
    with service.wire() as wire:
        name = wire.enqueue(command, max_retries=0)
        wire.call("wait", select={"ids": [name]})
        return wire.state(name), wire.output(name).decode()


def test_a_connection_starts_it_as_that_user_with_a_state_of_its_own(service: OneUser) -> None:
    state, said = outcome(service, "id -un; touch /tmp/mine; umask")

    assert (state, said.split()[0]) == ("completed", "daemon")
    assert service.shown("DropInPaths", UNIT).count("50-hardening.conf") == 1
    assert service.shell(f"stat -c '%U %a' {service.state} /{service.socket}") == "daemon 700\ndaemon 600"


def test_the_user_finds_it_by_himself(service: OneUser) -> None:
    with service.wire() as wire:
        wire.enqueue("true", id="found")
    line = f"setpriv --reuid daemon --regid daemon --clear-groups {service.queuectl_program} show found -o name"

    assert service.shell(f"env -u XDG_RUNTIME_DIR HOME=/ {line}") == "found"


# Each is tried where it is installed.
COMMANDS = [
    ("node", "node -e 'console.log(1 + 1)'"),
    ("git", "git init -q /tmp/repo && cd /tmp/repo && git status"),
    ("curl", "curl --version"),
    ("java", "java -version"),
    ("perl", "perl -e 'print 1 + 1'"),
    ("gcc", "echo 'int main(void) { return 0; }' >/tmp/a.c && gcc -o /tmp/a.out /tmp/a.c && /tmp/a.out"),
    ("free", "free"),
]


@pytest.mark.parametrize("command", [command for program, command in COMMANDS if shutil.which(program)])
def test_programs_start_though_it_is_hardened(service: OneUser, command: str) -> None:
    state, said = outcome(service, command)

    assert state == "completed", said


@pytest.mark.parametrize(
    "command", ["touch /etc/x", "touch /usr/x", "unshare --user true", "mount -t tmpfs none /mnt", "touch ~root/x"]
)
def test_what_is_hardened_against_fails(service: OneUser, command: str) -> None:
    state, _ = outcome(service, command)

    assert state == "dead"


def test_it_stops_and_restarts_as_the_others_do(service: OneUser) -> None:
    sleepers = service.long_job("one-user")
    service.systemctl("restart", UNIT)
    assert sleepers <= set(service.of_jobs())

    service.systemctl("stop", "queuectld@daemon.socket", UNIT)

    assert (service.of_jobs(), service.shown("Result", UNIT)) == ({}, "success")
    assert service.queuectl("daemon", "uninstall").startswith("queuectld.service is gone.")
    assert service.shell("find /etc/systemd -name '*queuectld@*' ! -name '*.d'") == ""
