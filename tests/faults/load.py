"""Clients that use the daemon while it is attacked: what they sent, what was acknowledged, and what they were told."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from queuectld.worker import cgroups
from tests.system.livedaemon import LiveDaemon
from tests.system.wire import RefusedError, Wire
from tests.system.witness import Witness

# No attempt that is lost or killed may use up the tries of a job that would succeed.
MANY: Final = 1000
# Seconds between two looks at something that nobody tells of.
_PAUSE: Final = 0.01

# What a daemon says that cannot do it now, and the client tries again. `internal` is found in its log, too.
_PASSING: Final = frozenset({"disk_full", "draining", "store", "store_damaged", "internal", "too_many_clients"})


class Kind(NamedTuple):
    """A sort of job: what it does, and how it ends if nobody cancels it."""

    body: str
    state: str = "completed"
    max_retries: int = MANY


def kinds(home: Path) -> dict[str, Kind]:
    # Its arguments name the directory of the test, so that it is found if it survives.
    lasting = f"sh -c 'while :; do sleep 1; done' {home}"
    return {
        "good": Kind("echo said; sleep 0.02"),
        "quick": Kind("echo said"),
        "long": Kind("sleep 0.3; echo said"),
        "bad": Kind("(exit 7)", "dead", max_retries=1),
        "wobbly": Kind("echo said; [ $QUEUECTL_ATTEMPT -gt 1 ]"),
        # Leaves processes behind: one in its own session, one that stays.
        "tree": Kind(f"setsid {lasting} & {lasting} & sleep 0.05; echo said"),
    } | ({"fugitive": Kind(f"(cd /; setsid env -i {lasting} &); sleep 0.05; echo said")} if _cgroups() else {})


@cache
def _cgroups() -> bool:
    """Whether what belongs to a job is told by its cgroup; else a fugitive may survive its worker and its daemon."""
    place = cgroups.own()
    return place is not None and os.access(place, os.W_OK)


class Told(NamedTuple):
    """What a client was told of the end of a job."""

    state: str
    exit_code: int | None
    attempts: int


class Ledger:
    """What clients know. Written by one thread each, read when they have finished."""

    def __init__(self) -> None:
        # Job to its kind: of everything that was sent, and of what was acknowledged.
        self.sent: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        # Jobs that somebody asked to cancel, and those of which the cancelling was acknowledged.
        self.doomed: set[str] = set()
        self.cancelled: set[str] = set()
        self.waited: dict[str, Told] = {}
        # By their numbers.
        self.events: dict[int, dict[str, Any]] = {}
        # What was told twice, differently, or in the wrong order.
        self.contradictions: list[str] = []


class Client(threading.Thread):
    """Does something over and over, on a new connection after each that breaks."""

    def __init__(self, daemon: LiveDaemon, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._daemon = daemon
        self.over = threading.Event()
        self.failed: Exception | None = None
        self._wire: Wire | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                try:
                    with self._daemon.wire() as self._wire:
                        self.talk(self._wire)
                except (OSError, ValueError):
                    # `ValueError`: half a line, of a daemon that died while it wrote.
                    time.sleep(_PAUSE)
                except RefusedError as error:
                    if error.code not in _PASSING:
                        raise
                    time.sleep(_PAUSE)
        except Exception as error:  # noqa: BLE001 - told by `finish`, in the thread that can do something about it
            self.failed = error

    def talk(self, wire: Wire) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Let it end; raises what ended it before."""
        self.over.set()
        self.join(60)
        if self.failed is not None:
            raise self.failed
        assert not self.is_alive(), f"client {self.name} does not end"


class Submitter(Client):
    """Sends jobs of all kinds, each under a key so that it may send it again; cancels some, and waits for some."""

    def __init__(self, daemon: LiveDaemon, witness: Witness, ledger: Ledger, name: str, luck: random.Random) -> None:
        super().__init__(daemon, name)
        self._ledger, self._luck, self._number = ledger, luck, 0
        self._kinds = kinds(daemon.home)
        self._commands = {name: witness.command(kind.body) for name, kind in self._kinds.items()}
        # Seconds from one job to the next; short ones fill the queue.
        self.pace = 0.03
        self._next: str | None = None

    def talk(self, wire: Wire) -> None:
        while not self.over.is_set():
            name = self._next or self._draw()
            self._send(wire, name)
            self._next = None
            fate = self._luck.random()
            if fate < 0.06:
                self._cancel(wire, name)
            elif fate < 0.25:
                self._wait(wire, name)
            self.over.wait(self._luck.uniform(0, 2 * self.pace))

    def _draw(self) -> str:
        self._number += 1
        self._next = f"{self.name}-{self._number}"
        self._ledger.sent[self._next] = self._luck.choice(list(self._kinds))
        return self._next

    def _send(self, wire: Wire, name: str) -> None:
        kind = self._ledger.sent[name]
        job = {
            "id": name,
            "command": self._commands[kind],
            "max_retries": self._kinds[kind].max_retries,
            "backoff_base": 0.05,
            "kill_after": 0.3,
        }
        wire.call("enqueue", jobs=[job], request=name)
        self._ledger.acknowledged[name] = kind

    def _cancel(self, wire: Wire, name: str) -> None:
        self._ledger.doomed.add(name)
        try:
            done = wire.call("cancel", select={"ids": [name]})
        except RefusedError as error:
            if error.code != "wrong_state":
                raise
        else:
            if name in done["jobs"] and not done["pending"]:
                self._ledger.cancelled.add(name)

    def _wait(self, wire: Wire, name: str) -> None:
        for told in wire.stream("wait", select={"ids": [name]}):
            self._ledger.waited[name] = Told(told["state"], told["exit_code"], told["attempts"])


class Follower(Client):
    """Reads all events from the first one on, and notes where they contradict what it was told before."""

    def __init__(self, daemon: LiveDaemon, ledger: Ledger, name: str = "follower") -> None:
        super().__init__(daemon, name)
        self._events, self._contradictions = ledger.events, ledger.contradictions
        self._next = 1

    def talk(self, wire: Wire) -> None:
        # The last one is asked for again: it must still be there, and the same.
        for event in wire.stream("events", start=max(1, self._next - 1), follow=True):
            self._note(event)
            if self.over.is_set():
                return

    def _note(self, event: dict[str, Any]) -> None:
        number = event["number"]
        before = self._events.setdefault(number, event)
        if before != event:
            self._contradictions.append(f"event {number} was {before}, and is {event}")
        if number > self._next or event.get("gap"):
            self._contradictions.append(f"event {number} came where {self._next} was due")
        self._next = max(self._next, number + 1)

    def finish(self) -> None:
        # It may be waiting for an event.
        self.over.set()
        if self._wire is not None:
            self._wire.hang_up()
        super().finish()


class Load:
    """Several clients at once, with what they know."""

    def __init__(self, daemon: LiveDaemon, witness: Witness, luck: random.Random, submitters: int = 3) -> None:
        self.ledger = Ledger()
        self._daemon = daemon
        self._make: Callable[[str], Submitter] = lambda name: Submitter(
            daemon, witness, self.ledger, name, random.Random(luck.random())
        )
        self._clients: list[Client] = []
        self._count, self._round = submitters, 0

    def __enter__(self) -> Self:
        self._round += 1
        submitters = [self._make(f"r{self._round}c{number}") for number in range(self._count)]
        self._clients = [Follower(self._daemon, self.ledger), *submitters]
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for client in self._clients:
            client.over.set()
        if kind is not None:
            # Nobody may be there to answer them; they end with the process.
            return
        for client in self._clients:
            client.finish()
