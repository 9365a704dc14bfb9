"""As a service of an ordinary user, without any right of root: with lingering it goes on when he logs out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.installed import CONFIG, DROP_IN, PROGRAMS, UNIT, Service
from tests.sysbox.box import Box, boot
from tests.system.waiting import wait_for

USER = "alice"
HOME = f"/home/{USER}"
# A log-in as at a terminal: PAM tells logind, which starts the user's own manager. It ends when it is stopped.
LOG_IN = "systemd-run --quiet --unit=login-{} --uid={} --property=PAMName=login sleep infinity"
FILES = {
    # Not the ten seconds in which most people log in again.
    "/etc/systemd/logind.conf.d/test.conf": "[Login]\nUserStopDelaySec=0\n",
    "/etc/systemd/user/queuectld.service.d/90-test.conf": DROP_IN,
}


class UserService(Service):
    """The service of a user, told by himself."""

    state = f"{HOME}/.local/state/queuectl"

    def __init__(self, box: Box) -> None:
        super().__init__(box)
        self.sessions = 0
        for unit in ("dbus.service", "systemd-logind.service"):
            box.run("systemctl", "start", unit)
        box.run("useradd", "--create-home", USER)
        self.uid = box.run("id", "-u", USER)
        self.socket = f"run/user/{self.uid}/queuectl/queuectl.sock"
        self.shell(f"mkdir -p ~/.config/queuectl && cat >~/.config/queuectl/queuectld.toml <<'.'\n{CONFIG}\n.")

    def shell(self, line: str, *, check: bool = True) -> str:
        env = [f"HOME={HOME}", f"XDG_RUNTIME_DIR=/run/user/{self.uid}", "PATH=/usr/bin:/bin"]
        words = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "env", "-i", "-C", HOME, *env]
        return self.box.run(*words, "sh", "-c", line, check=check)

    def systemctl(self, *words: str, check: bool = True) -> str:
        return self.shell(f"systemctl --user {' '.join(words)}", check=check)

    def log_in(self) -> None:
        self.sessions += 1
        self.box.run("sh", "-c", LOG_IN.format(self.sessions, USER))
        wait_for(
            lambda: self.systemctl("is-system-running", check=False) in {"running", "degraded"}, "his manager runs"
        )

    def log_out(self) -> None:
        self.box.run("systemctl", "stop", "login-*.service")

    def lingers(self, *, whether: bool) -> None:
        self.box.run("loginctl", "enable-linger" if whether else "disable-linger", USER)

    @property
    def has_manager(self) -> bool:
        return self.box.run("systemctl", "is-active", f"user@{self.uid}.service", check=False) != "inactive"


@pytest.fixture(scope="module")
def machine() -> Iterator[UserService]:
    with boot(FILES) as box:
        yield UserService(box)


@pytest.fixture
def service(machine: UserService) -> UserService:
    """It runs, for a user who is logged in, whatever the test before did."""
    machine.log_in()
    machine.queuectl("daemon", "install")
    return machine


def completed(service: UserService, name: str, *reasons: str) -> None:
    service.let_go(name)
    service.wait_for_state(name, "completed")
    assert [attempt["reason"] for attempt in service.history(name)] == list(reasons)


def test_a_user_makes_it_his_service_and_is_warned_that_it_ends_with_his_session(service: UserService) -> None:
    service.lingers(whether=False)

    said = service.shell(f"{PROGRAMS}/queuectl daemon install 2>&1")

    assert "queuectld.service is installed and runs" in said
    assert f"loginctl enable-linger {USER}" in said
    assert service.shown("FragmentPath").startswith(f"{HOME}/.config/systemd/user/")
    assert "service.d/90-test.conf" in service.shown("DropInPaths")
    assert service.shell(f"stat -c '%U %a' /{service.socket}") == f"{USER} 600"


@pytest.mark.parametrize("how", ["systemctl --user restart queuectld", "kill -9 {}", "kill -STOP {}"])
def test_his_jobs_go_on_through_restart_kill_and_hang(service: UserService, how: str) -> None:
    name = how.split()[-2].strip("-")
    before, sleepers = service.pid, service.long_job(name)

    service.shell(how.format(before))

    wait_for(lambda: service.pid not in {0, before}, "it is started again")
    assert sleepers <= set(service.of_jobs())
    completed(service, name, "exited")


def test_his_stop_gives_running_jobs_back_also_between_a_crash_and_the_next_start(service: UserService) -> None:
    service.long_job("stop")
    service.systemctl("stop", "queuectld.socket", UNIT)
    assert (service.of_jobs(), service.shown("Result")) == ({}, "success")
    service.systemctl("start", "queuectld.socket", UNIT)
    completed(service, "stop", "interrupted", "exited")

    service.long_job("window")
    # Stopped before it could be begun again.
    service.box.run("kill", "-9", str(service.pid))
    service.systemctl("stop", "queuectld.socket", UNIT)
    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.systemctl("start", "queuectld.socket", UNIT)
    completed(service, "window", "interrupted", "exited")


def test_with_lingering_his_jobs_go_on_when_he_logs_out(service: UserService) -> None:
    service.lingers(whether=True)
    before, sleepers = service.pid, service.long_job("linger")

    service.log_out()

    wait_for(lambda: USER not in service.box.run("loginctl", "list-sessions", "--no-legend"), "the session is over")
    assert (service.has_manager, service.pid) == (True, before)
    assert sleepers <= set(service.of_jobs())
    completed(service, "linger", "exited")
    assert "enable-linger" not in service.shell(f"{PROGRAMS}/queuectl daemon install 2>&1")


def test_without_lingering_they_end_with_the_session_and_run_again_at_the_next(service: UserService) -> None:
    service.lingers(whether=False)
    service.long_job("session")

    service.log_out()

    wait_for(lambda: not service.has_manager, "his manager ends")
    assert service.of_jobs() == {}
    service.log_in()
    # It is enabled, so it starts by itself.
    wait_for(lambda: service.pid, "it runs")
    completed(service, "session", "interrupted", "exited")


def test_he_takes_it_away_again_and_keeps_his_jobs(service: UserService) -> None:
    with service.wire() as wire:
        wire.enqueue("true", id="kept")
    service.wait_for_state("kept", "completed")

    said = service.queuectl("daemon", "uninstall")

    assert f"Jobs and data stay in {service.state}." in said
    assert service.shell("find ~/.config/systemd -name '*queuectl*'") == ""
    assert service.of_jobs() == {}
    counted = service.shell(f"{PROGRAMS}/queuectld db counts")
    assert int(counted.rpartition(" ")[2]) >= 1
