"""The program is replaced again and again while clients work: nothing lost, nothing doubled, nothing piles up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire
from tests.system.witness import Witness

CLIENTS = 3
# Jobs that may wait at any time: enough that all workers are busy, few enough to be over soon.
AHEAD = 20


class Customer(threading.Thread):
    """Enqueues one job after the other, and each again under its key if the connection breaks before the answer."""

    def __init__(self, daemon: LiveDaemon, witness: Witness, name: str) -> None:
        super().__init__(name=name)
        self._daemon = daemon
        self._command = witness.command("sleep 0.05")
        self._over = threading.Event()
        self.acknowledged: list[str] = []
        self.reconnected = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            wire = self._daemon.wire()
            while not self._over.is_set():
                wire = self._enqueue(wire)
                wire = self._wait_a_little(wire)
            wire.close()
        except Exception as error:  # noqa: BLE001  (the test tells it)
            self.failure = error

    def _enqueue(self, wire: Wire) -> Wire:
        name = f"{self.name}-{len(self.acknowledged)}"
        wire, _ = self._ask(wire, "enqueue", jobs=[{"command": self._command, "id": name}], request=name)
        self.acknowledged.append(name)
        return wire

    def _wait_a_little(self, wire: Wire) -> Wire:
        """Wait until not too many are ahead."""
        if len(self.acknowledged) > AHEAD:
            wire, _ = self._ask(wire, "wait", select={"ids": [self.acknowledged[-AHEAD]]})
        return wire

    def _ask(self, wire: Wire, op: str, **fields: object) -> tuple[Wire, dict[str, object]]:
        while True:
            try:
                reply = wire.call(op, **fields)
            except OSError:
                wire.close()
                wire = self._reconnect()
                continue
            if not reply.get("stopped"):
                return wire, reply

    def _reconnect(self) -> Wire:
        while True:
            try:
                wire = self._daemon.wire()
            except ConnectionError:
                # It was let in, and the program was replaced before it was greeted.
                continue
            self.reconnected += 1
            return wire

    def stop(self) -> None:
        self._over.set()
        self.join()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [int(os.environ.get("QUEUECTL_TESTS_REEXECS", "20"))])
def test_nothing_is_lost_doubled_or_leaked(new_daemon: Callable[..., LiveDaemon], witness: Witness, times: int) -> None:
    daemon = new_daemon(workers=3).start()
    before = daemon.pid, daemon.socket.stat().st_ino
    renewed(daemon)
    files = files_of_its_own(daemon)
    customers = [Customer(daemon, witness, f"c{number}") for number in range(CLIENTS)]
    for customer in customers:
        customer.start()

    for _ in range(times):
        reexec(daemon)

    for customer in customers:
        customer.stop()
    assert [customer.failure for customer in customers] == [None] * CLIENTS
    acknowledged = [name for customer in customers for name in customer.acknowledged]
    wait_for(lambda: set(daemon.counts()) == {"completed"}, "all jobs are over", deadline=120)
    with daemon.wire() as wire:
        assert sorted(wire.ids()) == sorted(acknowledged)
    runs = {name: [event.split()[1] for event in events] for name, events in witness.runs().items()}
    assert runs == {name: ["start", "end"] for name in acknowledged}
    assert (daemon.pid, daemon.socket.stat().st_ino) == before
    renewed(daemon)
    wait_for(lambda: files_of_its_own(daemon) == files, f"it has {files} files open, as in the beginning")
    assert zombies(daemon.pid) == []
    assert sum(customer.reconnected for customer in customers) > times


def reexec(daemon: LiveDaemon) -> None:
    """Have the program replaced, and wait until the next one works with a worker again."""
    with daemon.wire() as wire:
        done = len(wire.ids("completed"))
        wire.call("reexec")
    with daemon.wire() as wire:
        wait_for(lambda: len(wire.ids("completed")) > done or not wire.ids("pending", "processing"), "it goes on")


def renewed(daemon: LiveDaemon) -> None:
    """Replace the program; of the new one nothing is asked but whether its workers are back."""
    with daemon.wire() as wire:
        wire.call("reexec")
    wait_for(lambda: {worker["phase"] for worker in daemon.workers()} == {"idle"}, "all workers are back")
    wait_for(lambda: watches(daemon), "it watches its spool, which it takes its time for")


def watches(daemon: LiveDaemon) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any("inotify" in str(file.readlink()) for file in Path(f"/proc/{daemon.process.pid}/fd").iterdir())
    return False


def files_of_its_own(daemon: LiveDaemon) -> int:
    """Return how many files it has open, but for those by which each worker is watched and spoken to."""
    return len(list(Path(f"/proc/{daemon.process.pid}/fd").iterdir())) - 2 * len(daemon.workers())


def zombies(pid: int) -> list[str]:
    children = [(task / "children").read_text().split() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [child for some in children for child in some if not processes.alive(int(child))]
