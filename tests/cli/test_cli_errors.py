"""What goes wrong, how it is said, and with which exit code the command ends."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from queuectl_cli.main import main
from queuectl_cli.outcome import exit_code
from tests.cli.scripted import HANG_UP, FakeDaemon, finished, job, output
from tests.system.waiting import wait_for


def refuse(code, message="no", **more):
    return {"error": {"code": code, "message": message, **more}}


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ambiguous_id", 2),
        ("bad_config", 78),
        ("bad_request", 2),
        ("disk_full", 75),
        ("draining", 75),
        ("too_many_clients", 75),
        ("duplicate_id", 4),
        ("duplicate_key", 4),
        ("forbidden", 77),
        ("internal", 1),
        ("no_such_job", 3),
        ("no_such_queue", 3),
        ("no_such_key", 3),
        ("unauthenticated", 77),
        ("unknown_op", 76),
        ("unsupported", 2),
        ("wrong_state", 4),
    ],
)
def test_each_code_of_the_daemon_has_its_exit_code(code, status, daemon, call):
    daemon.answers["retry"] = refuse(code, "the reason")

    called = call("retry", "job1")

    assert called.status == status
    assert called.err.startswith("Error: the reason\n")


FAMILY = ("run", "wait", "logs --exit-status")


@pytest.mark.parametrize("line", ["wait nope", "logs nope --exit-status", "run true", "run --nonsense true", "wait"])
def test_everything_of_ours_is_125_where_a_jobs_own_code_is_returned(line, daemon, call):
    for op in ("get", "logs", "wait", "count", "enqueue"):
        daemon.answers[op] = refuse("no_such_job", "there is no job 'nope'")

    assert call(*line.split()).status == 125


@pytest.mark.parametrize(
    "line", ["show nope", "logs nope", "cancel nope", "retry nope", "dlq show nope", "dlq retry nope"]
)
def test_an_unknown_job_is_exit_3(line, daemon, call):
    for op in ("get", "logs"):
        daemon.answers[op] = refuse("no_such_job", "there is no job 'nope'")
    for op in ("cancel", "retry"):
        refused = [{"index": 0, "code": "no_such_job", "message": "there is no job 'nope'"}]
        daemon.answers[op] = {"ok": {"jobs": [], "count": 0, "refused": refused, "pending": []}}

    called = call(*line.split())

    assert called.status == 3
    assert "Error: there is no job 'nope'" in called.err


def test_a_part_that_is_refused_is_exit_1_and_named(daemon, call):
    refused = [{"index": 1, "code": "no_such_job", "message": "there is no job 'b'"}]
    daemon.answers["retry"] = {"ok": {"jobs": ["a"], "count": 1, "refused": refused, "pending": []}}

    called = call("retry", "a", "b")

    assert (called.status, called.out) == (1, "a\n")
    assert "b: there is no job 'b'" in called.err


def test_a_duplicate_id_names_a_way_out(daemon, call):
    daemon.answers["enqueue"] = refuse("duplicate_id", "there is a job 'job1' already")

    called = call("enqueue", "--id", "job1", "true")

    assert called.status == 4
    assert "queuectl show job1" in called.err


def test_dlq_retry_of_a_job_that_is_not_dead_is_exit_4(daemon, call):
    daemon.answers["get"] = {"ok": {"job": job(state="processing")}}

    called = call("dlq", "retry", "job1")

    assert called.status == 4
    assert "is processing, not dead" in called.err


# No daemon.


@pytest.mark.parametrize(
    "line", ["list", "show a", "status", "ping", "worker", "dlq", "config get", "events", "cancel a"]
)
def test_without_a_daemon_reading_commands_say_how_to_start_it(line, call):
    called = call(*line.split())

    assert called.status == 69
    assert "there is no such socket" in called.err
    assert "queuectl daemon start" in called.err


@contextlib.contextmanager
def as_somebody_else():
    """Give up for a while what lets root connect to anything."""
    me = os.geteuid()
    # Imported late by the client, and perhaps from where somebody else may not read.
    importlib.import_module("grp")
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


def test_a_stale_socket_is_told_apart(call, tmp_path):
    (tmp_path / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "state" / "queuectl.sock"))

    called = call("ping")

    assert called.status == 69
    assert "nothing listens there" in called.err
    assert "probably killed" in called.err


def test_a_socket_of_others_is_told_apart(daemon, call):
    # Whatever is imported late is read as the user that we are now.
    assert call("ping").status == 0
    Path(daemon.path).chmod(0)

    with as_somebody_else():
        called = call("ping")

    assert called.status == 69
    assert "permission denied" in called.err
    assert "for its owner" in called.err


def test_another_protocol_is_exit_76(daemon, call):
    daemon.greeting |= {"protocol": [9], "queuectld": "9.0"}

    called = call("ping")

    assert called.status == 76
    assert "queuectld 9.0 speaks protocol [9]" in called.err


def test_something_else_that_answers_is_exit_76(daemon, call):
    daemon.greeting = {"hello": "I am a web server"}

    assert call("ping").status == 76


def test_a_daemon_that_does_not_answer_is_told_apart(tmp_path, call, monkeypatch):
    monkeypatch.setattr("queuectl_cli.client.GREETING_PATIENCE", 0.05)
    (tmp_path / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "state" / "queuectl.sock"))
        silent.listen()

        called = call("ping")

    assert called.status == 69
    assert "did not answer within 0.05 s" in called.err


def test_a_daemon_that_dies_in_the_middle_is_exit_69(daemon, call):
    daemon.answers["status"] = [HANG_UP]

    called = call("status")

    assert called.status == 69
    assert "lost the connection" in called.err


def test_a_path_longer_than_the_kernel_takes_works(tmp_path, monkeypatch, call):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    short = tmp_path / "s"
    fake = FakeDaemon(str(short))
    (deep / "queuectl.sock").symlink_to(short)
    monkeypatch.setenv("QUEUECTL_STATE_DIR", str(deep))

    called = call("ping")

    fake.close()
    assert called.status == 0


@pytest.mark.parametrize("url", ["ssh://", "http://x", "tcp://nowhere", "/path"])
def test_addresses_that_are_none_are_usage_errors(url, call):
    called = call("-H", url, "ping")

    assert called.status == 2
    assert url in called.err


# Forms of errors.


def test_in_json_an_error_is_one_object_on_stderr(daemon, call):
    daemon.answers["get"] = refuse("no_such_job", "there is no job 'x'")

    called = call("show", "x", "--json")

    assert called.out == ""
    assert json.loads(called.err)["error"] | {"hints": 0} == {
        "code": "no_such_job",
        "message": "there is no job 'x'",
        "hints": 0,
        "exit_code": 3,
    }


def test_in_json_a_usage_error_is_one_object_too(call):
    called = call("list", "--json", "--nonsense")

    assert called.status == 2
    assert json.loads(called.err)["error"]["code"] == "usage"


@pytest.mark.parametrize(
    ("line", "meant"),
    [("enqueu x", "enqueue"), ("worker stp", "stop"), ("list --stat dead", "--state"), ("dlq rety a", "retry")],
)
def test_a_typo_names_what_was_meant(line, meant, call):
    called = call(*line.split())

    assert called.status == 2
    assert meant in called.err


def test_abbreviations_are_not_taken(daemon, call):
    assert call("stat").status == 2
    assert call("list", "--rev").status == 2


def test_an_unknown_option_before_the_command_is_not_taken_for_the_command(daemon, call):
    called = call("enqueue", "--qeue", "x", "echo", "hi")

    assert called.status == 2
    assert "--queue" in called.err
    assert not daemon.of("enqueue")


def test_a_fault_of_ours_is_one_line_without_a_traceback(daemon, call, monkeypatch):
    monkeypatch.setattr("queuectl_cli.commands.status.Output", None)

    called = call("ping")

    assert called.status == 1
    assert called.err.count("\n") == 1
    assert "this is a fault of queuectl" in called.err


def test_ctrl_c_is_130(daemon, call, monkeypatch):
    def interrupt(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("queuectl_cli.client.Client.request", interrupt)

    assert call("ping").status == 130


def test_a_reader_that_goes_away_is_no_error(daemon):
    daemon.answers["list"] = {"ok": {"jobs": [job(f"job{number}") for number in range(5000)], "next": None}}
    command = f"{sys.executable} -m queuectl_cli.main list; echo status $? >&2"

    ended = subprocess.run(["bash", "-c", f"({command}) | head -1"], capture_output=True, text=True, check=True)

    assert ended.stderr == "status 0\n"


# Bulk changes.


@pytest.mark.parametrize("line", ["cancel", "retry", "dlq discard", "dlq retry"])
def test_a_bulk_change_needs_to_say_which(line, daemon, call):
    called = call(*line.split())

    assert called.status == 2
    assert "--all" in called.err


@pytest.mark.parametrize("line", ["cancel --all", "retry --failed", "dlq discard --queue q"])
def test_a_bulk_change_needs_a_yes_where_nobody_can_be_asked(line, daemon, call):
    called = call(*line.split())

    assert called.status == 2
    assert "2 jobs; confirm with -y" in called.err
    assert all(request["dry_run"] for request in daemon.requests)


# How a job ended, as an exit code.


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 0),
        ({"state": "dead", "exit_code": 7}, 7),
        ({"state": "completed", "exit_code": 3}, 3),
        ({"state": "dead", "exit_code": None, "signal": 9, "reason": "signalled"}, 137),
        ({"state": "dead", "exit_code": None, "signal": 15, "reason": "timeout"}, 124),
        ({"state": "dead", "exit_code": 0, "reason": "silent"}, 124),
        ({"state": "dead", "exit_code": None, "signal": 9, "reason": "out_of_memory"}, 137),
        ({"state": "dead", "exit_code": 0, "reason": "cpu_limit"}, 143),
        ({"state": "dead", "exit_code": 3, "reason": "output_limit"}, 3),
        ({"state": "dead", "exit_code": 127, "reason": "not_started"}, 127),
        ({"state": "dead", "exit_code": None, "reason": "lost"}, 125),
        ({"state": "dead", "exit_code": None, "signal": 9, "reason": "interrupted"}, 125),
        ({"state": "cancelled", "exit_code": None, "signal": 15, "reason": "cancelled"}, 143),
        ({"state": "cancelled", "exit_code": 0, "reason": "cancelled"}, 143),
        ({"state": "cancelled", "exit_code": None, "reason": "cancelled", "ran": False}, 125),
    ],
)
def test_run_and_wait_exit_as_the_job_did(fields, status, daemon, call):
    ended = finished(**fields)
    daemon.answers["logs"] = {"ok": {"jobs": [ended], "stopped": False}}
    daemon.answers["wait"] = {"ok": {"jobs": [ended], "stopped": False}}

    assert exit_code(ended) == status
    assert call("run", "true").status == status
    assert call("wait", "job1").status == status
    assert call("logs", "job1", "--exit-status").status == status


def test_wait_of_several_is_0_only_if_all_succeeded(daemon, call):
    daemon.answers["wait"] = {
        "ok": {"jobs": [finished(), finished("job2", state="dead", exit_code=7)], "stopped": False}
    }

    called = call("wait", "job1", "job2")

    assert called.status == 1
    assert "2 jobs: 1 completed, 1 dead" in called.err


@pytest.mark.parametrize("line", ["run --wait-for 10ms -- sleep 9", "wait job1 --wait-for 10ms"])
def test_patience_that_runs_out_is_75(line, daemon, call):
    daemon.answers["logs"] = daemon.answers["wait"] = []

    called = call(*line.split())

    assert called.status == 75
    assert called.out == ""


def test_run_names_the_job_that_goes_on(daemon, call):
    daemon.answers["logs"] = []

    called = call("run", "--id", "mine", "--wait-for", "10ms", "--", "sleep", "9")

    assert "job mine goes on" in called.err


# Output of jobs.


def test_output_comes_as_the_bytes_that_it_was(daemon, capfdbinary):
    pieces = [output("ä\n"), output(b64="/wD+", offset=3), output("oops\n", stream="stderr", offset=6)]
    daemon.answers["logs"] = [*({"event": piece} for piece in pieces), {"ok": {"jobs": [finished()], "stopped": False}}]

    assert main(["logs", "job1"]) == 0

    captured = capfdbinary.readouterr()
    assert captured.out == "ä\n".encode() + b"\xff\x00\xfe"
    assert captured.err == b"oops\n"


def test_several_jobs_get_a_prefix_on_whole_lines(daemon, call):
    pieces = [output("a1 "), output("b1\n", job="job20"), output("a2\nrest")]
    daemon.answers["logs"] = [
        *({"event": piece} for piece in pieces),
        {"ok": {"jobs": [finished(), finished("job20")], "stopped": False}},
    ]

    assert call("logs", "job1", "job20").out == "job20 | b1\njob1  | a1 a2\njob1  | rest\n"


def test_run_goes_on_from_where_it_was_after_a_restart_of_the_daemon(daemon, call):
    answers = iter(
        [
            [{"event": output("one\n")}, {"event": output("two\n", offset=4)}, HANG_UP],
            [{"event": output("three\n", offset=8)}, {"ok": {"jobs": [finished()], "stopped": False}}],
        ]
    )
    daemon.answers["logs"] = lambda _request: next(answers)

    called = call("run", "true")

    assert (called.status, called.out) == (0, "one\ntwo\nthree\n")
    first, second = daemon.of("logs")
    assert first["attempt"] == "all"
    assert second["places"] == [{"job": "job1", "attempt": 1, "offset": 8}]


def test_run_does_not_retry_unless_asked_and_lends_its_worker(daemon, call, monkeypatch):
    monkeypatch.setenv("QUEUECTL_ATTEMPT_TOKEN", "9f1c/7")

    call("run", "true")
    call("run", "--max-retries", "2", "--rerun", "always", "true")

    first, second = (request["jobs"][0] for request in daemon.of("enqueue"))
    assert (first["max_retries"], first["rerun"]) == (0, "never")
    assert (second["max_retries"], second["rerun"]) == (2, "always")
    assert daemon.of("logs")[0]["lend"] == "9f1c/7"


def test_a_failure_that_run_has_shown_counts_as_seen(daemon, call):
    daemon.answers["logs"] = {"ok": {"jobs": [finished(state="dead", exit_code=7)], "stopped": False}}

    assert call("run", "false").status == 7

    assert daemon.of("wait")[0]["mark_seen"] is True


def test_signals_go_to_the_command_and_the_second_interrupt_cancels(daemon, tmp_path):
    follows = {}

    def logs(request):
        follows["id"] = request["id"]
        return [{"event": output("ready\n")}]

    def cancelled(request):
        ended = finished(state="cancelled", reason="cancelled", exit_code=None, signal=15)
        return [
            {"ok": {"jobs": ["job1"], "count": 1}},
            {"id": follows["id"], "ok": {"jobs": [ended], "stopped": False}},
        ]

    daemon.answers["logs"] = logs
    daemon.answers["cancel"] = cancelled
    process = subprocess.Popen([sys.executable, "-m", "queuectl_cli.main", "run", "sleep 9"], stdout=subprocess.PIPE)

    assert process.stdout.readline() == b"ready\n"
    process.send_signal(2)
    wait_for(lambda: daemon.of("signal"))
    process.send_signal(2)

    assert process.wait(10) == 143
    process.stdout.close()
    assert daemon.of("signal")[0]["number"] == 2
    assert daemon.of("cancel")[0]["select"]["ids"] == [daemon.of("signal")[0]["job"]]


# Starting a daemon.


def test_inside_a_job_no_daemon_is_started(call, monkeypatch):
    monkeypatch.delenv("QUEUECTL_AUTOSTART")
    monkeypatch.setenv("QUEUECTL_JOB_ID", "job1")

    called = call("enqueue", "true")

    assert called.status == 69
    assert "from inside a job" in called.err


def test_with_an_address_no_daemon_is_started(call, monkeypatch, tmp_path):
    monkeypatch.delenv("QUEUECTL_AUTOSTART")

    called = call("-H", f"unix://{tmp_path}/none.sock", "enqueue", "true")

    assert called.status == 69
    assert not (tmp_path / "state").exists()


def test_the_daemon_of_the_system_is_not_started(call, monkeypatch):
    monkeypatch.delenv("QUEUECTL_AUTOSTART")

    called = call("--system", "enqueue", "true")

    assert called.status == 69
    assert "of the system is not started by itself" in called.err


@pytest.mark.parametrize(("daemon_says", "status"), [("exit 78", 78), ("exit 1", 69)])
def test_a_daemon_that_cannot_start_is_quoted(daemon_says, status, call, monkeypatch, tmp_path):
    monkeypatch.delenv("QUEUECTL_AUTOSTART")
    program = tmp_path / "queuectld"
    program.write_text(f"#!/bin/sh\necho 'the key is wrong' >&2\n{daemon_says}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "queuectl")])

    called = call("enqueue", "true")

    assert called.status == status
    assert "the key is wrong" in called.err
