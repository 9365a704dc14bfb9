"""A good file is taken up, a bad one changes nothing, and what has no effect is said."""

from __future__ import annotations

import getpass
import json
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for


@pytest.fixture(params=["signal", "request", "change"])
def way(request: pytest.FixtureRequest) -> str:
    """How a daemon comes to read its file again."""
    return request.param


@pytest.fixture
def daemon(new_daemon: Callable[..., LiveDaemon], way: str) -> LiveDaemon:
    daemon = new_daemon()
    daemon.env["QUEUECTLD_WATCH_CONFIG"] = str(way == "change")
    return daemon.start()


@pytest.fixture
def reload(way: str) -> Callable[..., list[dict[str, Any]]]:
    """Have a daemon read its file again; return what it tells since it was ready, when the named events are there."""
    return partial(_reload, way)


def _reload(way: str, daemon: LiveDaemon, *events: str) -> list[dict[str, Any]]:
    match way:
        case "signal":
            assert daemon.process is not None
            daemon.process.send_signal(signal.SIGHUP)
        case "request":
            with daemon.wire() as wire:
                wire.send("reload")
                wire.line()

    def told() -> list[dict[str, Any]] | None:
        # That somebody asked for it is told besides.
        lines = [line for line in daemon.log_lines() if line["event"] != "audit.request"]
        begin = [line["event"] for line in lines].index("daemon.ready") + 1
        return lines[begin:] if set(events) <= {line["event"] for line in lines[begin:]} else None

    return wait_for(told, f"the daemon tells {events}; its log:\n{daemon.log_tail()}")


def setting(daemon: LiveDaemon, key: str) -> tuple[Any, str]:
    with daemon.wire() as wire:
        (row,) = wire.call("config_list", keys=[key])["settings"]
    return row["value"], row["origin"]


def test_a_changed_file_is_taken_up_at_once(daemon: LiveDaemon, reload) -> None:
    daemon.configure(workers=3, max_retries=7)
    reload(daemon, "config.loaded")

    assert setting(daemon, "max_retries") == (7, "file")
    with daemon.wire() as wire:
        assert wire.call("status")["limit"] == 3


def test_more_workers_take_the_jobs_that_wait(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(workers=0).start()
    with daemon.wire() as wire:
        waiting = wire.enqueue("true")

    daemon.configure(workers=1)
    _reload("request", daemon, "config.loaded")

    daemon.wait_for_state(waiting, "completed")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_retries = -1\n", "max_retries"),
        ("max_retris = 1\n", "did you mean"),
        ("max_retries = \n", "not TOML"),
        ("max_retries = 1\nmax-retries = 2\n", "twice"),
        ("\xff", "not TOML"),
    ],
)
def test_a_bad_file_changes_nothing_and_the_log_says_why(daemon: LiveDaemon, reload, text: str, reason: str) -> None:
    (daemon.home / "queuectld.toml").write_bytes(("workers = 9\n" + text).encode("latin-1"))

    (line,) = reload(daemon, "config.rejected")

    assert line["level"] == "error"
    assert "queuectld.toml" in line["error"]
    assert reason in line["error"]
    with daemon.wire() as wire:
        assert wire.call("status")["limit"] == 2
        wire.call("wait", select={"ids": [wire.enqueue("true")]})


def test_a_file_that_is_gone_changes_nothing(daemon: LiveDaemon, reload) -> None:
    (daemon.home / "queuectld.toml").unlink()

    (line,) = reload(daemon, "config.rejected")

    assert "no such file" in line["error"]
    assert setting(daemon, "workers") == (2, "file")


def test_what_an_override_hides_is_said_and_stays_hidden(daemon: LiveDaemon, reload) -> None:
    with daemon.wire() as wire:
        wire.call("config_set", key="max_retries", value=5)
    daemon.configure(workers=2, max_retries=9)

    lines = reload(daemon, "config.loaded", "config.hidden")

    (hidden,) = [line for line in lines if line["event"] == "config.hidden"]
    assert (hidden["level"], hidden["keys"]) == ("warning", ["max_retries"])
    assert setting(daemon, "max_retries") == (5, "override")


def test_keys_that_wait_for_the_next_start_are_named(daemon: LiveDaemon, reload) -> None:
    daemon.configure(workers=2, socket_mode="0660")

    lines = reload(daemon, "config.needs_restart")

    (waiting,) = [line for line in lines if line["event"] == "config.needs_restart"]
    assert waiting["keys"] == ["socket_mode"]


def test_the_level_of_the_log_follows_the_file(daemon: LiveDaemon) -> None:
    daemon.configure(workers=2, log_level="error")
    with daemon.wire() as wire:
        wire.call("reload")
    wait_for(lambda: setting(daemon, "log_level") == ("error", "file"), "the level is taken up")
    before = len(daemon.log_lines())

    with daemon.wire() as wire:
        wire.call("wait", select={"ids": [wire.enqueue("true")]})

    assert len(daemon.log_lines()) == before


def test_a_bad_file_is_a_problem_in_the_status_until_it_is_corrected(daemon: LiveDaemon, reload) -> None:
    daemon.configure(max_retries=-1)
    reload(daemon, "config.rejected")
    with daemon.wire() as wire:
        (problem,) = wire.call("status")["problems"]
    assert "`max_retries` cannot be -1" in problem

    daemon.configure(max_retries=1)
    reload(daemon, "config.loaded")

    with daemon.wire() as wire:
        assert wire.call("status")["problems"] == []


# What a person sees.


def test_a_person_is_told_what_changed_at_once_and_what_waits(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.cli("config", "set", "jitter", "0.5")
    daemon.configure(workers=2, max_retries=7, socket_mode="0660", jitter=0.1)

    done = daemon.cli("daemon", "reload")

    assert (done.code, done.out.splitlines()[0]) == (0, f"Read {daemon.home}/queuectld.toml.")
    assert "max_retries is now 7 (from: file)" in done.out
    assert "socket_mode takes effect when the daemon starts again" in done.out
    assert "jitter in the file has no effect" in done.out
    assert "No key that takes effect at once has changed; the tokens" in daemon.cli("daemon", "reload").out
    again = json.loads(daemon.cli("daemon", "reload", "--json").out)
    assert (again["changed"], again["needs_restart"], again["hidden"]) == ([], ["socket_mode"], ["jitter"])


def test_a_person_is_told_why_a_file_is_refused(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.configure(max_retries=-1)

    done = daemon.cli("daemon", "reload")

    assert (done.code, done.out) == (78, "")
    assert f"{daemon.home}/queuectld.toml: `max_retries` cannot be -1" in done.err
    assert "! the configuration is not valid" in daemon.cli("status").out


def test_who_asked_is_in_the_history(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon().start()
    daemon.cli("daemon", "reload")

    with daemon.wire() as wire:
        (event,) = wire.stream("events", start=0)

    assert (event["event"], event["by"]) == ("config.loaded", getpass.getuser())
