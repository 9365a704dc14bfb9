"""`run` and `wait` end as the job did, so that a script can stand a queue between itself and a command."""

from __future__ import annotations

import signal

import pytest

from tests.system.livedaemon import CLI
from tests.system.processes import alive
from tests.system.waiting import wait_for


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_run_ends_with_the_code_of_the_command(daemon, code: int) -> None:
    done = daemon.cli("run", "--", "sh", "-c", f"exit {code}")

    assert done.code == code, done


def test_run_shows_what_the_command_says_on_the_streams_it_said_it_on(daemon) -> None:
    done = daemon.cli("run", "echo out; echo err >&2")

    assert (done.code, done.out, done.err) == (0, "out\n", "err\n")


def test_run_passes_bytes_on_as_they_are(daemon) -> None:
    done = daemon.run([*CLI, "run", r"printf '\377\000\303\050\n'"])

    assert done.stdout == b"\xff\x00\xc3(\n"


def test_run_of_a_command_that_dies_by_a_signal_ends_with_128_and_its_number(daemon) -> None:
    done = daemon.cli("run", "kill -USR1 $$")

    assert done.code == 128 + signal.SIGUSR1, done


def test_run_of_a_command_that_takes_too_long_ends_with_124(daemon) -> None:
    done = daemon.cli("run", "--timeout", "0.2", "--kill-after", "1", "sleep 100")

    assert done.code == 124, done


def test_run_of_a_missing_program_ends_with_127(daemon) -> None:
    assert daemon.cli("run", "no-such-program-anywhere").code == 127
    assert daemon.cli("run", "--", "/no/such/program").code == 127


def test_run_does_not_retry_unless_it_is_asked_to(daemon) -> None:
    once = daemon.cli("run", "echo try $QUEUECTL_ATTEMPT; exit 5")
    twice = daemon.cli("run", "--max-retries", "1", "--backoff-base", "0.1", "echo try $QUEUECTL_ATTEMPT; exit 5")

    assert (once.code, once.out) == (5, "try 1\n")
    assert (twice.code, twice.out) == (5, "try 1\ntry 2\n")


def test_standard_input_of_a_job_is_empty_unless_given_so_that_cat_ends_at_once(daemon) -> None:
    done = daemon.cli("run", "--", "cat", stdin=None, deadline=20)

    assert (done.code, done.out) == (0, "")


def test_wait_ends_with_the_code_of_its_job(daemon) -> None:
    daemon.cli("enqueue", "--id", "seven", "--max-retries", "0", "exit 7")
    daemon.cli("enqueue", "--id", "zero", "true")

    assert daemon.cli("wait", "seven").code == 7
    assert daemon.cli("wait", "zero").code == 0


def test_wait_for_several_says_whether_all_succeeded(daemon) -> None:
    daemon.cli("enqueue", "--id", "good", "true")
    daemon.cli("enqueue", "--id", "fine", "true")
    daemon.cli("enqueue", "--id", "bad", "--max-retries", "0", "exit 7")

    assert daemon.cli("wait", "good", "fine").code == 0
    assert daemon.cli("wait", "good", "bad").code == 1


def test_wait_that_runs_out_of_time_ends_with_75_and_the_job_goes_on(daemon, gate) -> None:
    daemon.cli("enqueue", "--id", "long", gate.wait())

    waited = daemon.cli("wait", "--wait-for", "0.2", "long")
    gate.open()

    assert waited.code == 75, waited
    daemon.wait_for_state("long", "completed")


def test_run_that_runs_out_of_time_ends_with_75_and_names_the_job(daemon, gate) -> None:
    ran = daemon.cli("run", "--wait-for", "0.2", "--id", "long", gate.wait())
    gate.open()

    assert ran.code == 75, ran
    assert "long" in ran.err
    daemon.wait_for_state("long", "completed")


def test_the_end_of_a_job_that_failed_in_front_of_its_user_is_no_dead_letter_to_be_read(daemon) -> None:
    daemon.cli("run", "--id", "seen", "exit 7")

    assert daemon.state_of("seen") == "dead"
    assert daemon.cli("dlq", "list", "--json").out.strip() == "[]"


def test_an_interrupt_is_passed_on_and_a_second_one_cancels(daemon) -> None:
    run = daemon.spawn_cli(
        "run", "--id", "stubborn", "--kill-after", "0.2", "trap 'echo caught' INT; while :; do sleep 0.1; done"
    )
    daemon.wait_for_state("stubborn", "processing")
    wait_for(lambda: daemon.history("stubborn")[0]["pid"], "the command has started")

    run.send_signal(signal.SIGINT)
    wait_for(lambda: b"caught" in daemon.output("stubborn"), "the signal has come through")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)

    assert daemon.wait_for_state("stubborn", "cancelled")["reason"] == "cancelled"
    assert run.returncode in {128 + signal.SIGTERM, 128 + signal.SIGKILL}, (out, err)


def test_a_run_that_loses_its_terminal_leaves_the_job_running(daemon, gate) -> None:
    run = daemon.spawn_cli("run", "--id", "goes-on", gate.wait())
    daemon.wait_for_state("goes-on", "processing")

    run.send_signal(signal.SIGHUP)
    run.communicate(timeout=30)

    assert daemon.state_of("goes-on") == "processing"
    gate.open()
    daemon.wait_for_state("goes-on", "completed")


def test_a_run_outlives_the_daemon_and_still_tells_how_the_job_ended(daemon, gate) -> None:
    run = daemon.spawn_cli("run", "--id", "bridge", f"echo before; {gate.wait()}; echo after; exit 7")
    daemon.wait_for_state("bridge", "processing")

    daemon.again()
    gate.open()
    out, err = run.communicate(timeout=30)

    assert run.returncode == 7, err
    assert out == b"before\nafter\n"


def test_cancel_of_a_running_job_answers_when_its_last_process_is_gone(daemon) -> None:
    place = daemon.home / "pid"
    daemon.cli("enqueue", "--id", "long", f"sleep 1000 & echo $! >{place}; wait")
    pid = int(wait_for(lambda: place.exists() and place.read_text().strip(), "the command has started"))

    done = daemon.cli("cancel", "long")

    assert done.code == 0, done
    assert not alive(pid)
    assert daemon.state_of("long") == "cancelled"
