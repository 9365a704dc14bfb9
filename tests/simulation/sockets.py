"""Connections between workers and a daemon: in order, late, cut off; what was sent outlives its sender."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from queuectld.protocol.codec import encode
from queuectld.protocol.worker_messages import FromWorker, Hello, ToWorker
from queuectld.supervisor.machine import Reception
from queuectld.supervisor.worker import Worker
from tests.simulation.host import Process
from tests.simulation.scheduler import ActorLoop, Scheduler

_END: Final = object()


class Pipe:
    """One direction."""

    def __init__(
        self, scheduler: Scheduler, dice: random.Random, reader: Process, take: Callable[[Any], None], name: str
    ) -> None:
        self._scheduler, self._dice, self._reader, self._take = scheduler, dice, reader, take
        self.name = name
        self.queue: deque[Any] = deque()
        self._last = 0.0
        # Until when its reader, which stood still, is busy with other connections first.
        self._busy_until = 0.0
        self._woken = 0.0
        self._ended = False
        # The reader has closed its end.
        self.deserted = False

    def put(self, message: Any) -> None:
        if self._ended or self.deserted:
            return
        late = 0.2 if self._dice.random() < 0.02 else 0.001
        self._last = max(self._last, self._scheduler.now + self._dice.random() * late)
        # As it comes out at the other end.
        self.queue.append(message if message is _END else msgspec.json.decode(encode(message), type=type(message)))
        self._scheduler.at(self._last, self._deliver, self._reader)

    def end(self) -> None:
        self.put(_END)
        self._ended = True

    def cut(self) -> None:
        """End it in the middle of what is on its way."""
        for _ in range(self._dice.randint(0, len(self.queue)) if self._dice.random() < 0.5 else 0):
            self.queue.pop()
        self._ended = False
        self.end()

    def _deliver(self) -> None:
        now = self._scheduler.now
        if self._reader.woken > self._woken:
            self._woken = self._reader.woken
            self._busy_until = now + self._dice.random() * 0.1
        if now < self._busy_until:
            self._scheduler.at(self._busy_until, self._deliver, self._reader)
        elif self.queue and not self.deserted:
            message = self.queue.popleft()
            self._take(None if message is _END else message)


class Connection:
    """A connection on the worker socket. Its daemon's end implements `queuectld.supervisor.worker.Connection`."""

    def __init__(
        self,
        scheduler: Scheduler,
        dice: random.Random,
        loop: ActorLoop,
        ends: tuple[Process, Process],
        reception: Reception,
        told: Callable[[Connection, ToWorker | None], None],
    ) -> None:
        """`ends` are worker and daemon; `told` takes what comes to the worker, None at the end."""
        self.worker, self.daemon = ends
        self._loop, self._reception = loop, reception
        self._known: Worker | None = None
        self.up = Pipe(scheduler, dice, self.daemon, self._heard, "up")
        self.down = Pipe(scheduler, dice, self.worker, lambda message: told(self, message), "down")
        # Who writes to the daemon's end; the world checks what is said.
        self.said: Callable[[Connection, ToWorker], bool] = lambda _connection, _message: True

    # The daemon's end.

    def _heard(self, message: FromWorker | None) -> None:
        self._loop.within(self._take, message)

    def _take(self, message: FromWorker | None) -> None:
        try:
            if message is None:
                if self._known is not None and self._known.connection is self:
                    self._reception.lost(self._known)
                self._hang_up()
            elif isinstance(message, Hello):
                self._known = self._reception.recognise(self, message)
                if self._known is None:
                    self._hang_up()
            elif self._known is not None:
                self._reception.heard(self._known, message)
        except Exception as error:  # noqa: BLE001 - a fault of the product, and to be told as one
            self._loop.fail(error)

    def send(self, message: ToWorker) -> None:
        if self.daemon.alive and self.said(self, message):
            self.down.put(message)

    def peer(self) -> tuple[int, int]:
        return self.worker.pid, 0

    def abandon(self) -> None:
        self._known = None
        if self.daemon.alive:
            self._hang_up()

    def _hang_up(self) -> None:
        self.up.deserted = True
        self.down.end()

    # What happens to it.

    def daemon_died(self) -> None:
        self.up.deserted = True
        self.down.end()

    def worker_left(self) -> None:
        self.down.deserted = True
        self.up.end()

    def cut(self) -> None:
        self.up.cut()
        self.down.cut()
