"""How the daemon is, with figures that cost a few rows however many jobs there are."""

from __future__ import annotations

from typing import Final, NamedTuple

from msgspec.structs import replace

from queuectld.domain.job import VISIBLE
from queuectld.protocol.replies import Isolation, LoopView, QueueView, Status
from queuectld.protocol.words import VERSION
from queuectld.service.views import iso
from queuectld.store.base import Reader

_VEILED: Final = "something is wrong, which is told only to those who may use this queue"


class Basis(NamedTuple):
    """What the running daemon knows of itself. Times are wall clock, in seconds."""

    pid: int
    user: str
    draining: bool
    started_at: float
    socket: str
    state_dir: str
    store: str
    config_file: str | None
    workers: int
    limit: int
    problems: tuple[str, ...]
    isolation: Isolation
    loop: LoopView
    service_manager: str | None
    connections: int
    now: float


def outline(store: Reader, basis: Basis) -> Status:
    """Return what whoever can connect may know: that the daemon is there, and how it gets on; no names, no places."""
    return replace(
        report(store, basis),
        state_dir="",
        store="",
        config_file=None,
        queues=(),
        next_due=None,
        oldest_waiting=None,
        problems=(_VEILED,) if basis.problems else (),
        isolation=Isolation(cgroup=None, controllers=(), reason="not told to strangers"),
    )


def report(store: Reader, basis: Basis) -> Status:
    """Put together what the daemon knows and what the store holds."""
    counts, next_due = store.counts(), store.next_due()
    queues = tuple(
        QueueView(name=name, states={state.value: counts.get(name, {}).get(state, 0) for state in VISIBLE})
        for name in sorted({*store.queues(), *counts})
    )
    first_due = store.first_due().values()
    return Status(
        version=VERSION,
        pid=basis.pid,
        user=basis.user,
        phase="draining" if basis.draining else "running",
        started_at=iso(basis.started_at),
        uptime=round(max(0.0, basis.now - basis.started_at), 3),
        socket=basis.socket,
        state_dir=basis.state_dir,
        store=basis.store,
        config_file=basis.config_file,
        workers=basis.workers,
        limit=basis.limit,
        states={state.value: sum(queue.states[state.value] for queue in queues) for state in VISIBLE},
        queues=queues,
        next_due=None if next_due is None else iso(next_due),
        oldest_waiting=round(max(0.0, basis.now - min(first_due)), 3) if first_due else None,
        problems=basis.problems,
        isolation=basis.isolation,
        loop=basis.loop,
        service_manager=basis.service_manager,
        connections=basis.connections,
    )
