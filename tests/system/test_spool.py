"""Jobs from files: put there by a shell, taken once, as their owner's; what cannot be used is told."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.test_full_disk import fill
from tests.system.waiting import wait_for

README = (Path(__file__).parents[2] / "README.md").read_text()
MEMBERS = 54321
SOMEBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon serves others")


def drop(daemon: LiveDaemon, name: str, *jobs: dict[str, Any] | str, spool: Path | None = None) -> Path:
    """Write a file with one job a line, and put it where it is taken from."""
    spool = spool or daemon.state / "spool"
    wait_for((spool / "taken").is_dir, "the spool is there")
    draft = spool / "tmp" / name
    draft.write_text("\n".join(job if isinstance(job, str) else json.dumps(job) for job in jobs))
    return draft.rename(spool / "new" / name)


def left(spool: Path) -> dict[str, list[str]]:
    return {
        place: sorted(file.name for file in (spool / place).iterdir()) for place in ("tmp", "new", "taken", "failed")
    }


NOTHING: dict[str, list[str]] = {"tmp": [], "new": [], "taken": [], "failed": []}


def events(daemon: LiveDaemon, *names: str) -> list[dict[str, Any]]:
    return [line for line in daemon.log_lines() if line["event"] in names]


def test_the_lines_of_the_readme_have_a_job_done(new_daemon: Callable[..., LiveDaemon]) -> None:
    found = re.search(r"<!-- spool -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found
    daemon = new_daemon().start()
    wait_for((daemon.state / "spool" / "taken").is_dir, "the spool is there")
    usual = daemon.home / ".local" / "state"
    usual.mkdir(parents=True)
    (usual / "queuectl").symlink_to(daemon.state)
    (daemon.home / "site").mkdir()

    subprocess.run(["sh", "-eu", "-c", found[1]], env=daemon.env, cwd=daemon.home, check=True)

    daemon.wait_for_state("report", "completed")
    assert (daemon.home / "site" / "report.txt").exists()


def test_the_jobs_of_a_file_are_its_owners_with_his_environment_and_his_home(daemon: LiveDaemon) -> None:
    drop(daemon, "x.json", {"id": "one", "command": "pwd; env", "env": {"MINE": "1"}}, {"id": "two", "command": "true"})

    job = daemon.wait_for_state("one", "completed")
    daemon.wait_for_state("two", "completed")

    assert job["owner"] == getpass.getuser()
    place, *variables = daemon.output("one").decode().splitlines()
    names = {line.partition("=")[0] for line in variables}
    assert place == pwd.getpwuid(os.geteuid()).pw_dir
    assert {"PATH", "HOME", "MINE", "QUEUECTL_JOB_ID"} <= names
    assert "QUEUECTL_STATE_DIR" not in names
    wait_for(lambda: left(daemon.state / "spool") == NOTHING, "nothing is left of the file")
    with daemon.wire() as wire:
        added = [event for event in wire.stream("events", start=0) if event["event"] == "job.enqueued"]
    assert [(event["job"], event["by"]) for event in added] == [("one", getpass.getuser()), ("two", getpass.getuser())]
    [line] = events(daemon, "spool.taken")
    assert (line["path"], line["owner"], line["count"]) == ("x.json", getpass.getuser(), 2)
    [line] = [line for line in events(daemon, "audit.request") if line["origin"].startswith("file ")]
    assert (line["origin"], line["user"], line["peer_uid"]) == ("file x.json", getpass.getuser(), os.geteuid())
    assert (line["op"], line["result"], line["jobs"]) == ("enqueue", "ok", ["one", "two"])


def test_a_job_starts_soon_after_its_file_is_there(daemon: LiveDaemon) -> None:
    spans = []
    for number in range(8):
        stamp = daemon.home / f"stamp-{number}"
        begin = time.time()
        drop(daemon, f"{number}.json", {"id": f"job-{number}", "command": f"date +%s.%N > {stamp}"})
        daemon.wait_for_state(f"job-{number}", "completed")
        spans.append(float(stamp.read_text()) - begin)

    # Without anything that waits on purpose; the host may be slow at times, but hardly each time.
    assert min(spans[1:]) < 0.25


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["{"], "not JSON"),
        ([{"comand": "true"}], "did you mean `command`?"),
        ([{"command": "true"}, {"command": "true", "queue": "gpu"}], "job 2: "),
    ],
)
def test_a_file_that_cannot_be_used_lies_with_the_reason_among_those_that_failed(
    daemon: LiveDaemon, lines: list[Any], reason: str
) -> None:
    drop(daemon, "x.json", *lines)
    failed = daemon.state / "spool" / "failed"
    wait_for((failed / "x.json").exists, "the file has failed")

    said = (failed / "x.json.error").read_text()
    assert reason in said
    assert daemon.counts() == {}
    [line] = wait_for(lambda: events(daemon, "spool.refused"), "the log says so")
    assert line["level"] == "warning"
    assert line["path"] == str(failed / "x.json")
    assert line["reason"] == said.strip()


def test_what_came_while_nobody_was_there_is_taken_at_the_start(daemon: LiveDaemon) -> None:
    drop(daemon, "first", {"id": "first", "command": "true"})
    daemon.wait_for_state("first", "completed")
    daemon.stop()
    for number in range(200):
        drop(daemon, f"{number}", {"command": "true"})

    daemon.start()

    daemon.wait_for_counts(completed=201)
    wait_for(lambda: left(daemon.state / "spool") == NOTHING, "nothing is left of the files")


def test_a_daemon_that_ends_leaves_files_for_the_next_one(daemon: LiveDaemon, gate: Gate) -> None:
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="long")
    daemon.worker_of("long")
    with daemon.wire() as wire:
        wire.call("shutdown", mode="wait")
        wait_for(lambda: wire.call("status")["phase"] == "draining", "it ends")
        file = drop(daemon, "x.json", {"id": "later", "command": "true"})
        # Which wakes it too: by now it has seen the first.
        drop(daemon, "y.json", "{")
        gate.open()
    assert daemon.process is not None
    assert daemon.process.wait(30) == 0
    assert file.exists()

    daemon.start()

    daemon.wait_for_state("later", "completed")


def test_files_wait_for_a_full_disk_to_have_space_again(
    home: Path, mount_small: Callable[[Path, str], Path], new_daemon: Callable[..., LiveDaemon]
) -> None:
    state, spool = mount_small(home / "state", "32m"), home / "spool"
    daemon = new_daemon(spool=str(spool)).start()
    with daemon.wire() as wire:
        ballast = fill(state, wire)
        drop(daemon, "x.json", {"id": "patient", "command": "true"}, spool=spool)
        [problem] = wait_for(
            lambda: [text for text in wire.call("status")["problems"] if "spool" in text], "the status says so"
        )
        assert "disk" in problem
        assert left(spool)["failed"] == []
        ballast.unlink()

    daemon.wait_for_state("patient", "completed", deadline=60)


def test_a_spool_that_others_could_meddle_with_is_told_and_not_read(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon()
    spool = daemon.home / "spool"
    (spool / "new").mkdir(parents=True)
    (spool / "new").chmod(0o777)
    daemon.configure(workers=1, spool=str(spool))
    daemon.start()
    (spool / "new" / "x.json").write_text('{"id": "one", "command": "true"}')

    def problems() -> list[str]:
        with daemon.wire() as wire:
            return wire.call("status")["problems"]

    [problem] = wait_for(problems, "the status says so")
    assert f"everybody may write to {spool}/new" in problem
    (spool / "new").chmod(0o700)

    daemon.wait_for_state("one", "completed")
    wait_for(lambda: problems() == [], "all is well")
    assert [line["event"] for line in events(daemon, "spool.failed", "spool.works")] == ["spool.failed", "spool.works"]


def test_another_spool_is_used_as_soon_as_the_configuration_says_so(daemon: LiveDaemon) -> None:
    first, second = daemon.state / "spool", daemon.home / "elsewhere"
    drop(daemon, "one", {"id": "one", "command": "true"})
    daemon.wait_for_state("one", "completed")

    daemon.cli("config", "set", "spool", str(second))
    drop(daemon, "two", {"id": "two", "command": "true"}, spool=second)
    daemon.wait_for_state("two", "completed")
    drop(daemon, "three", {"id": "three", "command": "true"})
    daemon.cli("config", "set", "spool", "off")
    drop(daemon, "four", {"id": "four", "command": "true"}, spool=second)
    daemon.cli("config", "unset", "spool")

    daemon.wait_for_state("three", "completed")
    wait_for(lambda: left(first) == NOTHING, "the first is empty")
    assert left(second)["new"] == ["four"]


def test_directories_that_are_replaced_are_used_from_then_on(daemon: LiveDaemon) -> None:
    spool = daemon.state / "spool"
    drop(daemon, "one", {"id": "one", "command": "true"})
    daemon.wait_for_state("one", "completed")

    spool.rename(daemon.home / "away")
    (daemon.home / "away" / "new" / "wakes").write_text("{")
    drop(daemon, "two", {"id": "two", "command": "true"})

    daemon.wait_for_state("two", "completed")


def test_many_files_do_not_keep_others_waiting(daemon: LiveDaemon) -> None:
    daemon.cli("worker", "stop")
    for number in range(1500):
        drop(daemon, f"{number}", {"command": "true"})
        if number == 500:
            begin = time.monotonic()
            with daemon.wire() as wire:
                wire.enqueue("true", id="in-between")
            took = time.monotonic() - begin

    daemon.wait_for_counts(pending=1501)
    assert took < 2


# Root's daemon, and those who may use it.


def as_somebody(command: str, home: Path) -> None:
    subprocess.run(
        ["sh", "-euc", command],
        cwd=home,
        user=SOMEBODY,
        group=SOMEBODY,
        extra_groups=[MEMBERS],
        umask=0o022,
        check=True,
    )


@pytest.fixture
def spool_of_many(new_daemon: Callable[..., LiveDaemon]) -> tuple[LiveDaemon, Path]:
    """Root's daemon, in whose spool the members of a group may put files."""
    daemon = new_daemon()
    daemon.home.chmod(0o755)
    spool = daemon.home / "spool"
    daemon.configure(workers=1, spool=str(spool))
    for name, mode in (("tmp", 0o3730), ("new", 0o3730)):
        (spool / name).mkdir(parents=True)
        os.chown(spool / name, -1, MEMBERS)
        (spool / name).chmod(mode)
    daemon.start()
    wait_for((spool / "taken").is_dir, "the spool is there")
    return daemon, spool


