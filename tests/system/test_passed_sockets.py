"""Sockets that a service manager listens on, as `sd_listen_fds(3)` says, without a service manager."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire

TOKEN = "a-token-of-the-service"
# Puts the descriptors where they belong and names the process, as systemd does, then becomes the daemon.
PASS = """
import os, sys
names, descriptors = sys.argv[1], [int(word) for word in sys.argv[2].split(",")]
spare = [os.dup(number) for number in descriptors]
for number in descriptors:
    os.close(number)
for place, number in enumerate(spare, 3):
    os.dup2(number, place)
    os.set_inheritable(place, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(spare)), "LISTEN_FDNAMES": names}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """Listens, and starts a daemon to which it passes what it listens on."""

    def __init__(self, daemon: LiveDaemon, stack: ExitStack) -> None:
        self.daemon = daemon
        self._stack = stack
        self.path = daemon.home / "passed.sock"

    def listen(self, family: int, address: object, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = self._stack.enter_context(socket.socket(family, kind))
        sock.bind(address)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        sock.set_inheritable(True)
        return sock

    def control(self) -> socket.socket:
        return self.listen(socket.AF_UNIX, str(self.path))

    def start(self, passed: Mapping[str, socket.socket]) -> None:
        descriptors = ",".join(str(sock.fileno()) for sock in passed.values())
        prefix = (sys.executable, "-c", PASS, ":".join(passed), descriptors)
        self.daemon.launch(*prefix, pass_fds=tuple(sock.fileno() for sock in passed.values()))


@pytest.fixture
def manager(new_daemon: Callable[..., LiveDaemon], home: Path) -> Iterator[Manager]:
    token = home / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with ExitStack() as stack:
        yield Manager(new_daemon(token_file=str(token)), stack)


def test_it_serves_a_socket_that_is_passed_and_neither_makes_changes_nor_removes_one(manager: Manager) -> None:
    sock = manager.control()
    before = manager.path.stat()
    manager.start({"control": sock})

    with Wire(manager.path) as wire:
        assert wire.call("status")["socket"] == str(manager.path)
    assert (manager.daemon.state / "socket").read_text().strip() == str(manager.path)
    assert not manager.daemon.socket.exists()
    assert manager.daemon.stop() == 0
    after = manager.path.stat()
    assert (after.st_ino, after.st_mode, after.st_gid) == (before.st_ino, before.st_mode, before.st_gid)


def test_what_the_configuration_asks_of_a_socket_that_somebody_else_made_is_said_to_have_no_effect(
    manager: Manager,
) -> None:
    sock = manager.control()
    manager.path.chmod(0o600)
    manager.daemon.configure(socket_mode="0666")

    manager.start({"control": sock})

    Wire(manager.path).close()
    (hidden,) = [line for line in manager.daemon.log_lines() if line["event"] == "config.hidden"]
    assert (hidden["path"], hidden["keys"]) == (str(manager.path), ["socket_mode"])
    assert manager.path.stat().st_mode & 0o777 == 0o600


def test_who_connects_between_two_daemons_is_answered_by_the_second(manager: Manager) -> None:
    sock = manager.control()
    manager.start({"control": sock})
    Wire(manager.path).close()
    assert manager.daemon.stop() == 0

    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(manager.path))
        manager.start({"control": sock})
        early.settimeout(20)
        assert b'"queuectld"' in early.recv(4096)


def test_the_next_program_in_the_same_process_goes_on_with_it(manager: Manager) -> None:
    manager.start({"control": manager.control()})
    with Wire(manager.path) as wire:
        wire.enqueue("true", id="before")
        pid = wire.call("ping")["pid"]

    for _ in range(2):
        assert manager.daemon.cli("daemon", "reexec").code == 0
        with Wire(manager.path) as wire:
            assert wire.call("ping")["pid"] == pid
    # That which was passed and the one that is served, and none left over from the programs before.
    wait_for(lambda: _listening(pid, str(manager.path)) == 2, "two descriptors are open")


def _listening(pid: int, path: str) -> int:
    """Count the descriptors of a process that are of a socket which listens at a path."""
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    [number] = [words[6] for words in lines if words[-1] == path and words[3] == "00010000"]
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += str(entry.readlink()) == f"socket:[{number}]"
    return count


def test_what_it_does_not_know_is_left_alone_with_a_warning(manager: Manager) -> None:
    strange = manager.listen(socket.AF_UNIX, str(manager.daemon.home / "log.sock"), socket.SOCK_DGRAM)
    manager.start({"control": manager.control(), "log": strange})

    Wire(manager.path).close()

    [warning] = [line for line in manager.daemon.log_lines() if line["event"] == "server.strange_socket"]
    assert (warning["level"], warning["key"]) == ("warning", "log")


@pytest.mark.parametrize("name", ["control", "tcp"])
def test_what_cannot_be_what_its_name_says_ends_it_with_78_and_says_why(manager: Manager, name: str) -> None:
    manager.start({name: manager.listen(socket.AF_UNIX, str(manager.path), socket.SOCK_DGRAM)})

    assert manager.daemon.process is not None
    assert manager.daemon.process.wait(20) == 78
    assert f"`{name}` that is not" in manager.daemon.log_tail()


def test_tcp_is_served_by_name_to_who_has_the_token(manager: Manager) -> None:
    tcp = manager.listen(socket.AF_INET, ("127.0.0.1", 0))
    manager.start({"tcp": tcp, "control": manager.control()})
    token = manager.daemon.home / "token"

    def ask() -> str:
        address = f"tcp://127.0.0.1:{tcp.getsockname()[1]}"
        return manager.daemon.cli("-H", address, "--token-file", str(token), "ping").out

    assert wait_for(ask, "it answers")
    assert manager.daemon.cli("daemon", "reexec", env={"QUEUECTL_HOST": f"unix://{manager.path}"}).code == 0
    assert wait_for(ask, "it answers again")
