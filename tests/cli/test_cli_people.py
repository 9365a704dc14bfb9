"""What people read: values as they would write them, times by their own clock, and what to do next."""

from __future__ import annotations

import time

import pytest

from queuectl_cli.errors import UsageError
from queuectl_cli.forms import from_words
from queuectl_cli.narrate import as_line
from queuectl_cli.outcome import in_words
from queuectl_cli.render import sized, spanned
from queuectld.domain.durations import parse_duration
from queuectld.domain.sizes import parse_size
from tests.cli.scripted import DETAIL, SETTING, STATUS, finished, job

LIMITS = {"memory": 512 << 20, "cpu": 3600.0, "files": 64, "output": 1 << 20, "output_action": "end"}


@pytest.fixture
def in_berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def setting(value, unit):
    return {"ok": {"settings": [{**SETTING, "key": "some_key", "value": value, "unit": unit}]}}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3600.0, "seconds", "1h"),
        (90.25, "seconds", "90.25s"),
        (90061.0, "seconds", "90061s"),
        (67108864, "bytes", "64 MiB"),
        (1_000_001, "bytes", "1000001"),
        (0o660, "mode", "0660"),
        (None, "seconds", "none"),
        (True, None, "true"),
        (1_000_000, None, "1000000"),
        ("/bin/sh", None, "/bin/sh"),
    ],
)
def test_a_setting_is_shown_as_it_is_written(value, unit, text, daemon, call):
    daemon.answers["config_list"] = setting(value, unit)

    assert call("config", "get", "some-key").out == f"{text}\n"


def test_a_setting_is_as_it_came_in_json(daemon, call):
    daemon.answers["config_list"] = setting(0o660, "mode")

    assert call("config", "get", "some-key", "--json").json[0]["value"] == 0o660


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.25, 1.0, 59.0, 60.0, 61.5, 86400.0, 90061.0])
def test_a_span_of_time_is_shown_exactly(seconds):
    assert parse_duration(spanned(seconds)) == seconds


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1536, 1_000_001, 1 << 30])
def test_an_amount_of_bytes_is_shown_exactly(count):
    assert parse_size(sized(count)) == count


def show(daemon, call, *words, spec=None, **fields):
    daemon.answers["get"] = {"ok": {**DETAIL, "job": job(**fields), "spec": {"command": "x", **(spec or {})}}}
    lines = call("show", "job1", *words).out.splitlines()
    width = lines[0].index("job1")
    return {line[:width].strip(): line[width:].strip() for line in lines if line[:1] != " "}


def test_show_writes_what_a_job_asks_for_as_its_flags_do(daemon, call):
    shown = show(
        daemon,
        call,
        spec={"umask": 0o22, "timeout": 90.0, "no_retry_on": [2, "timeout"], "limits": LIMITS, "silent_timeout": 300.0},
    )

    assert shown["Umask"] == "0022"
    assert shown["Timeout"] == "1m 30s"
    assert shown["No retry on"] == "2, timeout"
    assert shown["Silent timeout"] == "5m"
    assert (shown["Memory limit"], shown["Cpu limit"], shown["Files limit"]) == ("512 MiB", "1h", "64")
    assert shown["Output limit"] == "1 MiB, more ends it"


def test_show_names_the_variables_that_were_set_without_their_values(daemon, call):
    assert show(daemon, call, spec={"env": {"TOKEN": None, "A": None}})["Env"] == "A, TOKEN"


def test_show_tells_times_by_the_clock_on_the_wall(daemon, call, in_berlin):
    assert show(daemon, call)["Added"].startswith("Tue 2026-12-01 10:00 CET (")


def test_show_tells_times_as_they_came_with_utc(daemon, call, in_berlin):
    assert show(daemon, call, "--utc")["Added"] == "2026-12-01T09:00:00Z"


@pytest.mark.parametrize(
    ("state", "reason", "text"),
    [
        ("dead", "exited", "dead"),
        ("cancelled", "cancelled", "cancelled"),
        ("dead", "timeout", "dead (timeout)"),
        ("dead", "not_started", "dead (not started)"),
        ("pending", None, "pending"),
    ],
)
def test_show_gives_the_reason_of_a_state_where_it_is_news(state, reason, text, daemon, call):
    assert show(daemon, call, state=state, reason=reason)["State"] == text


