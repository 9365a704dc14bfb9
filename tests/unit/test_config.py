from __future__ import annotations

import json
import os
import stat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld import values
from queuectld.config import Config, Holder, Sources, load, policy, restore, worker_limit
from queuectld.domain.policy import Policy
from queuectld.errors import BadConfigError, NoSuchKeyError
from queuectld.keys import KEYS, find_key, schema


@pytest.fixture
def sources(tmp_path):
    """Load a configuration from a file's text and variables."""

    class Sources:
        file = tmp_path / "queuectld.toml"
        overrides = tmp_path / "overrides.json"

        def load(self, text: str | bytes | None = None, environ: dict[str, str] | None = None, **options):
            if text is not None:
                self.file.write_bytes(text.encode() if isinstance(text, str) else text)
            return load(self.file, self.overrides, environ or {}, **options)

    return Sources()


def setting(loaded, name):
    (row,) = loaded.settings((name,))
    return row


def test_without_any_source_the_defaults_hold(sources):
    loaded = sources.load()

    assert loaded.config == Config()
    assert loaded.config_file is None
    assert {row.origin for row in loaded.settings()} == {"default"}


def test_every_key_has_a_meaning_a_valid_default_and_a_range_in_words():
    for key in KEYS.values():
        assert len(key.meaning) > 10
        assert values.read_value(key, key.default) == key.default
        assert values.describe(key)
    assert set(KEYS) == {field.name for field in msgspec.structs.fields(Config)}


def test_the_defaults_of_policy_are_those_of_the_table():
    assert policy(Config()) == Policy()


def test_environment_wins_over_override_over_file_over_default(sources):
    text = "max_retries = 1\nbackoff_base = 1.5\njitter = 0.1\n"
    first = (
        sources.load(text).with_override("max_retries", 2, "alice", 0).with_override("backoff_base", 2.5, "alice", 0)
    )
    first.write_overrides(sources.overrides)

    loaded = sources.load(environ={"QUEUECTLD_MAX_RETRIES": "3"})

    config = loaded.config
    assert (config.max_retries, config.backoff_base, config.jitter, config.max_lost) == (3, 2.5, 0.1, 3)
    assert [setting(loaded, name).origin for name in ("max_retries", "backoff_base", "jitter", "max_lost")] == [
        "environment",
        "override",
        "file",
        "default",
    ]
    assert setting(loaded, "max_retries").source == "QUEUECTLD_MAX_RETRIES"
    assert setting(loaded, "backoff_base").source == "alice, 1970-01-01T00:00:00Z"
    assert setting(loaded, "jitter").source == str(sources.file)
    assert loaded.hidden() == ("max_retries", "backoff_base")


def test_a_key_is_the_same_however_it_is_spelt(sources):
    names = ["retention.finished", "retention-finished", "retention_finished", "Retention.Finished"]

    assert {find_key(name).name for name in names} == {"retention.finished"}
    assert sources.load('[retention]\nfinished = "3d"').config.retention_finished == 259200.0
    assert sources.load("max-retries = 4").config.max_retries == 4


def test_the_variables_of_the_client_are_no_keys_of_the_daemon(sources):
    mine = {"QUEUECTL_TOKEN_FILE": "/x", "QUEUECTL_STATE_DIR": "/y", "QUEUECTL_HOST": "unix:/z", "PATH": "/bin"}

    assert sources.load(environ=mine).config == Config()


READ = [
    ("timeout", "1h30m", 5400.0),
    ("timeout", 90, 90.0),
    ("timeout", "none", None),
    ("timeout", "", None),
    ("output_limit", "64MiB", 64 << 20),
    ("output_limit", "64M", 64 << 20),
    ("output_limit", 4096, 4096),
    ("socket_mode", "0660", 0o660),
    ("socket_mode", "0o660", 0o660),
    ("socket_mode", 0o660, 0o660),
    ("workers", "auto", "auto"),
    ("workers", "3", 3),
    ("workers", 0, 0),
    ("max_retries", " 3 ", 3),
    ("jitter", "0.5", 0.5),
    ("jitter", 1, 1.0),
    ("capture_env", "no", False),
    ("capture_env", "TRUE", True),
    ("log_level", "debug", "debug"),
    ("socket_group", "none", None),
    ("shell", "/bin/bash", "/bin/bash"),
]


