from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from queuectl_cli.main import main
from tests.cli.scripted import Called, FakeDaemon


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path) -> None:
    for name in list(os.environ):
        if name.startswith("QUEUECTL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("QUEUECTL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("QUEUECTL_AUTOSTART", "0")
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def daemon(tmp_path) -> Iterator[FakeDaemon]:
    (tmp_path / "state").mkdir()
    fake = FakeDaemon(str(tmp_path / "state" / "queuectl.sock"))
    yield fake
    fake.close()
    assert fake.faults == []


@pytest.fixture
def call(capfd) -> Callable[..., Called]:
    def call(*args: str) -> Called:
        status = main(list(args))
        captured = capfd.readouterr()
        return Called(status, captured.out, captured.err)

    return call


@pytest.fixture
def on_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr("queuectl_cli.render.Output.person", property(lambda self: self.format in {"table", "wide"}))


@pytest.fixture
def stdin(monkeypatch, tmp_path) -> Iterator[Callable[[bytes], None]]:
    """Put bytes on descriptor 0."""
    saved = os.dup(0)

    def put(data: bytes) -> None:
        path = tmp_path / "stdin"
        path.write_bytes(data)
        descriptor = os.open(path, os.O_RDONLY)
        os.dup2(descriptor, 0)
        os.close(descriptor)

    yield put
    os.dup2(saved, 0)
    os.close(saved)
