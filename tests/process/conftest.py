"""One end alone: the server of the daemon without workers, or workers without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.fake_daemon import FakeDaemon
from tests.process.server_rig import Client, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server on a thread of its own."""
    with Rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def client(rig: Rig) -> Client:
    """A client of it that has been greeted."""
    return rig.connect()


@pytest.fixture
def fake_daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A daemon, no worker yet."""
    daemon = FakeDaemon(tmp_path)
    try:
        yield daemon
    finally:
        daemon.clean_up()


@pytest.fixture
def daemon(fake_daemon: FakeDaemon) -> FakeDaemon:
    """A daemon with one worker that waits for work."""
    fake_daemon.start_worker()
    return fake_daemon
