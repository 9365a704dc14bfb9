"""SIGHUP: a good file is taken up, a bad one changes nothing, and what has no effect is said."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for


def reload(daemon: LiveDaemon, *events: str) -> list[dict[str, Any]]:
    """Have a daemon read its file again; return the lines about it when the named ones are there."""
    before = len(daemon.log_lines())
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)

    def told() -> list[dict[str, Any]] | None:
        lines = daemon.log_lines()[before:]
        return lines if set(events) <= {line["event"] for line in lines} else None

    return wait_for(told, f"the daemon tells {events}; its log:\n{daemon.log_tail()}")


def setting(daemon: LiveDaemon, key: str) -> tuple[Any, str]:
    with daemon.wire() as wire:
        (row,) = wire.call("config_list", keys=[key])["settings"]
    return row["value"], row["origin"]


def test_a_changed_file_is_taken_up_at_once(daemon: LiveDaemon) -> None:
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
    reload(daemon, "config.loaded")

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
def test_a_bad_file_changes_nothing_and_the_log_says_why(daemon: LiveDaemon, text: str, reason: str) -> None:
    (daemon.home / "queuectld.toml").write_bytes(("workers = 9\n" + text).encode("latin-1"))

    (line,) = reload(daemon, "config.rejected")

    assert line["level"] == "error"
    assert "queuectld.toml" in line["error"]
    assert reason in line["error"]
    with daemon.wire() as wire:
        assert wire.call("status")["limit"] == 2
        wire.call("wait", select={"ids": [wire.enqueue("true")]})


def test_a_file_that_is_gone_changes_nothing(daemon: LiveDaemon) -> None:
    (daemon.home / "queuectld.toml").unlink()

    (line,) = reload(daemon, "config.rejected")

    assert "no such file" in line["error"]
    assert setting(daemon, "workers") == (2, "file")


def test_what_an_override_hides_is_said_and_stays_hidden(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.call("config_set", key="max_retries", value=5)
    daemon.configure(workers=2, max_retries=9)

    lines = reload(daemon, "config.loaded", "config.hidden")

    (hidden,) = [line for line in lines if line["event"] == "config.hidden"]
    assert (hidden["level"], hidden["keys"]) == ("warning", ["max_retries"])
    assert setting(daemon, "max_retries") == (5, "override")


def test_keys_that_wait_for_the_next_start_are_named(daemon: LiveDaemon) -> None:
    daemon.configure(workers=2, socket_mode="0660")

    lines = reload(daemon, "config.needs_restart")

    (waiting,) = [line for line in lines if line["event"] == "config.needs_restart"]
    assert waiting["keys"] == ["socket_mode"]


def test_the_level_of_the_log_follows_the_file(daemon: LiveDaemon) -> None:
    daemon.configure(workers=2, log_level="error")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: setting(daemon, "log_level") == ("error", "file"), "the level is taken up")
    before = len(daemon.log_lines())

    with daemon.wire() as wire:
        wire.call("wait", select={"ids": [wire.enqueue("true")]})

    assert len(daemon.log_lines()) == before
