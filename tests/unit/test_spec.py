from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain import spec
from queuectld.domain.spec import JobSpec, Limits, decode_spec, encode_spec, instant
from queuectld.errors import BadRequestError, UnsupportedError

# Of every field a value that differs from its default.
EVERYTHING = {
    "id": "nightly:2026-11.a_b-c",
    "command": "make all",
    "shell": "/bin/bash",
    "queue": "gpu",
    "priority": -3,
    "run_at": "2026-12-01T09:00:00+01:00",
    "max_retries": 0,
    "retry_for": "6h",
    "backoff_base": 1.5,
    "backoff_max": "10m",
    "jitter": 0.25,
    "success_codes": [0, 3],
    "no_retry_on": [2, "timeout"],
    "rerun": "never",
    "timeout": "1h30m",
    "silent_timeout": "10m",
    "kill_after": 0,
    "leftovers": "keep",
    "cwd": "/srv/a b",
    "env": {"A": "1", "B": ""},
    "env_mode": "clean",
    "umask": 0o027,
    "nice": 19,
    "as": "ann",
    "stdin": "in\0put",
    "limits": {"memory": 1 << 29, "cpu": "1h", "files": 64, "output": 0, "output_action": "end"},
    "tags": {"team": "red"},
    "note": "as asked for by Zoë",
}


def refused(job):
    with pytest.raises(BadRequestError) as caught:
        decode_spec(job if isinstance(job, bytes) else json.dumps(job).encode())
    return caught.value.path, caught.value.message


def test_a_command_is_enough():
    assert decode_spec(b'{"command":"echo hello"}') == JobSpec(command="echo hello")


def test_every_field_is_understood_and_survives_storage():
    read = decode_spec(json.dumps(EVERYTHING).encode())

    assert (read.retry_for, read.backoff_max, read.timeout, read.kill_after) == (21600.0, 600.0, 5400.0, 0.0)
    assert (read.silent_timeout, read.limits.cpu) == (600.0, 3600.0)
    assert decode_spec(encode_spec(read)) == read
    assert set(EVERYTHING["limits"]) == {field.name for field in msgspec.structs.fields(Limits)}
    assert set(EVERYTHING) | {"argv", "script", "delay"} == {
        field.encode_name for field in msgspec.structs.fields(JobSpec)
    }


@pytest.mark.parametrize(
    "job",
    [
        {"argv": ["ls", "-l", ""]},
        {"script": "#!/bin/sh\necho hello\n"},
        {"script": {"b64": "ZWNobw=="}},
        {"script": {"staged": "upload-1"}},
        {"command": "cat", "stdin": {"b64": "//4="}},
        {"command": "true", "delay": "5m"},
        {"command": "true", "run_at": 1_800_000_000},
        {"command": "true", "run_at": 0},
    ],
)
def test_other_forms_are_understood_too(job):
    read = decode_spec(json.dumps(job).encode())

    assert decode_spec(encode_spec(read)) == read


