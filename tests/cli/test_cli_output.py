"""What is printed, for people and for programs."""

from __future__ import annotations

import subprocess
import sys

from queuectl_cli.commands.help import topics
from tests.cli.scripted import job


def test_enqueue_answers_with_the_id_elsewhere_and_a_sentence_on_a_terminal(daemon, call):
    assert call("enqueue", "--id", "job1", "true").out == "job1\n"


def test_enqueue_says_it_in_a_sentence_on_a_terminal(daemon, call, on_a_terminal):
    assert call("enqueue", "--id", "job1", "true").out == "Job 'job1' added.\n"


def test_enqueue_echoes_what_it_understood_of_a_time(daemon, call, on_a_terminal):
    called = call("enqueue", "--id", "report", "--at", "2026-12-01T09:00Z", "true")

    assert called.out.startswith("Job 'report' added for Tue 2026-12-01 09:00 UTC (")


def test_list_in_json_is_one_array_and_nothing_else(daemon, call):
    called = call("list", "--state", "pending", "--json")

    assert [found["id"] for found in called.json] == ["job1", "job2"]
    assert called.err == ""


def test_an_empty_list_in_json_is_an_empty_array(daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [], "next": None}}

    assert call("list", "--json").out == "[]\n"


def test_list_reads_all_pages(daemon, call):
    def page(request):
        number = int(request.get("after") or 0)
        return {"ok": {"jobs": [job(f"job{number}")], "next": str(number + 1) if number < 3 else None}}

    daemon.answers["list"] = page

    assert call("list", "-q").out == "job0\njob1\njob2\njob3\n"


def test_list_shows_the_newest_last(daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [job("new"), job("old")], "next": None}}

    assert call("list", "--limit", "2", "-q").out == "old\nnew\n"
    assert daemon.of("list")[0]["reverse"] is True


def test_on_a_terminal_list_says_how_many_more_there_are(daemon, call, on_a_terminal):
    daemon.answers["list"] = {"ok": {"jobs": [job(f"job{number}") for number in range(100)], "next": "x"}}
    daemon.answers["count"] = {"ok": {"total": 1100, "states": {"pending": 1100}}}

    assert "1,000 older" in call("list").err


def test_on_a_terminal_list_of_failed_says_how_many_failed_for_good(daemon, call, on_a_terminal):
    assert "2 jobs failed for good" in call("list", "--state", "failed").err


def test_list_says_why_a_job_waits(daemon, call):
    daemon.answers["list"] = {"ok": {"jobs": [job(waiting="no_workers")], "next": None}}

    assert "no workers" in call("list").out


def test_only_the_fields_that_were_asked_for(daemon, call):
    assert call("list", "--json", "--fields", "id,state").json == [
        {"id": "job1", "state": "pending"},
        {"id": "job2", "state": "pending"},
    ]
    assert call("list", "--fields", "nonsense").status == 2


def test_show_in_json_is_an_array_also_for_one(daemon, call):
    found = call("show", "job1", "--json").json

    assert [entry["id"] for entry in found] == ["job1"]
    assert found[0]["history"][0]["exit_code"] == 1


def test_what_a_job_wrote_cannot_steer_the_terminal(daemon, call):
    assert "\x1b" not in call("show", "job1").out


def test_config_get_of_one_key_is_its_value(daemon, call):
    assert call("config", "get", "max-retries").out == "3\n"
    assert daemon.of("config_list")[0]["keys"] == ["max_retries"]


def test_worker_count_says_how_many_may_run(daemon, call):
    called = call("worker", "--count", "3")

    assert called.out.startswith("3 workers may run")
    assert daemon.of("worker_start")[0]["count"] == 3


def test_follow_shows_what_workers_do(daemon, call):
    assert "[Worker 1] Running job job1 (attempt 1)" in call("worker", "start", "--count", "3", "--follow").out


def test_help_explains_topics_and_commands(call):
    assert "69   the daemon cannot be reached" in call("help", "exit-codes").out
    assert "Usage: queuectl dlq retry" in call("help", "dlq", "retry").out
    assert call("help", "nonsense").status == 2


def test_the_overview_names_every_topic(call):
    _, _, named = " ".join(call("--help").out.split()).partition("Topics: queuectl help ")

    assert sorted(named.split(" | ")) == topics()


def test_options_are_understood_before_and_after_the_command(daemon, call):
    assert call("--json", "list").json == call("list", "--json").json


HEAVY = {"asyncio", "msgspec", "structlog", "psutil", "rich", "apsw", "watchdog", "importlib.metadata", "dataclasses"}
HEAVY |= {"pathlib", "subprocess", "difflib", "textwrap", "shutil", "zoneinfo", "tempfile", "logging"}


def loaded_by(*args):
    code = f"import sys; from queuectl_cli.main import main; main({list(args)!r}); print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stderr.split())


def test_the_light_commands_load_nothing_heavy_and_little_at_all(daemon):
    with_click = set(
        subprocess.run(
            [sys.executable, "-c", "import sys, click; print(*sys.modules)"], capture_output=True, text=True, check=True
        ).stdout.split()
    )

    for args in (["ping"], ["list"], ["list", "--json"], ["status"], ["enqueue", "true"]):
        more = loaded_by(*args) - with_click

        assert not HEAVY & more, args
        assert len(more) <= 60, (args, sorted(more))
