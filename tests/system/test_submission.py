"""A job that runs by hand runs in the queue: same environment, same directory, same umask, nothing on its input."""

from __future__ import annotations

import pytest

from tests.system.livedaemon import LiveDaemon


def test_a_job_sees_the_environment_it_was_submitted_from(daemon: LiveDaemon) -> None:
    done = daemon.cli("run", 'echo "$FLAVOUR"', env={"FLAVOUR": "sweet\nand sour"})

    assert done.out == "sweet\nand sour\n"


@pytest.mark.parametrize(("given", "seen"), [("LANG=", "none"), ("LC_CTYPE=C", "C"), ("LC_CTYPE=C.UTF-8", "C.UTF-8")])
def test_what_python_makes_of_the_locale_is_not_taken_for_the_submitters(
    daemon: LiveDaemon, given: str, seen: str
) -> None:
    done = daemon.run(["env", "-u", "LANG", given, "queuectl", "run", "echo ${LC_CTYPE-none}"])

    assert done.stdout.decode() == f"{seen}\n"


def test_a_job_sees_the_directory_it_was_submitted_from(daemon: LiveDaemon) -> None:
    place = daemon.home / "some where"
    place.mkdir()

    done = daemon.cli("run", "pwd", cwd=place)

    assert done.out == f"{place}\n"


def test_a_job_has_the_umask_it_was_submitted_with(daemon: LiveDaemon) -> None:
    done = daemon.run(["sh", "-c", "umask 027; exec queuectl run umask"])

    assert done.stdout == b"0027\n"


def test_variables_of_terminals_and_service_managers_stay_behind(daemon: LiveDaemon) -> None:
    theirs = {"TERM": "xterm", "DISPLAY": ":0", "NOTIFY_SOCKET": "/run/x", "INVOCATION_ID": "f00", "SSH_TTY": "/dev/x"}

    done = daemon.cli("run", "env", env=theirs)

    assert {line.partition("=")[0] for line in done.out.splitlines()}.isdisjoint(theirs)


def test_a_clean_environment_has_none_of_the_submitters_variables(daemon: LiveDaemon) -> None:
    done = daemon.cli("run", "--clean-env", "--env", "ADDED=1", "env", env={"FLAVOUR": "sweet"})

    names = {line.partition("=")[0] for line in done.out.splitlines()}
    assert "FLAVOUR" not in names
    assert {"PATH", "HOME", "USER", "ADDED"} <= names


def test_a_job_knows_who_and_what_it_is(daemon: LiveDaemon) -> None:
    done = daemon.cli("run", "--id", "me", "env | grep ^QUEUECTL_ | cut -d= -f1 | sort; echo $QUEUECTL_JOB_ID")

    assert {
        "QUEUECTL_ATTEMPT",
        "QUEUECTL_ATTEMPT_TOKEN",
        "QUEUECTL_JOB_ID",
        "QUEUECTL_QUEUE",
        "QUEUECTL_WORKER",
    } <= set(done.out.split())
    assert done.out.endswith("\nme\n")


def test_input_given_at_submission_is_what_the_command_reads(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("cat; echo over", id="reader", stdin="one\ntwo\n")
        daemon.wait_for_state("reader", "completed")

        assert wire.output("reader") == b"one\ntwo\nover\n"


def test_a_script_with_its_own_first_line_is_run_by_what_that_names(daemon: LiveDaemon) -> None:
    done = daemon.cli("enqueue", "--id", "script", "--script", "-", stdin="#!/bin/sh\necho $0 | grep -c /\necho said\n")

    assert done.code == 0, done
    daemon.wait_for_state("script", "completed")
    assert daemon.output("script").endswith(b"said\n")


def test_a_job_given_as_words_is_run_without_a_shell(daemon: LiveDaemon) -> None:
    done = daemon.cli("run", "--", "printf", "%s|", "$HOME", "a b", "*")

    assert done.out == "$HOME|a b|*|"


def test_output_that_is_not_utf_8_comes_back_byte_for_byte(daemon: LiveDaemon) -> None:
    everything = bytes(range(256)) * 40
    (daemon.home / "bytes").write_bytes(everything)
    with daemon.wire() as wire:
        wire.enqueue("cat bytes", id="bytes", cwd=str(daemon.home))
        daemon.wait_for_state("bytes", "completed")

        assert wire.output("bytes") == everything
    assert daemon.run(["queuectl", "logs", "bytes"]).stdout == everything


def test_output_over_its_limit_keeps_the_first_and_the_last_and_says_what_is_missing(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("seq 1 100000", id="loud", limits={"output": 2000})
        daemon.wait_for_state("loud", "completed")
        events = list(wire.stream("logs", jobs=["loud"]))
        output = wire.output("loud")
        attempt = wire.history("loud")[0]

    whole = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert output == whole[:1000] + whole[-1000:]
    assert sum(event.get("missing", 0) for event in events) == len(whole) - 2000 == attempt["output_missing"]


def test_output_is_followed_while_it_is_written(daemon: LiveDaemon, gate) -> None:
    with daemon.wire() as wire:
        wire.enqueue(f"echo before; {gate.wait()}; echo after", id="slow")
        events = wire.stream("logs", jobs=["slow"], follow=True)

        first = next(events)
        gate.open()
        rest = "".join(event["data"] for event in events)

    assert (first["data"], rest) == ("before\n", "after\n")


def test_a_job_uses_time_and_memory_that_are_measured(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done", id="busy")
        daemon.wait_for_state("busy", "completed")

        [attempt] = wire.history("busy")

    assert 0.01 < attempt["cpu_seconds"] < 60
    assert 100_000 < attempt["peak_memory"] < 100_000_000
