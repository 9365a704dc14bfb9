"""As a service of an ordinary user, without any right of root: with lingering it goes on when he logs out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.installed import (
    HOME,
    PROGRAMS,
    USER,
    UserService,
    completed_once,
    completed_the_second_time,
    in_order,
    nothing_is_left,
)
from tests.sysbox.box import boot
from tests.system.waiting import wait_for


@pytest.fixture(scope="module")
def machine() -> Iterator[UserService]:
    with boot(UserService.files) as box:
        service = UserService(box)
        yield service
        service.log_in()
        service.install()
        in_order(service)


@pytest.fixture
def service(machine: UserService) -> Iterator[UserService]:
    """It runs, for a user who is logged in, whatever the test before did."""
    machine.log_in()
    machine.install()
    yield machine
    machine.log_in()
    machine.install()
    nothing_is_left(machine)


def test_a_user_makes_it_his_service_and_is_warned_that_it_ends_with_his_session(service: UserService) -> None:
    service.lingers(whether=False)

    said = service.install()

    assert "queuectld.service is installed and runs" in said
    assert f"loginctl enable-linger {USER}" in said
    assert service.shown("FragmentPath").startswith(f"{HOME}/.config/systemd/user/")
    assert service.shell(f"stat -c '%U %a' /{service.socket}") == f"{USER} 600"


def test_with_lingering_his_jobs_go_on_when_he_logs_out(service: UserService) -> None:
    service.lingers(whether=True)
    before, sleepers = service.pid, service.long_job("linger")

    service.log_out()

    wait_for(lambda: USER not in service.box.run("loginctl", "list-sessions", "--no-legend"), "the session is over")
    assert (service.has_manager, service.pid) == (True, before)
    assert sleepers <= set(service.of_jobs())
    completed_once(service, "linger")
    assert "enable-linger" not in service.install()


def test_without_lingering_they_end_with_the_session_and_run_again_at_the_next(service: UserService) -> None:
    service.lingers(whether=False)
    service.long_job("session")

    service.log_out()

    wait_for(lambda: not service.has_manager, "his manager ends")
    assert service.of_jobs() == {}
    service.log_in()
    # It is enabled, so it starts by itself.
    wait_for(lambda: service.pid, "it runs")
    completed_the_second_time(service, "session")


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
