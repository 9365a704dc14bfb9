"""A real daemon for each test that asks for one; a test after which a process is left has failed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.witness import Witness

# Whatever a client or a job does, and whatever becomes of the disk, these are faults of ours.
SURPRISES = {"request.failed", "uncaught", "library.warning"}


@pytest.fixture
def home() -> Iterator[Path]:
    # Not pytest's own: its names grow with that of the test, and a socket's path may have 107 bytes only.
    place = Path(tempfile.mkdtemp(prefix="queuectl-test-"))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def new_daemon(home: Path) -> Iterator[Callable[..., LiveDaemon]]:
    """Make a daemon with a configuration, not started; at most one a test.

    At the end nothing of it is left, and all that it logged is as the schema of the log says.
    """
    made: list[LiveDaemon] = []

    def new(**config: Any) -> LiveDaemon:
        assert not made, "one daemon a test: they would share the state directory"
        made.append(LiveDaemon(home, **config))
        return made[0]

    yield new
    for daemon in made:
        daemon.clean()
        surprises = [line for line in daemon.log_lines() if line["event"] in SURPRISES]
        assert not surprises, f"the daemon met errors that nobody expects: {surprises}"


@pytest.fixture
def daemon(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    """A daemon with two workers that runs."""
    return new_daemon().start()


@pytest.fixture
def witness(home: Path) -> Witness:
    return Witness(home / "witness")


@pytest.fixture
def gate(home: Path) -> Gate:
    return Gate(home / "gate")