@pytest.mark.parametrize(("name", "given", "value"), READ)
def test_values_are_read_by_the_type_of_their_key(name, given, value):
    assert values.read_value(find_key(name), given) == value


REFUSED = [
    ("max_retries", -1, "a whole number, 0 to 1000000"),
    ("max_retries", "many", "a whole number"),
    ("max_retries", True, "a whole number"),
    ("max_retries", 1.5, "a whole number"),
    ("max_retries", None, "a whole number"),
    ("workers", "all", "auto or a whole number, 0 to 10000"),
    ("jitter", 2, "a number, 0 to 1"),
    ("jitter", float("nan"), "a number, 0 to 1"),
    ("timeout", 0, "at least 1ms, or none"),
    ("kill_after", "5M", "month or minute"),
    ("kill_after", True, "a time such as"),
    ("kill_after", -1, "a time such as"),
    ("vitals_interval", "2h", "100ms to 1h"),
    ("output_limit", "3X", "is not a size"),
    ("worker_max_memory", "1M", "at least 16 MiB"),
    ("socket_mode", "0999", "in octal"),
    ("socket_mode", "1777", "0000 to 0777"),
    ("capture_env", "maybe", "true or false"),
    ("log_level", "loud", "debug or info or warning or error"),
    ("shell", "bash", "an absolute path"),
    ("shell", None, "an absolute path"),
    ("socket", "relative/path", "an absolute path, or none"),
    ("tcp", "7000", "HOST:PORT"),
    ("retention.count", [1], "a whole number"),
]


@pytest.mark.parametrize(("name", "given", "words"), REFUSED)
def test_a_bad_value_is_refused_with_its_key_and_what_it_takes(name, given, words, sources):
    with pytest.raises(BadConfigError) as caught:
        sources.load().with_override(name, given, "alice", 0)

    assert f"`{name}` cannot be {given!r}" in caught.value.message
    assert words in caught.value.message
    assert caught.value.path == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_retires = 1", "there is no configuration key `max_retires`; did you mean `max_retries`?"),
        ("[retention]\nfinish = 1", "`retention.finish`; did you mean `retention.finished`?"),
        ("[zzz]\nyyy = 1", "there is no configuration key `zzz.yyy`"),
        ("max_retries = -1", "`max_retries` cannot be -1"),
        ("max_retries = 1\nmax-retries = 2", "`max_retries` is set twice"),
        ("jitter = 0\nmax_retries = ?\n", "not TOML: Invalid value (at line 2, column 15)"),
        (b"shell = '\xff'", "not TOML"),
        ('tcp = "127.0.0.1:7000"', "`tcp` needs `token_file`"),
        ('metrics = "0.0.0.0:9321"', "the loopback alone"),
        ('metrics = "[::]:9321"', "the loopback alone"),
        ('metrics = "example.org:9321"', "the loopback alone"),
        ('metrics = "9321"', "the loopback alone"),
        ('metrics = "metrics.sock"', "the absolute path of a Unix socket"),
        ('metrics = "127.0.0.1:0"', "ports are 1 to 65535"),
        ('metrics = "127.0.0.1:65536"', "ports are 1 to 65535"),
        ('metrics = "127.0.0.999:9321"', "no address of the loopback"),
        ('metrics_file = "/var/lib/figures"', "an absolute path that ends in .prom"),
        ("metrics_interval = 0.5", "1s"),
        ('tcp = "0.0.0.0:7000"\ntoken_file = "/t"', "without TLS"),
        ('tcp = "[::]:7000"\ntoken_file = "/t"', "without TLS"),
        ('tcp = "example.org:7000"\ntoken_file = "/t"', "set `tls_cert` and `tls_key`"),
        ('tcp = "example.org:7000"\ntoken_file = "/t"\ntls_key = "/k"', "without TLS"),
        ('tls_cert = "/c"', "`tls_cert` needs `tls_key`"),
        ('tls_client_ca = "/c"', "`tls_client_ca` needs `tls_cert`"),
        ('tcp = "127.0.0.1:70000"\ntoken_file = "/t"', "ports end at 65535"),
        ("timeout = 2026-01-01", "`timeout` cannot be"),
    ],
)
def test_an_error_in_the_file_names_the_file_and_what_is_wrong(text, words, sources):
    with pytest.raises(BadConfigError) as caught:
        sources.load(text)

    assert str(sources.file) in caught.value.message
    assert words in caught.value.message


