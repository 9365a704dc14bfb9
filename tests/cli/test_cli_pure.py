"""Functions without effects: times, forms of a job, selectors, tables."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectl_cli.errors import UsageError
from queuectl_cli.forms import bulk_lines, from_json, from_words
from queuectl_cli.narrate import as_worker_line
from queuectl_cli.render import Column, clean, cut, table, width_of
from queuectl_cli.selection import selector
from queuectl_cli.submission import merged
from queuectl_cli.target import parse_url, resolve
from queuectl_cli.times import distance, parse_instant, spoken, zone
from queuectld.protocol.where import places

# A Tuesday.
NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC).timestamp()


def at(text, *, past=False, tz="UTC"):
    return datetime.fromtimestamp(parse_instant(text, NOW, zone(tz), past=past), UTC).strftime("%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("text", "next_one", "last_one"),
    [
        ("2026-12-01 09:00", "12-01 09:00:00", "12-01 09:00:00"),
        ("2026-12-01T09:00Z", "12-01 09:00:00", "12-01 09:00:00"),
        ("2026-12-01T09:00:30+01:00", "12-01 08:00:30", "12-01 08:00:30"),
        ("13:00", "11-24 13:00:00", "11-23 13:00:00"),
        ("9:00", "11-25 09:00:00", "11-24 09:00:00"),
        ("12:30", "11-25 12:30:00", "11-24 12:30:00"),
        ("today 18:00", "11-24 18:00:00", "11-24 18:00:00"),
        ("tomorrow 09:00", "11-25 09:00:00", "11-25 09:00:00"),
        ("tomorrow", "11-25 00:00:00", "11-25 00:00:00"),
        ("mon 09:00", "11-30 09:00:00", "11-23 09:00:00"),
        ("Tuesday 09:00", "12-01 09:00:00", "11-24 09:00:00"),
        ("tue 18:00", "11-24 18:00:00", "11-17 18:00:00"),
        ("now", "11-24 12:30:00", "11-24 12:30:00"),
        ("+5m", "11-24 12:35:00", "11-24 12:35:00"),
        ("@1764579600", "12-01 09:00:00", "12-01 09:00:00"),
    ],
)
def test_an_instant_is_the_next_one_or_where_the_past_is_meant_the_last(text, next_one, last_one):
    assert (at(text), at(text, past=True)) == (next_one, last_one)


def test_where_the_past_is_meant_a_span_is_ago():
    assert at("10m", past=True) == "11-24 12:20:00"
    assert at("90", past=True) == "11-24 12:28:30"


def test_a_time_zone_moves_the_clock():
    assert at("14:00", tz="Europe/Berlin") == "11-24 13:00:00"


@pytest.mark.parametrize(
    "text", ["", "soon", "25:00", "9:60", "mon 9", "2026-13-01", "@x", "@1e99", "10m", "+5M", "monty 09:00"]
)
def test_what_is_no_instant_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_instant(text, NOW, UTC)


def test_an_unknown_zone_is_refused():
    with pytest.raises(ValueError, match="not a time zone"):
        zone("Europe/Atlantis")


@given(st.text(max_size=30), st.booleans())
def test_any_text_is_an_instant_or_a_value_error(text, past):
    try:
        found = parse_instant(text, NOW, UTC, past=past)
    except ValueError:
        return
    assert isinstance(found, float)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1)))  # noqa: DTZ001  (bounds without a zone)
def test_an_iso_instant_is_itself(moment):
    assert parse_instant(moment.isoformat(), NOW, UTC) == moment.replace(tzinfo=UTC).timestamp()


def test_instants_are_spoken_as_people_read_them():
    assert spoken(NOW + 7 * 86400, NOW, UTC) == "Tue 2026-12-01 12:30 UTC (in 7d)"
    assert distance(-200) == "3m 20s ago"


# Forms of a job.


def words(*given, explicit=False, programs=()):
    return from_words(given, explicit=explicit, which=lambda name: name in programs)


@pytest.mark.parametrize("text", ["echo hello", "[ -f x ] && y", "{ echo a; echo b; }", "[[ -f x ]]"[:0] + "true", "-"])
def test_one_bare_word_is_a_shell_command(text):
    assert words(text) == [{"command": text}]


def test_json_is_a_job_or_several():
    assert words('{"id":"job1","command":"echo hello"}') == [{"id": "job1", "command": "echo hello"}]
    assert words('[{"command":"a"},{"command":"b"}]') == [{"command": "a"}, {"command": "b"}]


def test_several_words_and_what_follows_the_dashes_are_an_argv():
    assert words("echo", "a b") == [{"argv": ["echo", "a b"]}]
    assert words("ls", explicit=True) == [{"argv": ["ls"]}]
    assert words("my prog", explicit=True, programs={"my prog"}) == [{"argv": ["my prog"]}]


def test_a_shell_command_after_the_dashes_is_refused_with_the_right_form():
    with pytest.raises(UsageError) as caught:
        words("echo a | wc", explicit=True)

    assert "queuectl enqueue 'echo a | wc'" in caught.value.text()


@pytest.mark.parametrize(
    "given",
    [
        ["{id:job1,command:echo hello}"],
        ["{'id': 'job1'}"],
        ['{\\"id\\":\\"job1\\"}'],
        ["id:job1", "command:echo hello"],
        ["{id:job1,command:echo", "hello}"],
        ['{"id":"a"}', "--json"],
    ],
)
def test_the_classic_quoting_accident_shows_the_right_quoting(given):
    with pytest.raises(UsageError) as caught:
        words(*given)

    assert """queuectl enqueue '{"id":"job1","command":"echo hello"}'""" in caught.value.text()


@pytest.mark.parametrize("text", ['{"a":1', '{"a":1,"a":2}', '{"a":NaN}', "[]", "[1]", '["a"]', '{"a":' * 20_000])
def test_json_that_is_no_job_is_refused(text):
    with pytest.raises(UsageError):
        from_json(text)


def test_bad_json_shows_where():
    with pytest.raises(UsageError, match=r'at position 8: \{"id":1 ⟪"⟫a'):
        from_json('{"id":1 "a":2}')


@given(st.lists(st.text(max_size=30), min_size=1, max_size=3), st.booleans())
def test_any_words_are_a_job_or_a_usage_error(given, explicit):
    try:
        jobs = from_words(given, explicit=explicit, which=lambda _name: None)
    except UsageError:
        return
    assert jobs
    assert all(isinstance(job, dict) for job in jobs)


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_lines_with_a_job_or_an_error(raw):
    for line in bulk_lines(raw, plain=False):
        assert line is not None
        assert (line.job is None) != (line.error is None)


@given(st.dictionaries(st.text(max_size=5), st.integers()))
def test_a_line_of_json_is_the_job_that_it_says(job):
    assert [line.job for line in bulk_lines([json.dumps(job).encode()], plain=False) if line] == [job]


def test_flags_win_over_json_and_add_to_variables_and_tags():
    job = {"command": "x", "queue": "a", "tags": {"a": "1"}, "delay": 5}

    assert merged(job, {"queue": "b", "tags": {"b": "2"}, "run_at": "t"}) == {
        "command": "x",
        "queue": "b",
        "tags": {"a": "1", "b": "2"},
        "run_at": "t",
    }


# Which jobs.


def test_a_selector_says_only_what_was_given():
    assert selector({}) == {}
    assert selector({"queue": ("a,b", "c"), "failed": True, "since": "1h"}, now=7200.0) == {
        "queue": ["a", "b", "c"],
        "state": ["failed", "dead"],
        "since": 3600.0,
    }


@pytest.mark.parametrize(
    "given", [{"state": ("running",)}, {"tags": ("x",)}, {"since": "soon"}, {"failed": True, "state": ("pending",)}]
)
def test_a_selector_that_means_nothing_is_refused(given):
    with pytest.raises(UsageError):
        selector(given)


# Where.


def test_the_recorded_socket_is_found(tmp_path):
    (tmp_path / "socket").write_text(f"{tmp_path}/elsewhere.sock\n")
    (tmp_path / "elsewhere.sock").touch()

    assert resolve(None, None, {"QUEUECTL_STATE_DIR": str(tmp_path)}).path == f"{tmp_path}/elsewhere.sock"


def test_an_address_is_a_socket_or_a_host_and_a_port():
    where = places({"HOME": "/h"}, 1000, None, lambda _path: False)

    assert parse_url("unix:///a/b", where).path == "/a/b"
    assert parse_url("tcp://[::1]:7420", where)[1:3] == ("::1", 7420)


# Tables.

COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("QUEUE", lambda row: row["queue"], dull="default"),
    Column("COMMAND", lambda row: row["command"], stretches=True),
)


def test_a_column_without_news_is_left_out():
    rows = [{"id": "a", "queue": "default", "command": "x"}]

    assert table(rows, COLUMNS) == ["ID  COMMAND", "a   x"]
    assert table(rows, COLUMNS, wide=True) == ["ID  QUEUE    COMMAND", "a   default  x"]


text = st.text(max_size=60)


@given(
    st.lists(
        st.fixed_dictionaries({"id": st.text("abc", min_size=1, max_size=8), "queue": text, "command": text}),
        max_size=5,
    )
)
def test_a_table_is_as_many_lines_as_rows_and_no_line_steers_the_terminal(rows):
    lines = table(rows, COLUMNS)

    assert len(lines) == len(rows) + 1
    assert all(clean(line) == line for line in lines)


@given(st.text(max_size=40), st.integers(1, 20))
def test_a_cut_text_fits(value, width):
    assert width_of(cut(clean(value), width)) <= width


def test_what_a_worker_did_reads_as_in_the_original():
    event = {"job": "demo1", "worker": "w1", "was": "pending", "state": "processing", "attempt": 1}

    assert as_worker_line(event, NOW) == "[Worker 1] Running job demo1 (attempt 1)"
