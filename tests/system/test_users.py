"""Several people on one machine, with a daemon that is root: each one's jobs are that one's, whatever happens."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sysbox.box import PROJECT, Box, boot
from tests.system.waiting import wait_for

UNIT = f"""
[Service]
Type=exec
ExecStart={sys.executable} -P -m queuectld.main --system
StateDirectory=queuectl
RuntimeDirectory=queuectl
RuntimeDirectoryPreserve=yes
Environment=PYTHONPATH={PROJECT}
Delegate=yes
KillMode=process
Restart=on-failure
RestartSec=0.1
"""
FILES = {
    "/etc/systemd/system/queuectld.service": UNIT,
    "/etc/queuectl/queuectld.toml": 'socket_group = "queuectl"\nworkers = 3\n',
}
PEOPLE = """
groupadd queuectl
useradd --create-home --key HOME_MODE=0700 --groups queuectl,audio ann
useradd --create-home --key HOME_MODE=0700 --groups queuectl bob
useradd --no-create-home --groups queuectl ivy
useradd --create-home sam
chmod 755 /run/queuectl 2>/dev/null || true
systemctl start queuectld
"""

SECRETS = (("ls", "output"), ("ls", "input"), ("ls", "outcomes"), ("cat", "queue.db"), ("cat", "queue.db-wal"))


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with boot(FILES) as found:
        found.run("sh", "-ec", PEOPLE)
        wait_for(lambda: queuectl(found, "root", "ping", check=False), found.journal("queuectld"))
        yield found


def queuectl(box: Box, user: str, *words: str, check: bool = True) -> Any:
    line = shlex.join([sys.executable, "-P", "-m", "queuectl_cli.main", *words])
    home = "/root" if user == "root" else f"/home/{user}"
    environ = [f"PYTHONPATH={PROJECT}", f"HOME={home}", f"USER={user}", "QUEUECTL_AUTOSTART=0"]
    told = ["runuser", "-u", user, "--", "env", "-C", "/", *environ, "sh", "-c", f"umask 022; {line}"]
    said = box.run(*told, check=check)
    return json.loads(said) if "json" in words else said


def run(box: Box, user: str, script: str, *options: str, check: bool = True) -> str:
    """Have a job run to its end; return what it wrote."""
    return str(queuectl(box, user, "run", "--max-retries", "0", *options, "--", "sh", "-c", script, check=check))


def shown(box: Box, job: str) -> dict[str, Any]:
    (found,) = queuectl(box, "root", "show", job, "-o", "json")
    return dict(found)


@pytest.mark.parametrize("user", ["ann", "bob", "root"])
def test_a_job_is_its_submitters_with_all_groups_and_no_other(box: Box, user: str) -> None:
    assert run(box, user, "id") == box.run("id", user)


def test_a_job_begins_where_it_was_submitted_as_its_user_sees_it(box: Box) -> None:
    made = run(box, "ann", "pwd; touch made; stat -c %U:%G:%a made", "--cwd", "/home/ann")

    assert made.split() == ["/home/ann", "ann:ann:644"]
    assert (
        "cannot be used: Permission denied"
        in run(box, "bob", "pwd", "--cwd", "/home/ann", check=False)
        + shown(box, queuectl(box, "root", "list", "--owner", "bob", "-q").split()[-1])["error"]
    )


@pytest.mark.parametrize(("user", "place"), [("ann", "/home/ann"), ("ivy", "/")])
def test_one_that_an_administrator_gives_to_somebody_has_the_account_of_that_one(
    box: Box, user: str, place: str
) -> None:
    job = queuectl(box, "root", "enqueue", "-q", "--as", user, "id -un; pwd; echo $HOME $USER $SHELL")
    queuectl(box, "root", "wait", job)

    said = queuectl(box, "root", "logs", job).split()
    assert said == [user, place, f"/home/{user}", user, box.run("getent", "passwd", user).split(":")[-1]]


def test_a_script_and_an_input_reach_the_job_of_a_user_through_the_state_of_root(box: Box) -> None:
    box.run("sh", "-c", "echo 'id -un; cat; cat /dev/stdin; echo over >/dev/stderr' >/home/ann/script")
    box.run("sh", "-c", "echo given >/home/ann/input")

    job = queuectl(
        box, "ann", "enqueue", "-q", "--script", "/home/ann/script", "--stdin", "/home/ann/input", "--max-retries", "0"
    )
    queuectl(box, "ann", "wait", job)

    assert sorted(queuectl(box, "ann", "logs", job).split()) == ["ann", "given", "given"]
    assert shown(box, job)["state"] == "completed"


def test_nobody_can_touch_the_job_of_somebody_else(box: Box) -> None:
    job = queuectl(box, "ann", "enqueue", "-q", "--env", "SECRET=deeply", "echo $$ >/tmp/ann; exec sleep 1000")
    pid = wait_for(lambda: box.run("cat", "/tmp/ann", check=False), "it runs")
    attempts = ["kill -9 {0}", "kill -STOP {0}", "cat /proc/{0}/environ", "ls /proc/{0}/fd", "readlink /proc/{0}/cwd"]
    # The directory of the state is as open as the service manager makes it; what is in it is not.
    attempts += [f"{how} /var/lib/queuectl/{what}" for how, what in SECRETS]
    attempts += ["cat /proc/{0}/mem", "ls /home/ann"]
    script = "; ".join(f"({one.format(pid)}) >/dev/null 2>&1 && echo '{one}'" for one in attempts)

    assert run(box, "bob", f"{script}; true") == ""
    for words in (["logs", job], ["show", job], ["cancel", job], ["retry", job]):
        assert queuectl(box, "bob", *words, check=False) == ""
    assert shown(box, job)["state"] == "processing"
    queuectl(box, "ann", "cancel", job)
    assert shown(box, job)["state"] == "cancelled"
    assert not box.run("cat", f"/proc/{pid}/stat", check=False)


def test_a_stranger_has_nothing_run(box: Box) -> None:
    assert run(box, "sam", "touch /tmp/sam", check=False) == ""
    assert not box.run("ls", "/tmp/sam", check=False)


def test_it_goes_on_under_the_next_daemon_and_nothing_of_it_is_left(box: Box) -> None:
    flees = "setsid env -i sh -c 'echo $$ >fled; exec sleep 1000'"
    script = f"({flees} &); until [ -s fled ] && [ -e go ]; do sleep 0.02; done; id -un"
    job = queuectl(box, "ann", "enqueue", "-q", "--cwd", "/home/ann", script)
    wait_for(lambda: shown(box, job)["state"] == "processing", "it runs")
    before = box.property("queuectld", "MainPID")

    box.run("kill", "-9", before)

    wait_for(lambda: box.property("queuectld", "MainPID") not in {before, "0"}, "the next one has begun")
    box.run("runuser", "-u", "ann", "touch", "/home/ann/go")
    wait_for(lambda: queuectl(box, "ann", "ping", check=False), "the next one answers")
    wait_for(lambda: shown(box, job)["state"] == "completed", "it has ended")
    assert shown(box, job)["attempts"] == 1
    assert queuectl(box, "ann", "logs", job) == "ann"
    assert not box.run("cat", f"/proc/{box.read('/home/ann/fled')}/stat", check=False)


def test_a_job_whose_user_is_gone_does_not_run(box: Box) -> None:
    box.run("useradd", "--groups", "queuectl", "eve")
    job = queuectl(box, "eve", "enqueue", "-q", "--max-retries", "0", "--in", "1s", "touch /tmp/eve")
    box.run("userdel", "eve")

    wait_for(lambda: shown(box, job)["state"] == "dead", "it was to run")

    assert "there is no user eve on this host" in shown(box, job)["error"]
    assert not box.run("ls", "/tmp/eve", check=False)
