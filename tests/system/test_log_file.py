"""A daemon that logs to a file of its own: rotated by the real logrotate, lost, and never in the way of the queue."""

from __future__ import annotations

import contextlib
import getpass
import os
import pty
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.log_schema import check_log
from tests.system.installation import Installation
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

LOGROTATE = shutil.which("logrotate", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


@pytest.fixture
def file(home: Path) -> Path:
    place = home / "logs"
    place.mkdir(mode=0o755)
    return place / "queuectld.jsonl"


@pytest.fixture
def start(new_daemon: Callable[..., LiveDaemon], file: Path) -> Callable[..., LiveDaemon]:
    return lambda **config: new_daemon(log_file=str(file), **config).start()


def events(*files: Path) -> list[dict[str, Any]]:
    return [line for file in files for line in check_log(file.read_bytes())]


def named(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


def finished(lines: list[dict[str, Any]]) -> list[str]:
    return sorted(line["job_id"] for line in named(lines, "job.finished"))


def run_jobs(daemon: LiveDaemon, count: int) -> list[str]:
    with daemon.wire() as wire:
        jobs = [wire.enqueue("true") for _ in range(count)]
        wire.call("wait", select={"ids": jobs})
    return jobs


def ask_to_reopen(daemon: LiveDaemon) -> None:
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGUSR1)


def test_the_file_has_everything_and_standard_error_nothing(start, file: Path) -> None:
    daemon = start(log_file_mode="0640")
    (job,) = run_jobs(daemon, 1)
    daemon.stop()

    lines = events(file)
    assert [lines[0]["event"], lines[-1]["event"]] == ["daemon.starting", "daemon.stopped"]
    assert [line["job_id"] for line in named(lines, "job.finished")] == [job]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert daemon.log_lines() == []


def test_without_a_file_the_signal_harms_nobody(daemon: LiveDaemon) -> None:
    ask_to_reopen(daemon)

    run_jobs(daemon, 1)
    assert daemon.stop() == 0


def test_a_signal_that_comes_before_the_daemon_can_act_on_it_harms_nobody(home: Path, new_daemon) -> None:
    daemon = new_daemon()
    config = home / "queuectld.toml"
    ready = config.rename(home / "ready.toml")
    os.mkfifo(config)
    daemon.launch()
    begun = wait_for(lambda: reading(config), "it reads its configuration")

    ask_to_reopen(daemon)
    ready.rename(config)
    os.close(begun)

    wait_for(daemon.answers, "the daemon answers")
    run_jobs(daemon, 1)


def reading(pipe: Path) -> int | None:
    """Return a descriptor if somebody reads there, who goes on when it is closed."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_lines_follow_the_name_of_the_file_when_asked(start, file: Path) -> None:
    daemon = start()
    old = file.rename(file.with_suffix(".1"))
    before = run_jobs(daemon, 3)

    ask_to_reopen(daemon)
    wait_for(file.exists, "the file is there again")
    after = run_jobs(daemon, 3)

    assert finished(events(old)) == sorted(before)
    assert events(file)[0]["event"] == "log.reopened"
    assert finished(events(file)) == sorted(after)


CONF = """{file} {{
    rotate 1000
    create 0640
    size 1
    notifempty
    {more}
    postrotate
        kill -USR1 {pid}
    endscript
}}
"""


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed; Debian has it in logrotate")
@pytest.mark.parametrize("more", ["nocompress", "compress\n    delaycompress"])
def test_no_line_is_lost_or_torn_when_the_real_logrotate_turns_the_file(start, file: Path, more: str) -> None:
    daemon = start()
    rules = file.parents[1] / "logrotate.conf"
    rules.write_text(CONF.format(file=file, pid=daemon.pid, more=more))
    rules.chmod(0o644)
    jobs: list[str] = []
    with daemon.wire() as wire:
        for _ in range(6):
            jobs += [wire.enqueue("true") for _ in range(60)]
            subprocess.run([LOGROTATE, "-s", rules.with_suffix(".state"), rules], check=True, timeout=60)
        wire.call("wait", select={"ids": jobs})
    daemon.stop()

    subprocess.run(f"gunzip -f {file}.*.gz", shell=True, check=False, stderr=subprocess.DEVNULL)
    # Old ones have the higher numbers.
    old = sorted(file.parent.glob(f"{file.name}.*"), key=lambda one: -int(one.suffix[1:]))
    lines = events(*old, file)
    assert len(old) >= 3
    assert len(named(lines, "log.reopened")) >= 3
    assert finished(lines) == sorted(jobs)
    assert named(lines, "daemon.stopped")


def test_a_reexec_goes_on_in_the_same_file_and_the_signal_is_not_lost_in_it(start, file: Path) -> None:
    daemon = start()
    (before,) = run_jobs(daemon, 1)
    old = file.rename(file.with_suffix(".1"))

    done = daemon.spawn_cli("daemon", "reexec")
    while done.poll() is None:
        ask_to_reopen(daemon)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Not so often that a loop which is held up has more of them waiting than it can be told of.
            done.wait(0.02)
    assert done.returncode == 0, done.communicate()
    done.communicate()
    wait_for(daemon.answers, "it answers")
    (after,) = run_jobs(daemon, 1)
    daemon.stop()

    assert len(named(events(old, file), "daemon.starting")) == 2
    assert finished(events(old)) == [before]
    assert finished(events(file)) == [after]


def test_a_reexec_that_could_not_log_is_refused(start, file: Path) -> None:
    daemon = start()
    shutil.rmtree(file.parent)

    refused = daemon.cli("daemon", "reexec")

    # It is checked before anything is given up.
    assert refused.code == 1
    assert "`log_file`" in refused.err
    run_jobs(daemon, 1)


def test_a_reexec_goes_on_without_a_directory_that_is_gone_after_the_check(new_daemon, file: Path) -> None:
    daemon = new_daemon(log_file=str(file))
    installed = Installation(daemon)
    daemon.start()
    installed.install_slow()
    reexec = daemon.spawn_cli("daemon", "reexec")
    wait_for(installed.arrived.exists, "the next program begins")

    shutil.rmtree(file.parent)
    installed.open()

    out, err = reexec.communicate(timeout=60)
    assert reexec.returncode == 0, out + err
    (job,) = run_jobs(daemon, 1)
    assert len(problems(daemon)) == 1
    assert job in finished(daemon.log_lines())


def problems(daemon: LiveDaemon) -> list[str]:
    with daemon.wire() as wire:
        found: list[str] = wire.call("status")["problems"]
    return found


def test_the_queue_goes_on_without_its_log_file_and_status_says_so(start, file: Path) -> None:
    daemon = start()
    shutil.rmtree(file.parent)

    jobs = run_jobs(daemon, 5)

    assert problems(daemon) == [
        f"the log file {file} cannot be written (No such file or directory): the log goes to standard error"
    ]
    assert "the log file" in daemon.cli("status").out
    lines = daemon.log_lines()
    assert len(named(lines, "log.file_failed")) == 1
    assert {line["job_id"] for line in named(lines, "job.finished")} == set(jobs)

    file.parent.mkdir(mode=0o755)
    run_jobs(daemon, 1)

    (back,) = named(events(file), "log.file_back")
    assert back["count"] == len(daemon.log_lines())
    assert problems(daemon) == []


def fill(rest: Path) -> None:
    with rest.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_under_the_log_stops_nobody(start, file: Path, mount_small) -> None:
    mount_small(file.parent, "1m")
    file.parent.chmod(0o755)
    daemon = start()
    fill(file.parent / "rest")

    jobs = run_jobs(daemon, 40)

    assert "No space left on device" in problems(daemon)[0]
    (file.parent / "rest").unlink()
    jobs += run_jobs(daemon, 1)
    daemon.stop()
    lines = [*daemon.log_lines(), *events(file)]
    assert sorted(line["job_id"] for line in named(lines, "job.finished")) == sorted(jobs)


@pytest.mark.parametrize("form", ["json", "ecs", "auto"])
def test_every_line_fits_the_schema_in_each_form_for_programs(start, file: Path, form: str) -> None:
    daemon = start(log_format=form, log_level="debug", max_retries=0)
    with daemon.wire() as wire:
        wire.call("wait", select={"ids": [wire.enqueue(command) for command in ("true", "exit 3", "kill -9 $$")]})
    daemon.stop()

    assert (b'"@timestamp"' in file.read_bytes()) == (form == "ecs")
    ends = named(events(file), "job.finished")
    assert {line["state"] for line in ends} == {"completed", "dead"}
    assert {line.get("signal") for line in ends} == {None, 9}


def test_78_and_the_reason_for_a_file_that_cannot_be_opened(new_daemon) -> None:
    daemon = new_daemon(log_file="/nowhere/at/all.jsonl")

    ended = daemon.run(daemon.program)

    (line,) = check_log(ended.stderr)
    assert ended.returncode == line["exit_code"] == 78
    assert (
        line["error"] == "`log_file` /nowhere/at/all.jsonl cannot be used: its directory does not exist; make it first"
    )
    checked = daemon.run([*daemon.program, "--check"])
    assert (checked.returncode, checked.stderr.decode()) == (78, f"queuectld: {line['error']}\n")


def test_a_file_that_the_next_start_could_not_open_is_refused_when_it_is_named(start, file: Path) -> None:
    daemon = start()

    ran = daemon.cli("config", "set", "log_file", str(file.parent / "nowhere" / "x.jsonl"))

    assert ran.code == 78
    assert "its directory does not exist" in ran.err
    assert daemon.stop() == 0
    daemon.start()


def test_where_a_value_comes_from_that_keeps_a_daemon_from_starting_is_said(start, file: Path) -> None:
    daemon = start()
    there = file.parent / "there"
    there.mkdir()
    assert daemon.cli("config", "set", "log_file", str(there / "x.jsonl")).code == 0
    assert daemon.stop() == 0
    there.rmdir()

    daemon.launch()

    assert daemon.process is not None
    assert daemon.process.wait(20) == 78
    said = daemon.log_lines()[-1]["error"]
    assert "its directory does not exist" in said
    assert f"`queuectl config set` by {getpass.getuser()}" in said
    assert str(daemon.state / "overrides.json") in said


def test_the_last_words_of_a_daemon_that_cannot_start_are_in_both_places(start, file: Path) -> None:
    daemon = start()

    ended = daemon.run(daemon.program)

    (line,) = check_log(ended.stderr)
    assert ended.returncode == line["exit_code"] == 75
    assert events(file)[-1] == line
    daemon.stop()


def test_people_at_a_terminal_are_told_in_a_sentence(new_daemon) -> None:
    daemon = new_daemon(worker=3)
    controller, terminal = pty.openpty()

    ended = subprocess.run(daemon.program, stderr=terminal, env=daemon.env, cwd=daemon.home, timeout=60, check=False)

    said = os.read(controller, 10_000).decode()
    os.close(controller)
    os.close(terminal)
    assert ended.returncode == 78
    assert said.startswith("queuectld: ")
    assert "worker" in said
    assert "{" not in said


def test_the_command_line_quotes_why_a_daemon_does_not_start(new_daemon) -> None:
    daemon = new_daemon(log_file="/nowhere/at/all.jsonl")

    done = daemon.cli("daemon", "start")

    assert done.code == 78
    assert "`log_file` /nowhere/at/all.jsonl cannot be used" in done.err
    assert "{" not in done.err
