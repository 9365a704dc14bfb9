"""The crew tells its workers apart, and lets go of them when the daemon leaves them to the next one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from queuectld.protocol.worker_messages import CHANNEL_VERSION, Hello, Idle, Running
from queuectld.supervisor.crew import Crew


class Door:
    """A connection that has been made, and whose first message is read late."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def peer(self) -> tuple[int, int]:
        return 200, 0

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def abandon(self) -> None:
        """Nobody is at the other end."""


class Nobody:
    """A watcher that must not be told of anybody."""

    def on_hello(self, worker: Any, hello: Any) -> None:
        raise AssertionError(f"{worker.name} is let in: {hello}")


def machine() -> Any:
    return SimpleNamespace(
        uid=0,
        start_time=lambda _pid: 7,
        know=lambda _pid: None,
        watch=lambda _pid, _gone: SimpleNamespace(close=lambda: None),
    )


def test_a_worker_that_says_hello_after_the_end_is_turned_away_with_what_it_runs() -> None:
    async def scenario() -> tuple[Any, Door]:
        crew = Crew(SimpleNamespace(machine=machine(), store="5" * 32, clock=lambda: 0.0), Nobody())  # type: ignore[arg-type]
        door = Door()
        hello = Hello(
            protocol=CHANNEL_VERSION, store="5" * 32, name="w1", pid=200, pid_start=7, state=Running(63, 300, 8)
        )

        crew.close()
        return crew.recognise(door, hello), door

    worker, door = asyncio.run(scenario())

    assert worker is None
    assert door.sent == []


class Guests:
    """A watcher that notes who is let in."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def on_hello(self, _worker: Any, hello: Any) -> None:
        self.told.append(hello.connection)


def test_a_hello_that_is_read_after_that_of_a_later_connection_is_of_the_past() -> None:
    guests = Guests()

    async def scenario() -> list[Any]:
        crew = Crew(SimpleNamespace(machine=machine(), store="5" * 32, clock=lambda: 0.0), guests)  # type: ignore[arg-type]
        said = {"protocol": CHANNEL_VERSION, "store": "5" * 32, "name": "w1", "pid": 200, "pid_start": 7}
        doors = [(Door(), Hello(**said, state=Idle(), connection=number)) for number in (1, 3, 2, 0)]
        return [crew.recognise(door, hello) for door, hello in doors]

    first, third, second, uncounted = asyncio.run(scenario())

    assert first is third is uncounted
    assert second is None
    assert guests.told == [1, 3, 0]


class Registry:
    """Knows of its workers that they are its own, and when they die."""

    uid = 0

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.started = 7
        self.deaths: list[Any] = []

    def spawn(self, _name: str, _orphan_timeout: float) -> tuple[int, int]:
        self.started += 1
        return 200, self.started

    def start_time(self, _pid: int) -> int:
        return self.started

    def watch(self, _pid: int, gone: Any) -> Any:
        self.deaths.append(gone)
        return SimpleNamespace(close=lambda: None)

    def know(self, pid: int) -> None:
        self.known.add(pid)

    def disown(self, pid: int) -> None:
        self.known.discard(pid)


class Mourners:
    """Takes note of who dies and who comes."""

    def __init__(self) -> None:
        self.dead: list[str] = []
        self.here: list[str] = []

    def on_death(self, worker: Any) -> None:
        self.dead.append(worker.name)
        worker.link.died()

    def on_hello(self, worker: Any, _hello: Any) -> None:
        self.here.append(worker.name)


def test_a_worker_that_was_given_the_number_of_a_dead_one_is_another() -> None:
    """As long as what the dead one left is being ended, its attempt counts, and both have that number."""
    registry, mourners = Registry(), Mourners()
    counted: list[str] = []

    async def scenario() -> None:
        world = SimpleNamespace(machine=registry, store="5" * 32, clock=lambda: 0.0, note=counted.append)
        crew = Crew(world, mourners)  # type: ignore[arg-type,type-var]
        first = crew.spawn(60.0)
        assert first is not None
        first.link.claimed(63)
        second = crew.spawn(60.0)
        registry.deaths[0]()
        said = {"protocol": CHANNEL_VERSION, "store": "5" * 32, "pid": 200, "pid_start": 9, "connection": 1}
        greeted = crew.recognise(Door(), Hello(**said, name="w2", state=Idle()))

        assert list(crew) == [first, second]
        assert crew.with_token(63) is first
        assert greeted is second
        crew.forget(first)
        assert list(crew) == [second]

    asyncio.run(scenario())

    assert counted == ["started", "started"]
    assert mourners.dead == ["w1"]
    assert mourners.here == ["w2"]
    assert registry.known == {200}
