"""As a service of a real systemd: started by a connection, stopped, restarted, killed, hung, broken, and cut off."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.installed import FILES, UNIT, Service, in_order
from tests.sysbox.box import boot
from tests.system.waiting import wait_for
from tests.system.wire import LetGoError, RefusedError


@pytest.fixture(scope="module")
def installed() -> Iterator[Service]:
    with boot(FILES) as box:
        service = Service(box)
        service.queuectl("daemon", "install")
        box.run("useradd", "--create-home", "--groups", "queuectl,audio", "ann")
        box.run("useradd", "--create-home", "sam")
        yield service
        service.restore()
        assert in_order(service).endswith("is in order.")
        assert {line["event"] for line in service.log()}.isdisjoint({"uncaught", "request.failed", "library.warning"})


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    installed.restore()
    yield installed
    installed.restore()
    installed.wait_until_nothing_is_left()
    assert installed.shown("ActiveState") == "active"


def completed_once(service: Service, name: str) -> None:
    service.let_go(name)
    service.wait_for_state(name, "completed")
    assert (service.runs(name), len(service.history(name))) == (1, 1)


def completed_the_second_time(service: Service, name: str, reason: str = "interrupted") -> None:
    service.let_go(name)
    service.wait_for_state(name, "completed")
    assert [attempt["reason"] for attempt in service.history(name)] == [reason, "exited"]
    assert service.job(name)["retries_left"] == service.job(name)["max_retries"]


def test_a_connection_starts_it_and_waits_for_its_answer(service: Service) -> None:
    service.systemctl("stop", UNIT)

    with service.wire() as wire:
        status = wire.call("status")

    assert (service.shown("ActiveState"), status["pid"]) == ("active", service.pid)
    assert status["socket"] == "/run/queuectl/queuectl.sock"
    assert service.shell("stat -c '%U %G %a' /run/queuectl/queuectl.sock") == "root queuectl 660"


def as_user(service: Service, user: str, *words: str, check: bool = True) -> str:
    env = [f"HOME=/home/{user}", f"USER={user}", "PATH=/usr/bin:/bin"]
    line = shlex.join([service.queuectl_program, *words])
    return service.box.run("runuser", "-u", user, "--", "env", "-i", "-C", "/", *env, "sh", "-c", line, check=check)


def test_a_member_of_the_group_wakes_it_and_his_job_runs_as_himself_with_what_jobs_may_have(service: Service) -> None:
    service.systemctl("stop", UNIT)
    asked = "id -un; id -Gn; cat /proc/self/oom_score_adj; ulimit -Sn; grep SigIgn /proc/self/status"

    said = as_user(service, "ann", "run", "--clean-env", asked).split()

    user, *groups, score, files, _, ignored = said
    assert (user, set(groups)) == ("ann", {"ann", "audio", "queuectl"})
    assert (score, files) == ("0", "1024")
    assert not int(ignored, 16) & 1 << (signal.SIGPIPE - 1)
    assert service.shown("ActiveState") == "active"


def test_a_member_drops_a_file_into_the_spool_and_nobody_else_can(service: Service) -> None:
    drop = (
        """cd /var/spool/queuectl && echo '{"id": "dropped", "command": "id -un"}' >tmp/x.json && mv tmp/x.json new/"""
    )

    with pytest.raises(AssertionError, match="Permission denied"):
        service.box.run("runuser", "-u", "sam", "--", "sh", "-c", drop)
    service.box.run("runuser", "-u", "ann", "--", "sh", "-c", f"umask 022; {drop}")

    wait_for(lambda: "dropped" in service.queuectl("list", "-q").split(), "it is taken")
    service.wait_for_state("dropped", "completed")
    with service.wire() as wire:
        assert wire.output("dropped") == b"ann\n"


def test_nobody_else_can_connect(service: Service) -> None:
    with pytest.raises(AssertionError, match="usermod -aG queuectl"):
        as_user(service, "sam", "list")
    with pytest.raises(AssertionError, match="Permission denied"):
        service.box.run("setpriv", "--reuid", "sam", "--clear-groups", "cat", service.state + "/queue.db")


def test_the_journal_has_one_line_for_each_attempt_with_its_priority(service: Service) -> None:
    as_user(service, "ann", "enqueue", "--id", "well", "true")
    as_user(service, "ann", "enqueue", "--id", "badly", "--max-retries", "1", "--backoff-base", "0", "exit 3")
    service.wait_for_state("well", "completed")
    service.wait_for_state("badly", "dead")
    service.box.run("journalctl", "--sync")

    entries = [json.loads(line) for line in service.journal().splitlines()]

    lines = [(entry["PRIORITY"], json.loads(entry["MESSAGE"])) for entry in entries if entry["MESSAGE"][0] == "{"]
    ends = [
        (line["job_id"], line["owner"], line["attempt"], line["exit_code"], line["state"], priority)
        for priority, line in lines
        if line["event"] == "job.finished" and line["job_id"] in {"well", "badly"}
    ]
    assert sorted(ends) == [
        ("badly", "ann", 1, 3, "failed", "4"),
        ("badly", "ann", 2, 3, "dead", "4"),
        ("well", "ann", 1, 0, "completed", "6"),
    ]


def test_a_stop_is_not_undone_by_who_waits_for_a_job(service: Service) -> None:
    service.long_job("waited-for")
    waiting = service.box.start(service.queuectl_program, "wait", "waited-for")
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

    service.box.run("kill", "-9", str(before))

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
    before, sleepers = service.pid, service.long_job("hang")

    service.box.run("kill", "-STOP", str(before))

    wait_for(lambda: service.pid not in {0, before}, "it is started again")
    assert "Watchdog timeout" in service.of_systemd()
    assert sleepers <= set(service.of_jobs())
    completed_once(service, "hang")


def test_a_reload_ends_when_the_configuration_is_in_force_and_fails_if_it_is_not_valid(service: Service) -> None:
    before = service.pid
    service.shell("echo 'max_retries = 7' >>/etc/queuectl/queuectld.toml")

    service.systemctl("reload", UNIT)

    assert service.queuectl("config", "get", "max_retries") == "7"
    service.shell("echo 'workers = \"many\"' >>/etc/queuectl/queuectld.toml")
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


# In front of the real one; does not say what systemd does.
SILENT = """#!/bin/sh
case "$*" in
*list-jobs*) exec sleep 1000;;
*) exec /usr/bin/systemctl "$@";;
esac
"""


def test_where_systemd_does_not_say_what_it_wants_nothing_is_begun_and_jobs_are_given_back(service: Service) -> None:
    service.shell(f"cat >/usr/local/bin/systemctl <<'.'\n{SILENT}\n.\nchmod +x /usr/local/bin/systemctl")
    before = service.pid
    service.long_job("silent")

    restarting = service.systemctl_in_background("restart", UNIT)

    with service.wire() as wire:
        wait_for(lambda: wire.call("status")["phase"] == "draining", "it has heard of it")
        with pytest.raises(RefusedError, match="draining"):
            wire.enqueue("true")
        assert wire.state("silent") == "processing"
    assert restarting.wait(20) == 0
    assert service.pid not in {0, before}
    service.box.run("rm", "/usr/local/bin/systemctl")
    completed_the_second_time(service, "silent")


def test_a_stop_between_a_crash_and_the_next_start_gives_jobs_back(service: Service) -> None:
    service.reconfigure("window", "[Service]\nRestartSec=1000\n")
    sleepers = service.long_job("window")
    service.box.run("kill", "-9", str(service.pid))
    service.wait_until("SubState", "auto-restart")
    assert sleepers <= set(service.of_jobs())

    service.systemctl("stop", "queuectld.socket", UNIT)

    # By the other unit, for which `systemctl stop` does not wait.
    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.restore()
    completed_the_second_time(service, "window")


def test_a_configuration_that_is_not_valid_ends_it_for_good_and_gives_jobs_back(service: Service) -> None:
    service.long_job("config")
    service.shell("echo 'workers = \"many\"' >/etc/queuectl/queuectld.toml")

    service.systemctl("restart", UNIT, check=False)

    service.wait_until("ActiveState", "failed")
    assert (service.shown("ExecMainStatus"), service.shown("NRestarts")) == ("78", "0")
    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.restore()
    completed_the_second_time(service, "config")


def test_doctor_tells_how_the_service_is(service: Service) -> None:
    assert "queuectld.service is active" in service.queuectl("doctor")
    service.shell("echo 'workers = \"many\"' >/etc/queuectl/queuectld.toml")
    service.systemctl("restart", UNIT, check=False)
    service.systemctl("stop", "queuectld.socket")

    said = service.queuectl("doctor", check=False)

    assert "queuectld.service has failed (exit-code)" in said
    assert "systemctl reset-failed queuectld.service queuectld.socket" in said


def test_whoever_connects_does_not_have_a_daemon_that_cannot_start_started_for_ever(service: Service) -> None:
    service.shell("echo 'workers = \"many\"' >/etc/queuectl/queuectld.toml")
    service.systemctl("restart", UNIT, check=False)
    tries = service.journal().count("daemon.failed")

    as_user(service, "ann", "list", check=False)

    service.wait_until("Result", "trigger-limit-hit", "queuectld.socket")
    service.wait_until("ActiveState", "failed")
    assert service.journal().count("daemon.failed") - tries <= 10
    service.shell("rm /etc/queuectl/queuectld.toml")
    service.systemctl("start", UNIT)
    assert as_user(service, "ann", "run", "id -un") == "ann"
    service.restore()


def test_a_daemon_that_fails_too_often_is_given_up_and_its_jobs_are_given_back(service: Service) -> None:
    # More often than systemd starts a unit by default: the one that gives jobs back goes along.
    service.reconfigure("limit", "[Unit]\nStartLimitBurst=7\n[Service]\nRestartSec=0.05\n")
    service.systemctl("reset-failed", UNIT)
    service.long_job("limit")

    def give_up() -> bool:
        if pid := service.pid:
            service.box.run("kill", "-9", str(pid), check=False)
        return service.shown("ActiveState") == "failed"

    wait_for(give_up, "systemd gives up")

    wait_for(lambda: not service.of_jobs(), "its jobs are ended")
    service.restore()
    completed_the_second_time(service, "limit")


def test_what_is_taken_away_leaves_jobs_and_data_to_the_next_installation(service: Service) -> None:
    service.long_job("uninstall")

    said = service.queuectl("daemon", "uninstall")

    assert "Jobs and data stay in /var/lib/queuectl." in said
    assert service.of_jobs() == {}
    left = service.shell("find /etc/systemd /etc/sysusers.d /etc/tmpfiles.d -name '*queuectl*' ! -type d")
    assert left == ""
    assert service.queuectl("daemon", "uninstall").endswith("is not installed in /etc/systemd/system.")
    assert service.queuectl("daemon", "install").startswith("queuectld.service is installed and runs")
    assert service.queuectl("daemon", "install").startswith("queuectld.service is installed and runs")
    completed_the_second_time(service, "uninstall")


def test_an_installation_takes_over_from_a_daemon_that_was_started_by_hand(service: Service) -> None:
    service.queuectl("daemon", "uninstall")
    service.queuectl("daemon", "start")
    sleepers = service.long_job("by-hand-before")

    service.queuectl("daemon", "install")

    with service.wire() as wire:
        assert wire.call("ping")["pid"] == service.pid
    assert sleepers <= set(service.of_jobs())
    completed_once(service, "by-hand-before")


def test_the_next_program_in_the_same_process_listens_on_the_socket_of_systemd(service: Service) -> None:
    service.long_job("reexec")
    before = service.shell("stat -c %i /run/queuectl/queuectl.sock")

    service.queuectl("daemon", "reexec")

    assert service.shell("stat -c %i /run/queuectl/queuectl.sock") == before
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
    assert "systemctl stop queuectld.socket" in told
    assert service.shown("ActiveState") == "inactive"
    assert service.queuectl("daemon", "stop") == "queuectld does not run."
    assert service.queuectl("daemon", "start").startswith("Started queuectld.service")


def test_a_power_cut_loses_nothing_and_jobs_run_again(tmp_path: Path) -> None:
    state = {Service.state: tmp_path / "state"}
    state[Service.state].mkdir(mode=0o700)
    with boot(FILES, state) as box:
        service = Service(box)
        service.queuectl("daemon", "install")
        with service.wire() as wire:
            wire.enqueue("true", id="before")
        service.wait_for_state("before", "completed")
        service.long_job("cut")

        box.halt()

    with boot(FILES, state) as box:
        service = Service(box)
        service.queuectl("daemon", "install")

        assert service.job("before")["state"] == "completed"
        completed_the_second_time(service, "cut", reason="lost")
        assert in_order(service).endswith("is in order.")
        service.wait_until_nothing_is_left()
