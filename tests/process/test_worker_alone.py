"""A worker whose daemon goes away, comes back, or never does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from queuectld.errors import StoreError
from queuectld.protocol.worker_messages import (
    CHANNEL_VERSION,
    Beat,
    Ended,
    Exit,
    Holding,
    Idle,
    Reason,
    Recorded,
    Run,
    Running,
    Stale,
    Stop,
    Welcome,
    decode_from_worker,
)
from queuectld.upkeep import ending
from queuectld.worker import procfs
from tests.process.fake_daemon import PATIENCE, STORE, alive, until


@pytest.fixture
def daemon(fake_daemon):
    """A daemon, no worker yet."""
    return fake_daemon


def wait_for_go(daemon):
    """Start a command that goes on until `go`, and then exits with 3."""
    return daemon.shell("read x < go; exit 3", cwd=str(daemon.state))


def test_hello_says_who_it_is(daemon):
    hello = daemon.start_worker().hello

    assert (hello.protocol, hello.store, hello.name) == (CHANNEL_VERSION, STORE, "w1")
    assert hello.pid == daemon.workers[0].pid
    assert hello.state == Idle()


def test_a_command_survives_its_daemon_and_the_next_one_hears_of_it(daemon):
    daemon.start_worker()
    started = wait_for_go(daemon)

    daemon.go_away()
    connection = daemon.come_back()

    assert connection.hello.state == Running(daemon.tokens, started.pid, started.pid_start)
    daemon.say("go")
    assert daemon.end().exit_code == 3
    assert daemon.run("exit 4").exit_code == 4


def test_an_outcome_without_a_daemon_is_on_disk_and_held(daemon):
    daemon.start_worker()
    wait_for_go(daemon)
    daemon.go_away()

    daemon.say("go")

    until(daemon.outcome_file.exists)
    stored = decode_from_worker(daemon.outcome_file.read_bytes())
    assert isinstance(stored, Ended)
    assert (stored.token, stored.outcome.exit_code) == (daemon.tokens, 3)
    connection = daemon.come_back()
    assert connection.hello.state == Holding(daemon.tokens, stored.outcome)
    assert daemon.outcome_file.exists()
    connection.send(Recorded(daemon.tokens))
    assert daemon.run("exit 4").exit_code == 4


def test_an_outcome_that_nobody_confirmed_is_stored(daemon):
    daemon.start_worker()
    wait_for_go(daemon)
    daemon.say("go")
    ended = daemon.connection.next(Ended)

    daemon.go_away()

    until(daemon.outcome_file.exists)
    assert decode_from_worker(daemon.outcome_file.read_bytes()) == ended


def test_what_the_daemon_said_before_it_died_is_obeyed(daemon):
    daemon.start_worker()
    os.kill(daemon.workers[0].pid, signal.SIGSTOP)
    spec = daemon.spec("/bin/sh", "-c", "echo ran")
    daemon.connection.send(Run(daemon.tokens, spec))
    daemon.go_away()

    os.kill(daemon.workers[0].pid, signal.SIGCONT)

    until(daemon.outcome_file.exists)
    assert daemon.file(".log").read_text() == "ran\n"


def test_a_stop_that_was_the_last_word_is_obeyed(daemon):
    daemon.start_worker()
    daemon.shell("sleep 1000")
    os.kill(daemon.workers[0].pid, signal.SIGSTOP)
    daemon.connection.send(Stop(token=daemon.tokens, reason=Reason.CANCELLED))
    daemon.go_away()

    os.kill(daemon.workers[0].pid, signal.SIGCONT)

    until(daemon.outcome_file.exists)
    assert decode_from_worker(daemon.outcome_file.read_bytes()).outcome.reason is Reason.CANCELLED


def test_a_stale_command_is_ended_and_not_reported(daemon):
    daemon.start_worker()
    started = daemon.shell("trap '' TERM; echo ready; while :; do sleep 1000; done")
    until(daemon.file(".log").exists)

    daemon.connection.send(Stale(daemon.tokens))

    until(lambda: not alive(started.pid))
    # The next message is of the next attempt: nothing was said of this one's end.
    assert daemon.connection.next(Beat) == Beat(None)
    assert daemon.run("exit 4").exit_code == 4


def test_a_stale_outcome_is_dropped(daemon):
    daemon.start_worker()
    daemon.shell("true")
    daemon.connection.next(Ended)

    daemon.connection.send(Stale(daemon.tokens))

    assert daemon.run("exit 4").exit_code == 4


def test_an_orphan_ends(daemon):
    daemon.start_worker(orphan_timeout=0.2)

    daemon.go_away()

    assert daemon.workers[0].wait(PATIENCE) == 0


def test_an_orphan_with_a_command_stays(daemon):
    daemon.start_worker(orphan_timeout=0.1)
    wait_for_go(daemon)
    daemon.go_away()
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.workers[0].wait(0.3)

    daemon.say("go")

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert daemon.outcome_file.exists()


def test_a_worker_without_any_daemon_ends(daemon):
    daemon.listener.close()

    assert daemon.spawn_worker(orphan_timeout=0.1).wait(PATIENCE) == 0


def test_a_daemon_that_comes_late_is_found(daemon):
    daemon.listener.close()
    daemon.spawn_worker()

    daemon.listen()

    assert daemon.welcome().hello.state == Idle()


def test_sigterm_without_a_daemon_stores_and_ends(daemon):
    daemon.start_worker()
    wait_for_go(daemon)
    daemon.go_away()
    daemon.workers[0].terminate()

    daemon.say("go")

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert decode_from_worker(daemon.outcome_file.read_bytes()).outcome.exit_code == 3


def test_a_run_that_meets_a_worker_that_ends_is_neither_run_nor_lost(daemon):
    daemon.start_worker()
    wait_for_go(daemon)
    daemon.workers[0].terminate()
    daemon.say("go")
    daemon.connection.next(Ended)
    token = daemon.tokens
    spec = daemon.spec("/bin/sh", "-c", "echo ran")

    daemon.connection.send(Recorded(token, Run(daemon.tokens, spec)))

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert decode_from_worker(daemon.outcome_file.read_bytes()).outcome.reason is Reason.INTERRUPTED
    assert not daemon.file(".log").exists()


def test_an_outcome_waits_for_room_on_the_disk(daemon):
    daemon.start_worker(orphan_timeout=0.1)
    # Where the directory should be made there is a file.
    (daemon.state / "outcomes").write_text("")
    wait_for_go(daemon)
    daemon.go_away()
    daemon.workers[0].terminate()
    daemon.say("go")
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.workers[0].wait(0.3)

    (daemon.state / "outcomes").unlink()

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert decode_from_worker(daemon.outcome_file.read_bytes()).outcome.exit_code == 3


@pytest.mark.skipif(not shutil.which("strace"), reason="strace sees the order")
def test_an_outcome_is_synced_before_it_gets_its_name(daemon, tmp_path):
    trace = tmp_path / "trace"
    daemon.start_worker()
    wait_for_go(daemon)
    command = ["strace", "-q", "-y", "-o", str(trace), "-e", "trace=fsync,rename", "-p", str(daemon.workers[0].pid)]
    strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: f"TracerPid:\t{strace.pid}" in daemon.status())
        daemon.go_away()
        daemon.say("go")
        until(lambda: trace.read_text().count("= 0") == 3)
    finally:
        strace.terminate()
        strace.wait()

    calls = [line.partition("(")[0] for line in trace.read_text().splitlines() if "= 0" in line]
    assert calls == ["fsync", "rename", "fsync"]
    assert list((tmp_path / "outcomes").iterdir()) == [daemon.outcome_file]


def test_another_store_ends_the_worker_and_its_command(daemon):
    daemon.start_worker()
    started = wait_for_go(daemon)
    daemon.go_away()
    daemon.listen()
    connection = daemon.accept()

    connection.send(Welcome(protocol=CHANNEL_VERSION, store="another"))

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert not alive(started.pid)
    assert not daemon.outcome_file.exists()


def test_a_daemon_of_another_version_finds_a_file(daemon):
    daemon.start_worker()
    started = wait_for_go(daemon)
    daemon.go_away()
    daemon.listen()
    connection = daemon.accept()
    connection.send(Welcome(protocol=CHANNEL_VERSION + 1, store=STORE))
    assert connection.hung_up()
    assert alive(started.pid)

    daemon.say("go")

    assert daemon.workers[0].wait(PATIENCE) == 0
    assert decode_from_worker(daemon.outcome_file.read_bytes()).outcome.exit_code == 3


def test_a_message_that_is_not_understood_is_passed_over(daemon):
    daemon.spawn_worker(stderr=subprocess.PIPE)
    daemon.welcome()

    daemon.connection.socket.sendall(b'{"msg":"dance"}\nnot json\n')

    assert daemon.run("exit 4").exit_code == 4
    daemon.connection.send(Exit())
    assert b"not understood" in daemon.workers[0].communicate(timeout=PATIENCE)[1]


def test_a_worker_whose_queue_could_not_be_replaced_is_as_it_was(daemon, monkeypatch):
    daemon.start_worker()
    worker = daemon.workers[0].pid

    def give_up(*_):
        until(lambda: procfs.stat(worker).state == "T", "it stands still")
        raise StoreError("something does not die")

    monkeypatch.setattr(ending, "_end_others", give_up)

    with pytest.raises(StoreError):
        ending.end_all(daemon.state, [STORE])

    until(lambda: procfs.stat(worker).state == "S", "it goes on")
