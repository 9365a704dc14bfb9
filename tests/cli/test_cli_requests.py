"""Every command, and every request that it can make: the fake daemon of `conftest` checks each by the real classes."""

from __future__ import annotations

import base64
import shlex

import msgspec
import pytest

from queuectl_cli.commands.help import topics
from queuectl_cli.main import TABLE, make_cli
from queuectld.domain.spec import JobSpec, Limits, decode_spec
from queuectld.protocol.words import OPERATIONS

COMMAND_LINES = [
    # The lines of the original example, word for word.
    """enqueue '{"id":"job1","command":"echo hello"}'""",
    "list",
    "worker --count 1",
    "dlq",
    "worker start --count 3",
    "worker stop",
    "status",
    "list --state pending",
    "list --state pending --json",
    "dlq list",
    "dlq retry job1",
    "config set max-retries 3",
    "config get",
    # All others.
    "enqueue 'echo hello && exit 3'",
    "enqueue -- echo a b",
    "enqueue echo a b",
    "add 'echo hello'",
    "enqueue --dry-run true",
    """enqueue '[{"command":"a"},{"command":"b"}]'""",
    "run true",
    "run --wait-for 1m -- true",
    "run -d true",
    "run --max-retries 2 true",
    "ls --queue a,b --state dead,failed --tag k=v --owner ann --since 1h --until now --ended-since 22:00",
    "list --command '*x*' --exit-code 3 --limit 5 --reverse",
    "list job1 @last --sort priority",
    "list --failed --count",
    "ps",
    "show job1 @last --with-env -n 3",
    "logs",
    "logs job1 -f -n 10 --since 10m --attempt 2 --stdout",
    "logs job1 job2 --attempt all --stderr",
    "logs job1 --exit-status",
    "logs --path job1",
    "tail job1 -n 5",
    "wait job1 --wait-for 5m",
    "wait --queue q --any --fail-fast",
    "wait job1 --for completed",
    "wait --all",
    "cancel job1 --reason 'not needed' --kill-after 2s --no-wait",
    "cancel --all -y",
    "cancel --queue q -n",
    "retry job1 job2 --in 5m",
    "retry --failed --limit 10 --spread 30m -y",
    "undelete job1",
    "undelete -n job1",
    "dlq list --seen --limit 3 --queue q",
    "dlq show job1",
    "dlq retry --all -y --spread 1h",
    "dlq retry --queue q -n",
    "dlq discard job1",
    "dlq discard --all -y",
    "worker",
    "worker list",
    "worker start",
    "worker --count 2 --follow",
    "worker stop --now",
    "events",
    "events --from 3 --limit 5 --job job1",
    "events --follow",
    "config list --show-origin",
    "config get max-retries timeout",
    "config unset max-retries",
    "ping",
    "version",
    "daemon stop",
    "daemon stop --leave",
    "daemon start",
    "daemon reexec",
    "daemon reload",
    "doctor",
]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_line_is_understood_on_both_sides(line, daemon, call):
    called = call(*shlex.split(line))

    assert (called.status, called.err.splitlines()[:1] if called.status else []) == (0, [])
    assert daemon.requests


@pytest.mark.parametrize("form", ["table", "wide", "json", "jsonl", "name"])
@pytest.mark.parametrize("line", COMMAND_LINES)
def test_each_command_has_every_form_of_output(line, form, daemon, call, monkeypatch):
    monkeypatch.setenv("QUEUECTL_OUTPUT", form)

    called = call(*shlex.split(line))

    assert called.status == 0
    if form == "json" and "--follow" not in line and not line.startswith(("run true", "run --", "logs", "tail")):
        assert called.json is not None


def test_the_command_lines_above_use_every_operation_but_three(daemon, call):
    for line in COMMAND_LINES:
        call(*shlex.split(line))

    # Signals, large inputs and ending a stream have tests of their own.
    assert set(OPERATIONS) - {request["op"] for request in daemon.requests} == {"signal", "stage", "stop"}