BAD_FIELDS = [
    ("id", "", "`id` must not be empty"),
    ("id", "a b", "letters, digits and . _ : - ; at most 128 characters, beginning with a letter or digit"),
    ("id", "a\n", "letters, digits"),
    ("id", "-a", "beginning with a letter or digit"),
    ("id", "x" * 129, "at most 128 characters"),
    ("id", "a\0", "letters, digits"),
    ("id", 5, "`id` must be a text, not a whole number"),
    ("command", 5, "must be a text, not a whole number"),
    ("command", "", "`command` is empty"),
    ("command", " \n", "`command` is empty"),
    ("command", "echo \0", "`command` contains a NUL byte"),
    ("shell", "", "`shell` is empty"),
    ("shell", "sh\0", "`shell` contains a NUL byte"),
    ("queue", "", "`queue` must not be empty"),
    ("queue", None, "`queue` must be a text, not null"),
    ("priority", 1001, "at most 1000"),
    ("priority", "high", "`priority` must be a whole number, not a text"),
    ("run_at", "tomorrow", "2026-12-01T09:00:00Z"),
    ("run_at", "2026-12-01T09:00:00", "with a zone"),
    ("run_at", -1, "between 1970 and 3000"),
    ("run_at", True, "not a truth value"),
    ("delay", "5 parsecs", "'parsecs' is not a unit of time"),
    ("delay", -5, "zero or more"),
    ("delay", True, "a number of seconds"),
    ("delay", [1], "a number of seconds"),
    ("max_retries", -1, "`max_retries` must be at least 0"),
    ("max_retries", 1.5, "must be a whole number, not a fraction"),
    ("max_retries", "3", "must be a whole number, not a text"),
    ("max_retries", 10**30, "at most 1000000"),
    ("retry_for", "x", "not a duration"),
    ("backoff_base", -1, "at least 0"),
    ("backoff_base", 1e300, "at most 86400"),
    ("backoff_max", "200y", "not a unit of time"),
    ("jitter", 1.01, "at most 1"),
    ("success_codes", 0, "must be a list"),
    ("rerun", "sometimes", "`rerun` cannot be 'sometimes'"),
    ("no_retry_on", ["rain"], "has 'rain'; allowed are exit codes and exited, signalled"),
    ("timeout", 0, "`timeout` must be more than 0"),
    ("timeout", "1000y", "not a unit of time"),
    ("silent_timeout", 0, "`silent_timeout` must be more than 0"),
    ("kill_after", "5M", "month or minute"),
    ("leftovers", "drop", "`leftovers` cannot be 'drop'"),
    ("cwd", "relative", "`cwd` must be an absolute path"),
    ("cwd", "/a\0b", "without NUL bytes"),
    ("cwd", "/" + "x" * 4096, "at most 4096 characters"),
    ("env", [], "must be an object, not a list"),
    ("env", {"A=B": "1"}, "'A=B', which cannot be the name of a variable"),
    ("env", {"": "1"}, "cannot be the name of a variable"),
    ("env", {"A": "secret\0"}, "NUL byte in the value of A"),
    ("env_mode", "none", "cannot be 'none'"),
    ("umask", 0o1000, "at most 0777"),
    ("umask", "022", "must be a whole number, not a text"),
    ("nice", 20, "at most 19"),
    ("as", "", "`as` must not be empty"),
    ("as", "ann\0", "`as` contains a NUL byte"),
    ("stdin", 5, "must be a text or an object"),
    ("stdin", {}, "needs either `b64` or `staged`"),
    ("stdin", {"b64": "", "staged": "k"}, "needs either `b64` or `staged`"),
    ("limits", 5, "must be an object"),
    ("tags", {"a b": "c"}, "both sides are letters, digits"),
    ("tags", {"a": "b\n"}, "both sides are letters, digits"),
    ("note", "x" * 4097, "at most 4096 characters"),
    ("note", "\0", "NUL byte"),
]


@pytest.mark.parametrize(("field", "value", "words"), BAD_FIELDS, ids=lambda value: repr(value)[:30])
def test_a_bad_value_is_refused_with_its_path_in_plain_words(field, value, words):
    path, message = refused({"command": "true"} | {field: value})

    assert path == f"$.{field}"
    assert words in message
    assert "regex" not in message


def test_every_field_has_a_bad_value_in_this_test():
    assert {field for field, _, _ in BAD_FIELDS} | {"argv", "script"} == {
        field.encode_name for field in msgspec.structs.fields(JobSpec)
    }