@pytest.mark.parametrize("address", ["127.0.0.1:7000", "127.1.2.3:0", "[::1]:7000", "localhost:7000"])
def test_the_loopback_is_fine_with_a_token(address, sources):
    assert sources.load(f'tcp = "{address}"\ntoken_file = "/t"').config.tcp == address


@pytest.mark.parametrize("address", ["0.0.0.0:7000", "[::]:7000", "example.org:7000"])
def test_with_tls_and_a_token_any_address_is_fine(address, sources):
    text = f'tcp = "{address}"\ntoken_file = "/t"\ntls_cert = "/c"\ntls_key = "/k"'

    assert sources.load(text).config.tcp == address


def test_a_credential_with_the_tokens_is_used_where_no_file_is_named(sources, tmp_path):
    (tmp_path / "tcp-token").write_text("x")
    given = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert sources.load('tcp = "127.0.0.1:7000"', environ=given).config.token_file == f"{tmp_path}/tcp-token"
    assert sources.load('token_file = "/t"', environ=given).config.token_file == "/t"
    assert sources.load("", environ=given | {"CREDENTIALS_DIRECTORY": "/none"}).config.token_file is None


def test_an_error_in_the_environment_names_the_variable(sources):
    with pytest.raises(BadConfigError, match="QUEUECTLD_MAX_RETRIES: `max_retries` cannot be 'x'"):
        sources.load(environ={"QUEUECTLD_MAX_RETRIES": "x"})
    with pytest.raises(BadConfigError, match="QUEUECTLD_MAX_RETRY: there is no configuration key"):
        sources.load(environ={"QUEUECTLD_MAX_RETRY": "1"})


def test_a_file_that_somebody_named_must_be_there(sources):
    with pytest.raises(BadConfigError, match="there is no such file"):
        sources.load(required=True)


def test_a_file_that_cannot_be_read_is_an_error(sources):
    sources.file.mkdir()

    with pytest.raises(BadConfigError, match="cannot be read"):
        sources.load()


def test_an_override_lasts_and_can_be_taken_away(sources):
    changed = sources.load().with_override("retention.finished", "3d", "alice", 1_700_000_000.5)
    changed.write_overrides(sources.overrides)
    again = sources.load()

    assert again.config.retention_finished == 259200.0
    assert json.loads(sources.overrides.read_text()) == {
        "retention.finished": {"value": 259200.0, "by": "alice", "at": 1_700_000_000.5}
    }
    assert stat.S_IMODE(sources.overrides.stat().st_mode) == 0o600
    assert again.without_override("retention-finished").config == Config()
    assert again.without_override("max_retries") == again


def test_an_override_of_what_the_environment_sets_is_refused_because_it_would_do_nothing(sources):
    loaded = sources.load(environ={"QUEUECTLD_JITTER": "0.5"})

    with pytest.raises(BadConfigError, match="is set by QUEUECTLD_JITTER in the daemon's environment"):
        loaded.with_override("jitter", 0.1, "alice", 0)


