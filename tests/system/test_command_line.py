"""The command line against a real daemon: starts it, stops it, outlives it, and says why it cannot reach it."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import CLI, LiveDaemon, Ran
from tests.system.waiting import wait_for

# Lets the command line start the daemon by itself; the other tests forbid it.
BY_ITSELF = {"QUEUECTL_AUTOSTART": "1"}


@pytest.fixture
def nobody_there(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    """A place where no daemon runs yet."""
    return new_daemon()


def started(ran: Ran) -> bool:
    return ran.err.startswith("Started queuectld (pid ")


# It starts by itself.


def test_the_first_job_starts_the_daemon_and_says_so_once(nobody_there: LiveDaemon) -> None:
    first = nobody_there.cli("enqueue", "--id", "a", "echo hello", env=BY_ITSELF)
    second = nobody_there.cli("enqueue", "--id", "b", "true", env=BY_ITSELF)

    assert (first.code, first.out) == (0, "a\n")
    assert started(first), first
    assert first.err.endswith("2 workers).\n")
    assert (second.code, second.out, second.err) == (0, "b\n", "")
    nobody_there.wait_for_state("a", "completed")


def test_a_daemon_that_starts_says_how_many_jobs_wait_from_last_time(nobody_there: LiveDaemon) -> None:
    nobody_there.cli("enqueue", "--in", "1h", "true", env=BY_ITSELF)
    nobody_there.cli("enqueue", "--in", "1h", "true", env=BY_ITSELF)
    assert nobody_there.cli("daemon", "stop").code == 0

    again = nobody_there.cli("worker", "start", env=BY_ITSELF)

    assert again.code == 0
    assert again.err.endswith("2 workers, 2 jobs waiting from last time).\n"), again


def test_run_starts_it_too_and_passes_the_exit_code_on(nobody_there: LiveDaemon) -> None:
    ran = nobody_there.cli("run", "--", "sh", "-c", "exit 7", env=BY_ITSELF)

    assert ran.code == 7
    assert started(ran), ran


def test_in_json_nothing_is_said_beside_the_answer(nobody_there: LiveDaemon) -> None:
    ran = nobody_there.cli("enqueue", "--json", "--id", "a", "true", env=BY_ITSELF)

    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)[0]["id"] == "a"


def test_the_queue_of_a_user_is_in_the_home_directory(nobody_there: LiveDaemon) -> None:
    run = nobody_there.home / "run"
    run.mkdir(mode=0o700)
    env = BY_ITSELF | {"XDG_RUNTIME_DIR": str(run), "QUEUECTL_STATE_DIR": ""}

    ran = nobody_there.cli("--user", "enqueue", "--id", "mine", "true", env=env)

    assert started(ran), ran
    assert (run / "queuectl" / "queuectl.sock").is_socket()
    assert (nobody_there.home / ".local" / "state" / "queuectl" / "queue.db").exists()
    assert nobody_there.cli("--user", "wait", "mine", env=env).code == 0


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (("enqueue", "true"), {"QUEUECTL_AUTOSTART": "0"}),
        (("enqueue", "true"), BY_ITSELF | {"QUEUECTL_JOB_ID": "outer"}),
        (("-H", "unix:///nowhere.sock", "enqueue", "true"), BY_ITSELF),
        (("list",), BY_ITSELF),
        (("status",), BY_ITSELF),
    ],
)
def test_where_that_is_not_right_it_is_not_started(
    nobody_there: LiveDaemon, words: tuple[str, ...], env: Mapping[str, str]
) -> None:
    ran = nobody_there.cli(*words, env=env)

    assert ran.code == 69, ran
    assert not nobody_there.state.exists()


def test_a_daemon_that_cannot_start_says_why_in_words(nobody_there: LiveDaemon) -> None:
    nobody_there.configure(max_retries="many")

    ran = nobody_there.cli("enqueue", "true", env=BY_ITSELF)

    assert ran.code == 78, ran
    assert "`max_retries` cannot be 'many': it takes a whole number" in ran.err
    assert "{" not in ran.err


def test_of_many_that_start_it_at_once_one_says_so(nobody_there: LiveDaemon) -> None:
    nobody_there.env |= BY_ITSELF
    runs = [nobody_there.spawn_cli("enqueue", "true") for _ in range(4)]

    said = [run.communicate(timeout=30)[1].decode() for run in runs]

    assert [run.returncode for run in runs] == [0] * 4
    assert sorted(text.startswith("Started queuectld") for text in said) == [False, False, False, True], said
    nobody_there.wait_for_counts(completed=4)


# Start, stop, restart.


def test_a_restart_into_a_bad_configuration_leaves_the_daemon_that_runs_alone(daemon: LiveDaemon) -> None:
    before = daemon.pid
    daemon.configure(max_retries="many")

    ran = daemon.cli("daemon", "restart")

    assert ran.code == 78, ran
    assert "left alone" in ran.err
    assert daemon.pid == before


def on_a_terminal(daemon: LiveDaemon, keys: str, *words: str) -> str:
    """Run `queuectl` on a terminal, type `keys`, and return what there was to read; it must end with 0."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*CLI, *words], env=daemon.env, cwd=daemon.home, stdin=theirs, stdout=theirs, stderr=theirs
    ) as run:
        os.close(theirs)
        os.write(ours, keys.encode())
        shown = b""
        while piece := _read(ours):
            shown += piece
        os.close(ours)
        assert run.wait(30) == 0, shown
    return shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:
        # The last process on it is gone.
        return b""


