"""As a service of a real systemd, of the system or of a user: started by a connection, stopped, restarted, killed,
hung, broken, and cut off. What belongs to one of them only is in `test_service` and `test_user_service`.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.installed import (
    UNIT,
    Service,
    UserService,
    completed_once,
    completed_the_second_time,
    in_order,
    nothing_is_left,
)
from tests.sysbox.box import boot
from tests.system.waiting import wait_for
from tests.system.wire import LetGoError

of_each_kind = pytest.mark.parametrize("kind", [Service, UserService], ids=["system", "user"])


@pytest.fixture(scope="module", params=[Service, UserService], ids=["system", "user"])
def installed(request: pytest.FixtureRequest) -> Iterator[Service]:
    with boot(request.param.files) as box:
        service = request.param(box)
        service.install()
        yield service
        service.restore()
        in_order(service)


def test_a_connection_starts_it_and_waits_for_its_answer(service: Service) -> None:
    service.systemctl("stop", UNIT)

    with service.wire() as wire:
        status = wire.call("status")

    assert (service.shown("ActiveState"), status["pid"]) == ("active", service.pid)
    assert status["socket"] == f"/{service.socket}"


def test_a_stop_is_not_undone_by_who_waits_for_a_job(service: Service) -> None:
    service.long_job("waited-for")
    waiting = service.box.start(*service.as_whose_it_is(f"exec {service.queuectl_program} wait waited-for"))
    with service.wire() as wire:
        wait_for(lambda: wire.call("status")["connections"] == 2, "it waits")

    service.systemctl("stop", UNIT)

    assert waiting.wait(30) == 125
    assert (service.shown("ActiveState"), service.shown("ActiveState", "queuectld.socket")) == ("inactive", "active")
    service.restore()
    completed_the_second_time(service, "waited-for")


def test_a_restart_disturbs_no_job_and_refuses_no_connection(service: Service) -> None:
    before, sleepers = service.pid, service.long_job("restart")

    restarting = service.systemctl_in_background("restart", UNIT)
    while restarting.poll() is None:
        # One that was let in at the very end is let go again, never refused.
        with contextlib.suppress(ConnectionResetError, LetGoError):
            service.wire().close()

    assert (restarting.returncode, service.pid != before) == (0, True)
    assert sleepers <= set(service.of_jobs())
    assert "restart" in {line.get("reason") for line in service.log() if line["event"] == "daemon.told_to_end"}
    completed_once(service, "restart")


def test_a_daemon_that_is_killed_is_started_again_and_takes_its_jobs_over(service: Service) -> None:
    before, sleepers = service.pid, service.long_job("kill")

    service.shell(f"kill -9 {before}")

    wait_for(lambda: service.pid not in {0, before}, "it is started again")
    assert sleepers <= set(service.of_jobs())
    completed_once(service, "kill")


def test_a_failure_that_is_made_good_at_once_ends_no_job(service: Service) -> None:
    sleepers = service.long_job("for-a-moment")

    # As systemd does at each crash since version 254.
    service.systemctl("start", "queuectld-sweep-now.service")

    assert service.shown("ActiveState", "queuectld-sweep.service") == "active"
    assert sleepers <= set(service.of_jobs())
    completed_once(service, "for-a-moment")


def test_a_daemon_that_hangs_is_replaced_under_its_jobs(service: Service) -> None:
    # Not so in other tests: on a busy machine a daemon may be silent for a while.
    service.reconfigure("hang", "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    service.systemctl("restart", UNIT)
    before, sleepers = service.pid, service.long_job("hang")

    service.shell(f"kill -STOP {before}")

    wait_for(lambda: service.pid not in {0, before}, "it is started again")
    assert "Watchdog timeout" in service.of_systemd()
    assert sleepers <= set(service.of_jobs())
    completed_once(service, "hang")


def test_a_reload_ends_when_the_configuration_is_in_force_and_fails_if_it_is_not_valid(service: Service) -> None:
    before = service.pid
    service.set("max_retries = 7")

    service.systemctl("reload", UNIT)

    assert service.queuectl("config", "get", "max_retries") == "7"
    service.set('workers = "many"')
    with pytest.raises(AssertionError, match="Job for queuectld"):
        service.systemctl("reload", UNIT)
    assert (service.shown("ActiveState"), service.pid) == ("active", before)
    assert "the old one holds" in service.shown("StatusText")


def test_a_stop_gives_running_jobs_back_and_leaves_nothing(service: Service) -> None:
    service.long_job("stop")

    service.systemctl("stop", "queuectld.socket", UNIT)

    assert (service.of_jobs(), service.shown("Result")) == ({}, "success")
    service.restore()
    completed_the_second_time(service, "stop")


def test_a_stop_does_not_wait_for_a_stubborn_job(service: Service) -> None:
    with service.wire() as wire:
        wire.enqueue("trap '' TERM; echo run >>/var/tmp/stubborn.runs; while :; do sleep 1000; done", id="stubborn")
    wait_for(lambda: service.runs("stubborn") == 1)

    service.systemctl("stop", "queuectld.socket", UNIT)

    assert (service.of_jobs(), service.shown("Result")) == ({}, "success")
    service.restore()
    assert service.history("stubborn")[0]["signal"] == signal.SIGKILL
    service.queuectl("cancel", "stubborn")
    service.wait_for_state("stubborn", "cancelled")


def test_a_second_term_skips_the_grace_of_a_stop(service: Service) -> None:
    service.queuectl("config", "set", "shutdown_grace", "1000")
    service.long_job("twice")
    stopping = service.systemctl_in_background("stop", "queuectld.socket", UNIT)
    wait_for(lambda: "drain" in {line.get("mode") for line in service.log()[-5:]}, "it waits for the job")

    service.systemctl("kill", "--kill-whom=main", "--signal=TERM", UNIT)

    assert stopping.wait(20) == 0
    assert (service.of_jobs(), service.shown("Result")) == ({}, "success")
    service.restore()
    service.queuectl("config", "unset", "shutdown_grace")
    completed_the_second_time(service, "twice")


def test_a_stop_between_a_crash_and_the_next_start_gives_jobs_back(service: Service) -> None:
    service.reconfigure("window", "[Service]\nRestartSec=1000\n")
    sleepers = service.long_job("window")
    service.shell(f"kill -9 {service.pid}")
    service.wait_until("SubState", "auto-restart")
    assert sleepers <= set(service.of_jobs())

    service.systemctl("stop", "queuectld.socket", UNIT)

    # By the other unit, for which `systemctl stop` does not wait.
    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.restore()
    completed_the_second_time(service, "window")


def test_a_configuration_that_is_not_valid_ends_it_for_good_and_gives_jobs_back(service: Service) -> None:
    service.long_job("config")
    service.set('workers = "many"')

    service.systemctl("restart", UNIT, check=False)

    service.wait_until("ActiveState", "failed")
    assert (service.shown("ExecMainStatus"), service.shown("NRestarts")) == ("78", "0")
    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.restore()
    completed_the_second_time(service, "config")


def test_a_daemon_that_fails_too_often_is_given_up_and_its_jobs_are_given_back(service: Service) -> None:
    # More often than systemd starts a unit by default: the one that gives jobs back goes along.
    service.reconfigure("limit", "[Unit]\nStartLimitBurst=7\n[Service]\nRestartSec=0.05\n")
    service.systemctl("reset-failed", UNIT)
    service.long_job("limit")

    def give_up() -> bool:
        if pid := service.pid:
            service.shell(f"kill -9 {pid}", check=False)
        return service.shown("ActiveState") == "failed"

    wait_for(give_up, "systemd gives up")

    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.restore()
    completed_the_second_time(service, "limit")


def test_the_next_program_in_the_same_process_listens_on_the_socket_of_systemd(service: Service) -> None:
    service.long_job("reexec")
    before = service.shell(f"stat -c %i /{service.socket}")

    service.queuectl("daemon", "reexec")

    assert service.shell(f"stat -c %i /{service.socket}") == before
    assert service.shown("NRestarts") == "0"
    completed_once(service, "reexec")
    service.systemctl("restart", UNIT)
    service.wire().close()


def test_daemon_restart_and_stop_go_by_the_service(service: Service) -> None:
    before = service.pid
    service.long_job("by-hand")

    said = service.queuectl("daemon", "restart")

    assert said.startswith("Restarted queuectld.service")
    assert service.pid not in {0, before}
    completed_once(service, "by-hand")
    told = service.shell(f"{service.queuectl_program} daemon stop 2>&1")
    assert "stop queuectld.socket" in told
    assert service.shown("ActiveState") == "inactive"
    assert service.queuectl("daemon", "stop") == "queuectld does not run."
    assert service.queuectl("daemon", "start").startswith("Started queuectld.service")


@of_each_kind
def test_a_power_cut_loses_nothing_and_jobs_run_again(kind: type[Service], tmp_path: Path) -> None:
    state = {kind.state: tmp_path / "state"}
    state[kind.state].mkdir(mode=0o700)
    with boot(kind.files, state) as box:
        service = kind(box)
        service.install()
        with service.wire() as wire:
            wire.enqueue("true", id="before")
        service.wait_for_state("before", "completed")
        service.long_job("cut")

        box.halt()

    with boot(kind.files, state) as box:
        service = kind(box)
        service.install()

        assert service.job("before")["state"] == "completed"
        completed_the_second_time(service, "cut", reason="lost")
        nothing_is_left(service)
        in_order(service)