@needs_root
def test_a_member_puts_files_there_and_the_jobs_are_his(spool_of_many: tuple[LiveDaemon, Path]) -> None:
    daemon, spool = spool_of_many

    as_somebody("""printf '{"id":"his","command":"true","delay":3600}' > tmp/x && mv tmp/x new/""", spool)

    assert daemon.wait_for_state("his", "pending")["owner"] == "nobody"


@needs_root
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("""umask 002; printf '{"command":"true"}' > tmp/x && mv tmp/x new/""", "others may write to it (mode 0664)"),
        ("""printf '{"command":"true","as":"root"}' > tmp/x && mv tmp/x new/""", "only administrators"),
        ("ln -s /etc/shadow new/x", "a symbolic link"),
        ("mkfifo new/x", "a pipe"),
        ("truncate -s 1T new/x", "are the most"),
    ],
)
def test_what_a_member_may_not_is_refused(spool_of_many: tuple[LiveDaemon, Path], command: str, reason: str) -> None:
    daemon, spool = spool_of_many

    as_somebody(command, spool)

    wait_for((spool / "failed" / "x.error").exists, "the file has failed")
    wait_for(lambda: reason in (spool / "failed" / "x.error").read_text(), f"it is said why: {reason}")
    assert daemon.counts() == {}


@needs_root
def test_a_member_cannot_have_a_file_taken_for_somebody_elses(spool_of_many: tuple[LiveDaemon, Path]) -> None:
    """Which root wrote where that member may move it."""
    daemon, spool = spool_of_many
    his = daemon.home / "his"
    his.mkdir()
    (his / "x").write_text('{"command":"true"}')
    os.chown(his, SOMEBODY, SOMEBODY)

    as_somebody("mv his/x spool/new/x", daemon.home)

    wait_for((spool / "failed" / "x.error").exists, "the file has failed")
    wait_for(lambda: "made elsewhere" in (spool / "failed" / "x.error").read_text(), "it is said why")
    assert daemon.counts() == {}