def test_stop_asks_what_becomes_of_running_jobs_and_leave_leaves_them(daemon: LiveDaemon, gate: Gate) -> None:
    daemon.cli("enqueue", "--id", "long", gate.wait())
    worker = daemon.worker_of("long")

    shown = on_a_terminal(daemon, "leave\n", "daemon", "stop")

    assert "1 job running." in shown
    assert "queuectld has stopped." in shown
    assert processes.alive(worker)
    assert daemon.cli("daemon", "start").code == 0
    gate.open()
    assert daemon.wait_for_state("long", "completed")["attempts"] == 1


def test_stop_that_waits_lets_running_jobs_end(daemon: LiveDaemon, gate: Gate) -> None:
    daemon.cli("enqueue", "--id", "long", gate.wait())
    daemon.worker_of("long")
    stop = daemon.spawn_cli("daemon", "stop", "--wait")
    wait_for(lambda: "daemon.draining" in daemon.log_tail() or daemon.cli("enqueue", "true").code == 75, "it stops")

    gate.open()

    assert stop.wait(30) == 0
    stop.communicate()
    assert daemon.process is not None
    assert daemon.process.wait(20) == 0
    daemon.start()
    assert daemon.state_of("long") == "completed"


def test_followers_go_on_after_a_restart(daemon: LiveDaemon, gate: Gate) -> None:
    daemon.cli("enqueue", "--id", "long", "--max-retries", "0", f"echo before; {gate.wait()}; echo after; exit 5")
    daemon.worker_of("long")
    followers = {
        words: daemon.spawn_cli(*words)
        for words in (("wait", "long"), ("logs", "-f", "long"), ("events", "-f", "--limit", "3"))
    }
    wait_for(lambda: _connections(daemon) == len(followers) + 1, "all of them are connected")

    assert daemon.cli("daemon", "restart").code == 0
    daemon.cli("enqueue", "--id", "next", "true")
    gate.open()
    told = {words[0]: (*run.communicate(timeout=30), run.returncode) for words, run in followers.items()}

    assert told["wait"][2] == 5, told
    assert told["logs"] == (b"before\nafter\n", b"", 0)
    numbers = [int(line.split()[0]) for line in told["events"][0].decode().splitlines()]
    assert numbers == list(range(numbers[0], numbers[0] + 3)), told


def _connections(daemon: LiveDaemon) -> int:
    with daemon.wire() as wire:
        return int(wire.call("status")["connections"])


def test_workers_that_were_stopped_start_again_as_many_as_they_were(daemon: LiveDaemon) -> None:
    daemon.cli("worker", "start", "--count", "3")
    daemon.cli("worker", "stop")
    daemon.cli("worker", "start")

    assert daemon.cli("config", "get", "workers").out == "3\n"


def test_follow_tells_what_workers_do_until_it_is_interrupted(daemon: LiveDaemon) -> None:
    follow = daemon.spawn_cli("worker", "start", "--count", "1", "--follow")
    assert follow.stdout is not None
    assert follow.stdout.readline() == b"1 worker may run; 1 here:\n"

    daemon.cli("enqueue", "--id", "demo1", "true")
    daemon.cli("enqueue", "--id", "demo2", "--max-retries", "0", "exit 3")
    daemon.wait_for_counts(completed=1, dead=1)
    lines = [
        line.decode().rstrip() for line in iter(follow.stdout.readline, b"[Worker 1] Running job demo2 (attempt 1)\n")
    ]
    follow.send_signal(signal.SIGINT)
    _, err = follow.communicate(timeout=30)

    assert "[Worker 1] Running job demo1 (attempt 1)" in lines
    assert "[Worker 1] Job demo1 completed" in lines
    assert follow.returncode == 0
    assert b"The workers go on" in err


# What scripts rely on.