def test_an_override_of_an_unknown_key_is_refused(sources):
    with pytest.raises(NoSuchKeyError, match="did you mean `jitter`"):
        sources.load().with_override("jiter", 0.1, "alice", 0)
    with pytest.raises(NoSuchKeyError):
        sources.load().without_override("jiter")
    with pytest.raises(NoSuchKeyError):
        sources.load().settings(("jiter",))


def test_an_override_cannot_break_what_belongs_together(sources):
    loaded = sources.load('tcp = "127.0.0.1:7000"\ntoken_file = "/t"')

    with pytest.raises(BadConfigError, match="needs `token_file`"):
        loaded.with_override("token_file", "none", "alice", 0)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"max_retries": 3}', '{"max_retries": {"value": 3}}', '{"nope": {"value":1,"by":"a","at":0}}'],
)
def test_damaged_overrides_are_refused_by_their_name(text, sources):
    sources.overrides.write_text(text)

    with pytest.raises(BadConfigError, match=str(sources.overrides)):
        sources.load()


def test_a_crash_while_writing_leaves_the_old_overrides(sources, monkeypatch):
    sources.load().with_override("jitter", 0.1, "alice", 0).write_overrides(sources.overrides)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))

    with pytest.raises(OSError, match="Input/output"):
        sources.load().with_override("jitter", 0.2, "alice", 0).write_overrides(sources.overrides)

    assert sources.load().config.jitter == 0.1
    assert list(sources.overrides.parent.iterdir()) == [sources.overrides]


def test_what_was_in_force_can_be_restored_without_its_files(sources):
    environ = {"QUEUECTLD_JITTER": "0.5"}
    text = "max_retries = 9\n[retention]\nfinished = '2d'"
    loaded = sources.load(text, environ).with_override("shell", "/bin/bash", "anna", 1.0).paused("bert", 2.0)
    handed = msgspec.json.decode(msgspec.json.encode(loaded.sources()), type=Sources)

    assert restore(handed, environ) == loaded


def test_what_this_version_does_not_take_is_not_restored():
    with pytest.raises(BadConfigError, match="no configuration key `invented`"):
        restore(Sources(config_file="/q.toml", file={"invented": 1}, overrides={}), {})


def test_everybody_sees_a_new_configuration_at_once_and_is_told_what_waits(sources):
    holder = Holder(sources.load())
    heard = []
    holder.listen(heard.append)

    holder.replace(sources.load('jitter = 0.5\nsocket = "/run/q.sock"\nlog_format = "json"'))

    assert holder.config.jitter == 0.5
    assert heard == [holder.config]
    assert holder.waiting() == ("socket", "log_format")


def test_auto_is_as_many_workers_as_cpus_and_at_most_eight(sources):
    assert worker_limit(sources.load("workers = 12").config) == 12
    assert worker_limit(Config()) == min(8, len(os.sched_getaffinity(0)))


def test_the_schema_has_a_row_for_every_key():
    (properties,) = (form["properties"] for form in schema()["$defs"].values())

    assert set(properties) == set(KEYS)
    assert properties["max_retries"]["default"] == 3
    assert properties["max_retries"]["maximum"] == 1_000_000


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@given(st.sampled_from(sorted(KEYS)), scalars)
def test_any_value_is_read_or_refused_and_what_was_read_is_read_again_the_same(field, value):
    key = KEYS[field]
    try:
        read = values.read_value(key, value)
    except BadConfigError as error:
        refusal = error.message
    else:
        refusal = None

    assert values.read_value(key, read) == read if refusal is None else key.name in refusal


def test_workers_that_were_stopped_come_back_as_many_as_they_were(sources):
    started = sources.load().with_override("workers", 3, "alice", 1.0)
    started.paused("bob", 2.0).paused("bob", 3.0).write_overrides(sources.overrides)
    stopped = sources.load()

    assert stopped.config.workers == 0
    assert stopped.resumed("carol", 4.0).config.workers == 3
    assert (
        sources.load("workers = 5").without_override("workers").paused("bob", 1.0).resumed("bob", 2.0).config.workers
        == 5
    )
