"""One worker as the daemon has it: what is known of its process, and by what it is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from queuectld.domain.job import Job
from queuectld.protocol.worker_messages import FromWorker, Hello, ToWorker
from queuectld.supervisor.link import WorkerLink
from queuectld.supervisor.plan import Vitals


class Connection(Protocol):
    """What a worker is spoken to by."""

    def send(self, message: ToWorker) -> None:
        """Say something. A broken connection swallows it, and is noticed by itself."""

    def peer(self) -> tuple[int, int]:
        """Return the process and user at the other end, as the kernel vouches for them."""

    def abandon(self) -> None:
        """Hang up, after what was sent, and report nothing more."""


class Watch(Protocol):
    """A process that is watched."""

    def kill(self) -> None:
        """SIGKILL it."""

    def close(self) -> None:
        """Watch it no more."""


@dataclass(eq=False, slots=True)
class Worker:
    """One worker process, and what the daemon knows of it. Monotonic times unless they say otherwise."""

    name: str
    pid: int
    start: int
    link: WorkerLink
    # Wall clock.
    started_at: float
    # When it came into its phase.
    since: float
    heard_at: float
    watch: Watch | None = None
    connection: Connection | None = None
    # How many it has made, by its own count.
    connections: int = 0
    job: Job | None = None
    attempt: int | None = None
    jobs_done: int = 0
    vitals: Vitals | None = None
    created: float | None = None
    # The host would not start its last command: no work before this.
    rest_until: float = 0.0
    rest: float = 0.0
    adoption: asyncio.TimerHandle | None = None
    # The leader of its command's session, and that process's start time; and whether the store knows it.
    started: tuple[int, int] | None = None
    start_noted: bool = False
    followers: dict[int, Callable[[], None]] = field(default_factory=dict)


class Watcher(Protocol):
    """Who is told."""

    def on_hello(self, worker: Worker, hello: Hello) -> None:
        """A worker connected, for the first time or again."""

    def on_message(self, worker: Worker, message: FromWorker) -> None:
        """A worker said something."""

    def on_disconnect(self, worker: Worker) -> None:
        """Its connection has been read to the end."""

    def on_death(self, worker: Worker) -> None:
        """Its process is gone; its connection may hold more to read."""