def test_a_reader_that_goes_away_is_no_error(daemon: LiveDaemon) -> None:
    daemon.cli("worker", "stop")
    daemon.cli("enqueue", "--lines", "-", stdin="true\n" * 3000)
    command = " ".join(CLI)

    ran = daemon.run(["sh", "-c", f"{{ {command} list; echo $? >code; }} | head -n 1"])

    assert ran.stdout.startswith(b"ID ")
    assert ran.stderr == b""
    assert (daemon.home / "code").read_text() == "0\n"


def test_ids_flow_from_one_command_into_the_next(daemon: LiveDaemon) -> None:
    daemon.cli("enqueue", "--lines", "-", stdin="exit 3\n" * 3, env={})
    command = " ".join(CLI)
    daemon.cli("config", "set", "max-retries", "0")
    daemon.cli("cancel", "--all", "-y")

    ran = daemon.run(["sh", "-c", f"{command} list -o name | xargs {command} show --json"])

    assert len(json.loads(ran.stdout)) == 3


def test_an_interrupt_ends_what_only_looks_with_130(daemon: LiveDaemon, gate: Gate) -> None:
    daemon.cli("enqueue", "--id", "long", f"echo begun; {gate.wait()}")
    logs = daemon.spawn_cli("logs", "-f", "long")
    assert logs.stdout is not None
    assert logs.stdout.readline() == b"begun\n"

    logs.send_signal(signal.SIGINT)
    _, err = logs.communicate(timeout=30)

    assert (logs.returncode, err) == (130, b"")
    assert daemon.state_of("long") == "processing"
    gate.open()


def test_logs_of_a_job_are_followed_over_its_attempts(daemon: LiveDaemon) -> None:
    daemon.cli(
        "enqueue",
        "--id",
        "flaky",
        "--max-retries",
        "2",
        "--backoff-base",
        "0.1",
        'echo "try $QUEUECTL_ATTEMPT"; exit 1',
    )

    followed = daemon.cli("logs", "-f", "--exit-status", "flaky")

    assert followed.code == 1
    assert followed.out.endswith("try 3\n")
    assert daemon.cli("logs", "--attempt", "all", "flaky").out == "try 1\ntry 2\ntry 3\n"
    assert daemon.cli("logs", "--attempt", "2", "flaky").out == "try 2\n"


def test_the_output_of_a_job_is_a_plain_file(daemon: LiveDaemon) -> None:
    daemon.cli("run", "--id", "said", "echo out; echo err >&2")
    daemon.cli("run", "--id", "silent", "true")

    path = daemon.cli("logs", "--path", "said")

    assert Path(path.out.strip()).read_text() == "out\nerr\n"
    assert daemon.cli("logs", "--path", "silent").code == 1


def test_letters_that_were_delivered_are_neither_retried_nor_discarded_with_the_others(daemon: LiveDaemon) -> None:
    daemon.cli("run", "--id", "delivered", "exit 3")
    daemon.cli("enqueue", "--id", "unseen", "--max-retries", "0", "exit 3")
    daemon.wait_for_state("unseen", "dead")

    would = daemon.cli("dlq", "retry", "--all", "-n")
    discarded = daemon.cli("dlq", "discard", "--all", "-y")

    assert would.out == "unseen\n"
    assert discarded.out == "unseen\n"
    assert daemon.cli("undelete", "unseen").code == 0
    assert daemon.cli("dlq", "-q").out == "unseen\n"
    assert daemon.cli("dlq", "list", "--seen", "-q").out == "delivered\n"


# A daemon that listens on TCP.


def test_tcp_is_switched_on_by_configuration_and_runs_jobs_in_the_daemons_own_environment(
    daemon: LiveDaemon, home: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = home / "token"
    token.write_text("correct-horse-battery-staple\n")
    token.chmod(0o600)
    assert daemon.cli("config", "set", "tcp", f"127.0.0.1:{port}").code == 78
    assert daemon.cli("config", "set", "token-file", str(token)).code == 0
    assert "when the daemon starts again" in daemon.cli("config", "set", "tcp", f"127.0.0.1:{port}").out
    assert daemon.cli("daemon", "restart").code == 0
    remote = {"QUEUECTL_HOST": f"tcp://127.0.0.1:{port}", "QUEUECTL_TOKEN_FILE": str(token), "SECRET": "of the client"}

    ran = daemon.cli("run", "echo ${SECRET:-none}", env=remote)
    without = daemon.cli("list", env=remote | {"QUEUECTL_TOKEN_FILE": ""})
    unread = daemon.cli("list", env=remote | {"QUEUECTL_TOKEN_FILE": "/no/such/file"})

    assert (ran.code, ran.out) == (0, "none\n"), ran
    assert (without.code, "asks for a token" in without.err) == (77, True), without
    assert (unread.code, "cannot read the token file" in unread.err) == (2, True), unread