def test_list_shows_no_exit_code_of_a_run_before_the_present_one(daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [job(state="processing", attempts=2, exit_code=7)], "next": None}}

    assert "EXIT" not in call("list").out


HIDDEN = {
    **dict.fromkeys(("command", "reason", "attempts", "max_retries", "retries_left", "priority", "tags", "waiting")),
    "owner": "bob",
    "hidden": True,
}


@pytest.mark.parametrize("form", ["table", "wide"])
def test_jobs_of_others_are_listed_as_such(form, daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [job("mine"), job("bobs", **HIDDEN)], "next": None}}

    called = call("list", "-o", form)

    heading, mine, bobs = called.out.splitlines()
    assert "OWNER" in heading
    assert ("PRIO" in heading) == (form == "wide")
    assert "ann" in mine
    assert bobs.endswith("(not yours)")
    assert "None" not in called.out


def test_jobs_of_others_are_sorted_behind_by_what_is_not_told(daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [job("mine", priority=-3), job("bobs", **HIDDEN)], "next": None}}

    assert call("list", "--sort", "priority", "-q").out.split() == ["bobs", "mine"]
    assert call("list", "--sort", "tags", "--json").status == 0


def test_an_owner_that_all_jobs_have_is_no_news(daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [job("a"), job("b")], "next": None}}

    assert "OWNER" not in call("list").out
    assert "OWNER" in call("list", "-o", "wide").out


@pytest.mark.parametrize("line", ["show bobs", "cancel bobs", "logs bobs", "worker stop", "config set timeout 5m"])
def test_what_is_not_allowed_is_exit_77_and_says_where_to_read_on(line, daemon, call):
    refusal = {"error": {"code": "forbidden", "message": "job 'bobs' is not yours: it belongs to bob"}}
    for op in ("get", "cancel", "logs", "worker_stop", "config_set"):
        daemon.answers[op] = refusal

    called = call(*line.split())

    assert called.status == 77
    assert "it belongs to bob" in called.err
    assert "queuectl help permissions" in called.err


def test_several_ids_of_others_are_exit_77_too(daemon, call):
    refused = [{"index": place, "code": "forbidden", "message": "not yours"} for place in (0, 1)]
    daemon.answers["cancel"] = {"ok": {"jobs": [], "count": 0, "refused": refused, "pending": []}}

    called = call("cancel", "a", "b")

    assert called.status == 77
    assert "a: not yours" in called.err


@pytest.mark.parametrize(("role", "owners"), [("user", ["ann", "ann"]), ("admin", [None, None])])
def test_who_sees_jobs_of_others_waits_for_his_own_all_the_same(role, owners, daemon, call):
    daemon.answers["hello"] = {"ok": {"user": "ann", "role": role}}

    call("wait", "--queue", "q")

    asked = [*daemon.of("count"), *daemon.of("wait")]
    assert [request["select"].get("owner") for request in asked] == owners


def test_events_of_others_are_told_in_a_line():
    event = {"number": 7, "at": "2026-11-21T08:00:00Z", "event": "job.failed", "job": "bobs", "owner": "bob"}

    assert as_line({**event, "was": "processing", "state": "failed", "hidden": True}, utc=True).endswith("bobs")


def test_events_are_told_by_the_clock_on_the_wall_and_without_what_goes_without_saying(in_berlin):
    event = {
        "number": 8,
        "at": "2026-11-24T07:45:49.113Z",
        "event": "job.failed",
        "job": "job3",
        "queue": "default",
        "was": "processing",
        "state": "failed",
        "attempt": 1,
        "worker": "w2",
        "exit_code": 127,
        "reason": "exited",
        "run_at": "2026-11-24T07:45:51.113Z",
    }

    assert as_line(event) == (
        "     8  2026-11-24 08:45:49.113  job.failed     job3  attempt=1  worker=w2  exit_code=127  "
        "run_at=2026-11-24 08:45:51.113"
    )
    assert "2026-11-24T07:45:49.113Z" in as_line(event, utc=True)