@pytest.mark.parametrize(
    ("job", "path", "words"),
    [
        ({}, "$.command", "a job needs a `command`"),
        ({"argv": []}, "$.argv", "needs a program"),
        ({"argv": [""]}, "$.argv", "needs a program"),
        ({"argv": "ls"}, "$.argv", "must be a list, not a text"),
        ({"argv": ["ls", 1]}, "$.argv[1]", "`argv[1]` must be a text"),
        ({"argv": ["ls", "\0"]}, "$.argv", "NUL byte"),
        ({"argv": ["ls"], "shell": "/bin/sh"}, "$.shell", "runs without a shell"),
        ({"argv": ["ls"], "command": "ls"}, "$.argv", "exclude each other"),
        ({"script": "x", "command": "ls"}, "$.script", "exclude each other"),
        ({"script": {}}, "$.script", "needs either"),
        ({"command": "x", "delay": 1, "run_at": 1}, "$.run_at", "exclude each other"),
        ({"command": "x", "limits": {"output": -1}}, "$.limits.output", "`limits.output` must be at least 0"),
        ({"command": "x", "limits": {"output_action": "stop"}}, "$.limits.output_action", "cannot be 'stop'"),
        ({"command": "x", "limits": {"memory": 512}}, "$.limits.memory", "`limits.memory` must be at least 1 MiB"),
        ({"command": "x", "limits": {"memory": 10**30}}, "$.limits.memory", "at most"),
        ({"command": "x", "limits": {"memory": 1 << 51}}, "$.limits.memory", "must be at most 1024 TiB"),
        ({"command": "x", "umask": 0o1000}, "$.umask", "`umask` must be at most 0777"),
        ({"command": "x", "limits": {"cpu": 0}}, "$.limits.cpu", "`limits.cpu` must be more than 0"),
        ({"command": "x", "limits": {"cpu": "5M"}}, "$.limits.cpu", "month or minute"),
        ({"command": "x", "limits": {"files": 3}}, "$.limits.files", "`limits.files` must be at least 16"),
        ({"command": "x", "success_codes": [256]}, "$.success_codes[0]", "at most 255"),
        ({"command": "x", "no_retry_on": [None]}, "$.no_retry_on[0]", "a whole number or a text, not null"),
        ({"command": "x", "env": {"A": 1}}, "$.env[...]", "each value of `env` must be a text"),
        ({"command": "x", "stdin": {"b64": "%"}}, "$.stdin.b64", "must be base64"),
        ({"command": "x", "stdin": {"file": "x"}}, "$.stdin.file", "unknown field `file`"),
        ({"command": "x", "comand": "y"}, "$.comand", "did you mean `command`?"),
        ({"command": "x", "zzz": 1}, "$.zzz", "unknown field `zzz`"),
        ([], None, "a job must be an object, not a list"),
        ("ls", None, "a job must be an object, not a text"),
        (b"{", None, "truncated"),
        (b'{"command":"x"} y', None, "JSON is malformed: trailing characters"),
        (b'{"command":"x","jitter":NaN}', None, "JSON is malformed"),
        (b"\xff", None, "JSON is malformed"),
        (b'{"command":"\xff"}', None, ""),
        (b'{"command":' + b"[" * 5000, None, ""),
        (b'{"env":' + b'{"a":' * 5000, None, ""),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_bad_job_is_refused_with_the_path_of_what_is_wrong(job, path, words):
    found, message = refused(job)

    assert path is None or found == path
    assert words in message


@pytest.mark.parametrize("field", sorted(spec.PLANNED))
def test_what_another_version_will_do_is_refused_by_name_and_never_ignored(field):
    *outer, name = field.split(".")
    job = {"command": "x"} | ({outer[0]: {name: 1}} if outer else {name: 1})

    with pytest.raises(UnsupportedError, match=f"`{field}` is not supported by this version") as caught:
        decode_spec(json.dumps(job).encode())

    assert caught.value.path == f"$.{field}"


def test_what_is_planned_is_not_there_yet():
    assert not spec.PLANNED & {field.encode_name for field in msgspec.structs.fields(JobSpec)}


def test_an_error_about_an_environment_never_tells_its_values():
    _, message = refused({"command": "x", "env": {"TOKEN": "hunter2\0"}})

    assert "TOKEN" in message
    assert "hunter2" not in message


def test_instants_are_read_in_any_zone():
    assert instant("1970-01-01T01:00:00+01:00") == 0.0
    assert instant("2026-12-01T09:00:00.5Z") == 1_796_115_600.5
    assert instant(12.5) == 12.5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(EVERYTHING)), json_values, max_size=3))
def test_any_json_is_a_job_or_an_error_for_people(fields):
    raw = json.dumps({"command": "x"} | fields).encode()
    try:
        read = decode_spec(raw)
    except BadRequestError as error:
        refusal = error
    else:
        refusal = None

    if refusal is None:
        assert decode_spec(encode_spec(read)) == read
    else:
        assert refusal.message
        assert refusal.path is None or refusal.path.startswith("$")


@given(st.binary(max_size=50))
def test_any_bytes_are_a_job_or_an_error_for_people(raw):
    try:
        spec = decode_spec(raw)
    except BadRequestError:
        return

    # Rare, but hypothesis may find one.
    assert isinstance(spec, JobSpec)