FLAGS = [
    ("--id job9", "id", "job9"),
    ("--queue media", "queue", "media"),
    ("--priority 5", "priority", 5),
    ("--priority -5", "priority", -5),
    ("--at 2026-12-01T09:00Z", "run_at", "2026-12-01T09:00:00.000Z"),
    ("--at '2026-12-01 09:00' --tz Europe/Berlin", "run_at", "2026-12-01T08:00:00.000Z"),
    ("--in 10m", "delay", 600.0),
    ("--max-retries 0", "max_retries", 0),
    ("--retry-for 6h", "retry_for", 21600.0),
    ("--backoff-base 1.5", "backoff_base", 1.5),
    ("--backoff-max 1h", "backoff_max", 3600.0),
    ("--jitter 0.5", "jitter", 0.5),
    ("--success-codes 0,3 --success-codes 4", "success_codes", [0, 3, 4]),
    ("--no-retry-on 2,timeout", "no_retry_on", [2, "timeout"]),
    ("--rerun never", "rerun", "never"),
    ("--timeout 5m", "timeout", 300.0),
    ("--silent-timeout 5m", "silent_timeout", 300.0),
    ("--kill-after 1s", "kill_after", 1.0),
    ("--leftovers keep", "leftovers", "keep"),
    ("--shell /bin/bash", "shell", "/bin/bash"),
    ("--cwd /tmp/../tmp", "cwd", "/tmp"),
    ("--env A=b=c --env EMPTY=", "env", {"A": "b=c", "EMPTY": ""}),
    ("--clean-env", "env_mode", "clean"),
    ("--env-mode capture", "env_mode", "capture"),
    ("--umask 022", "umask", 0o022),
    ("--nice 10", "nice", 10),
    ("--as ann", "as", "ann"),
    ("--limit-output 64M", "limits", {"output": 64 << 20}),
    ("--limit-memory 512M --limit-cpu 30s", "limits", {"memory": 512 << 20, "cpu": 30.0}),
    ("--limit-files 64 --limit-output-action end", "limits", {"files": 64, "output_action": "end"}),
    ("--tag a=1 --tag b=2", "tags", {"a": "1", "b": "2"}),
    ("--note 'by hand'", "note", "by hand"),
]


@pytest.mark.parametrize(("flags", "field", "value"), FLAGS)
def test_a_flag_becomes_its_field(flags, field, value, daemon, call):
    assert call("enqueue", *shlex.split(flags), "true").status == 0

    spec = daemon.of("enqueue")[0]["jobs"][0]
    assert spec[field] == value
    decode_spec(msgspec.json.encode(spec))


def test_every_field_of_a_job_has_a_flag(daemon, call, stdin):
    stdin(b"in")
    call("enqueue", "--stdin", "-", "true")
    call("enqueue", "--script", __file__)

    given = {field for _, field, _ in FLAGS} | {"command", "argv"}
    for request in daemon.of("enqueue"):
        given |= set(request["jobs"][0])
    assert given >= {field.encode_name for field in msgspec.structs.fields(JobSpec)}
    limits = {name for _, field, value in FLAGS if field == "limits" for name in value}
    assert limits == {field.encode_name for field in msgspec.structs.fields(Limits)}


def test_an_input_that_is_large_goes_ahead_in_pieces(daemon, call, tmp_path):
    data = bytes(range(256)) * 6000
    (tmp_path / "in").write_bytes(data)

    assert call("enqueue", "--stdin", str(tmp_path / "in"), "cat").status == 0

    staged = daemon.of("stage")
    assert len(staged) == 3
    assert b"".join(base64.b64decode(request["b64"]) for request in staged) == data
    assert daemon.of("enqueue")[0]["jobs"][0]["stdin"] == {"staged": staged[0]["key"]}


def test_a_submission_takes_environment_directory_and_umask_along(daemon, call, monkeypatch, tmp_path):
    monkeypatch.setenv("FROM_HERE", "1")
    monkeypatch.chdir(tmp_path)

    call("enqueue", "true")

    source = daemon.of("enqueue")[0]["submission"]
    assert source["env"]["FROM_HERE"] == "1"
    assert source["cwd"] == str(tmp_path)
    assert isinstance(source["umask"], int)


def test_a_variable_that_is_not_utf_8_is_left_out_by_name(daemon, call, monkeypatch):
    monkeypatch.setenv("LATIN", "caf\udce9")

    called = call("enqueue", "true")

    assert "LATIN" not in daemon.of("enqueue")[0]["submission"]["env"]
    assert "not UTF-8, and so not passed on to jobs: LATIN" in called.err


def test_a_clean_environment_is_not_sent_at_all(daemon, call):
    call("enqueue", "--clean-env", "true")

    assert "env" not in daemon.of("enqueue")[0]["submission"]


def test_every_command_of_the_table_loads_and_explains_itself(call):
    for name in TABLE:
        called = call(name, "--help")

        assert called.status == 0
        assert called.out.startswith(f"Usage: queuectl {name}")


@pytest.mark.parametrize("topic", topics())
def test_a_topic_fits_a_terminal_of_80_columns(call, topic):
    assert max(map(len, call("help", topic).out.splitlines())) <= 80


def test_the_table_is_what_the_overview_shows():
    cli = make_cli()

    assert cli.list_commands(cli.make_context("queuectl", ["list"], resilient_parsing=True)) == list(TABLE)