def test_status_says_that_nothing_runs_where_there_are_no_workers(daemon, call):
    daemon.answers["status"] = {"ok": {**STATUS, "limit": 0, "workers": 0}}

    assert "queuectl worker start" in call("status").out


def test_the_end_of_a_job_is_told_without_saying_it_twice():
    timed_out = finished(state="dead", reason="timeout", exit_code=None, signal=15, error="timeout")

    assert in_words(timed_out) == "dead, timeout, SIGTERM"


def test_the_wait_that_gives_up_leaves_no_bar_behind(daemon, call, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    daemon.answers["wait"] = []

    called = call("wait", "--wait-for", "0.5", "job1")

    assert called.status == 75
    assert "wait: 0 of 2 over" in called.err
    assert called.err.endswith("\r\x1b[Kqueuectl: still not over\n")


def test_logs_say_where_the_output_is(daemon, call):
    assert call("logs", "--path", "job1").out == "/d/output/0/1.1.log\n"
    assert call("logs", "--path", "--attempt", "1", "--json", "job1").json == [
        {"job": "job1", "attempt": 1, "path": "/d/output/0/1.1.log"}
    ]


def test_where_there_is_no_output_there_is_no_path(daemon, call):
    called = call("logs", "--path", "--attempt", "7", "job1")

    assert called.status == 1
    assert "there is no output of attempt 7 of job 'job1'" in called.err
    assert call("logs", "--path", "--follow", "job1").status == 2


# The dead letter queue.


@pytest.mark.parametrize(
    ("line", "seen"), [("--all", False), ("--queue q", False), ("--all --seen", True), ("--seen", True)]
)
@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_verbs_of_the_dead_letter_queue_mean_the_letters_that_it_lists(verb, line, seen, daemon, call):
    call("dlq", verb, *line.split(), "-y")

    assert {request["select"]["seen"] for request in daemon.of(verb)} == {seen}


def test_retry_of_all_spares_those_whose_end_was_seen(daemon, call):
    call("retry", "--all", "-y")
    call("retry", "--queue", "q", "-y")
    call("retry", "--state", "dead", "-y")
    call("retry", "job1")

    selects = [request["select"] for request in daemon.of("retry") if not request.get("dry_run")]
    assert [select.get("seen") for select in selects] == [False, False, None, None]


@pytest.mark.parametrize("line", ["dlq --state dead", "dlq retry --failed", "ps --state dead"])
def test_a_condition_that_could_mean_nothing_is_refused(line, daemon, call):
    assert call(*line.split()).status == 2


def test_show_names_what_an_attempt_left_running(daemon, call):
    attempt = DETAIL["history"][0]
    left = ["41 sleep", "42 \x1b[31msync (kept)"]
    daemon.answers["get"] = {"ok": {**DETAIL, "history": [attempt, {**attempt, "number": 2, "leftovers": left}]}}

    lines = call("show", "job1").out.splitlines()

    assert [line for line in lines if line.startswith("Left by run ")] == [
        "Left by run 2, and ended unless kept: 41 sleep, 42 \N{REPLACEMENT CHARACTER}[31msync (kept)"
    ]


@pytest.mark.parametrize("verb", ["discard", "show", "retry"])
def test_the_hint_for_a_job_that_is_not_dead_fits_what_was_asked(verb, daemon, call):
    daemon.answers["get"] = {"ok": {**DETAIL, "job": job(state="completed")}}

    called = call("dlq", verb, "job1")

    assert called.status == 4
    assert ("queuectl retry job1" in called.err) is (verb == "retry")


def test_no_is_no_interrupt(daemon, call, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", lambda *_, **__: False)

    called = call("cancel", "--all")

    assert called.status == 1
    assert "Nothing was changed." in called.err
    assert [request["dry_run"] for request in daemon.of("cancel")] == [True]


def test_a_job_that_ended_before_it_could_be_cancelled_is_named_once(daemon, call):
    refused = [{"index": 5, "code": "wrong_state", "message": "job 'x' completed before it could be cancelled"}] * 2
    daemon.answers["cancel"] = {"ok": {"jobs": ["y"], "count": 1, "refused": refused, "pending": []}}

    called = call("cancel", "--all", "-y")

    assert called.err.startswith("job 'x' completed before")


# Forms of a job.


def test_options_behind_a_shell_command_are_refused_with_the_right_order():
    with pytest.raises(UsageError, match="names no program") as refused:
        from_words(["exit 1", "--max-retries", "0"], explicit=False, which=lambda _: None)

    assert "Options come before the command:  queuectl enqueue [OPTIONS] 'exit 1'" in refused.value.text()


def test_a_program_whose_name_has_a_space_is_one():
    assert from_words(["/opt/a b", "-x"], explicit=False, which=lambda name: name) == [{"argv": ["/opt/a b", "-x"]}]


def test_run_without_a_command_shows_how_run_is_used(call):
    assert "queuectl run 'echo hello'" in call("run").err


def test_a_time_that_has_passed_is_told_as_such(daemon, call, on_a_terminal):
    daemon.answers["enqueue"] = lambda _: {
        "ok": {
            "jobs": [{"id": "x", "state": "pending", "created": True, "run_at": None}],
            "refused": [],
            "warnings": [],
        }
    }

    assert call("enqueue", "--at", "2020-01-01 00:00", "true").out.startswith(
        "Job 'x' added for now: Wed 2020-01-01 00:00 UTC ("
    )


def test_a_time_is_echoed_in_the_zone_that_it_was_given_in(daemon, call, on_a_terminal):
    out = call("enqueue", "--id", "x", "--at", "2026-12-01 10:00", "--tz", "Europe/Berlin", "true").out

    assert out.startswith("Job 'x' added for Tue 2026-12-01 10:00 CET (")


def test_a_bulk_passes_on_what_the_daemon_warns_of_once(daemon, call, stdin):
    usual = daemon.answers["enqueue"]
    daemon.answers["enqueue"] = lambda request: {"ok": {**usual(request)["ok"], "warnings": ["no workers"]}}
    stdin(b'{"command":"true"}\n' * 2500)

    called = call("enqueue", "-")

    assert called.err == "Note: no workers\n"
    assert len(daemon.of("enqueue")) == 2


# Help.


@pytest.mark.parametrize("command", ["enqueue", "run"])
def test_examples_in_the_help_keep_their_lines(command, call):
    out = call(command, "--help").out

    assert "\\b" not in out
    assert f"\n    queuectl {command} " in out


def test_the_help_of_each_command_says_where_the_common_options_are(call):
    assert "queuectl --help" in call("dlq", "retry", "--help").out


@pytest.mark.parametrize("topic", ["enqueue", "selectors", "time", "output", "exit-codes", "environment"])
def test_the_overview_names_every_topic(topic, call):
    assert topic in call("--help").out.split("Topics:")[1]
    assert call("help", topic).out.startswith("# ")


# No daemon.


def test_a_daemon_that_was_stopped_is_not_said_to_have_never_been_there(call, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "queue.db").touch()

    assert "Its jobs wait in" in call("list").err


def test_a_file_in_the_place_of_the_socket_is_told_apart(call, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "queuectl.sock").touch()

    called = call("list")

    assert called.status == 69
    assert "that is no socket" in called.err


def test_nobody_is_told_to_start_a_daemon_that_listens_elsewhere(call, tmp_path):
    called = call("-H", f"unix://{tmp_path}/none.sock", "list")

    assert called.status == 69
    assert "queuectl daemon start" not in called.err


def test_the_daemon_of_the_system_is_started_as_such(call):
    assert "queuectl --system daemon start" in call("--system", "list").err


def test_a_token_that_is_missing_is_not_called_wrong(daemon, call):
    daemon.greeting["authenticate"] = True

    called = call("ping")

    assert called.status == 77
    assert "asks for a token" in called.err
    assert daemon.requests == []
