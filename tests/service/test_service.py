"""The service of the system: who may do what, what the journal has, and how it is installed and taken away."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.service.installed import (
    UNIT,
    Service,
    completed_once,
    completed_the_second_time,
    in_order,
)
from tests.sysbox.box import boot
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError


@pytest.fixture(scope="module")
def installed() -> Iterator[Service]:
    with boot(Service.files) as box:
        service = Service(box)
        service.install()
        box.run("useradd", "--create-home", "--groups", "queuectl,audio", "ann")
        box.run("useradd", "--create-home", "sam")
        yield service
        service.restore()
        in_order(service)


def test_its_socket_is_for_the_group(service: Service) -> None:
    assert service.shell(f"stat -c '%U %G %a' /{service.socket}") == "root queuectl 660"


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


TOKEN, TOKENS, TCP = "a-token-of-more-than-16-characters", "/etc/queuectl/tokens", "queuectld-tcp.socket"


@pytest.fixture
def asked_over_tcp(service: Service) -> Iterator[Callable[[str], tuple[int, str]]]:
    """What has ann's job done over TCP by who shows a token; returns the exit code, and what was said."""

    def ask(token: str) -> tuple[int, str]:
        run = f"{service.queuectl_program} -H tcp://127.0.0.1:7420 --token-file /root/token run id -un"
        said, _, code = service.shell(f"umask 077; echo {token} >/root/token; {run} 2>&1; echo $?").rpartition("\n")
        return int(code), said

    service.shell(f"umask 077; echo {TOKEN} ann >{TOKENS}")
    service.set(f"token_file = {TOKENS!r}")
    # systemd opens no socket for a service that runs.
    service.queuectl("daemon", "stop", "--leave")
    service.systemctl("enable", "--now", TCP)
    yield ask
    service.systemctl("disable", "--now", TCP)
    service.systemctl("stop", UNIT)


def test_a_token_wakes_it_over_tcp_and_a_wrong_one_is_refused_and_logged(
    service: Service, asked_over_tcp: Callable[[str], tuple[int, str]]
) -> None:
    assert service.shown("ActiveState") == "inactive"

    right = asked_over_tcp(TOKEN)
    wrong = asked_over_tcp("another-token-of-enough-characters")

    assert right == (0, "ann")
    assert (wrong[0], "the token is not valid" in wrong[1]) == (125, True), wrong
    service.box.run("journalctl", "--sync")
    refused = [line for line in service.log() if line["event"] == "client.refused"]
    assert [(line["level"], line["address"]) for line in refused] == [("warning", "127.0.0.1")]
    assert "another-token" not in service.journal()


def test_who_stops_it_is_told_of_every_socket_that_would_start_it_again(
    service: Service, asked_over_tcp: Callable[[str], tuple[int, str]]
) -> None:
    service.systemctl("start", UNIT)

    told = service.shell(f"{service.queuectl_program} daemon stop 2>&1")

    assert f"systemctl stop queuectld.socket {TCP}" in told


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


def test_doctor_tells_how_the_service_is(service: Service) -> None:
    assert "queuectld.service is active" in service.queuectl("doctor")
    service.set('workers = "many"')
    service.systemctl("restart", UNIT, check=False)
    service.systemctl("stop", "queuectld.socket")

    said = service.queuectl("doctor", check=False)

    assert "queuectld.service has failed (exit-code)" in said
    assert "systemctl reset-failed queuectld.service queuectld.socket" in said


def test_whoever_connects_does_not_have_a_daemon_that_cannot_start_started_for_ever(service: Service) -> None:
    service.set('workers = "many"')
    service.systemctl("restart", UNIT, check=False)
    tries = service.journal().count("daemon.failed")

    as_user(service, "ann", "list", check=False)

    service.wait_until("Result", "trigger-limit-hit", "queuectld.socket")
    service.wait_until("ActiveState", "failed")
    assert service.journal().count("daemon.failed") - tries <= 10
    service.shell(f"rm {service.config}")
    service.systemctl("start", UNIT)
    assert as_user(service, "ann", "run", "id -un") == "ann"


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
