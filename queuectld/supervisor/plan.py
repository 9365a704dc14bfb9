"""What the pool of workers needs, decided from a picture of it. Pure: the picture in, the to-do list out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from queuectld.supervisor.link import Phase

# States of /proc/N/stat of a process that does not get on: zombie, dead, stopped by a signal or a debugger.
_STUCK: Final = frozenset("ZXTt")


class Vitals(NamedTuple):
    """One reading of a worker process. `state` is the letter of /proc/N/stat; memory is resident, in bytes."""

    state: str
    memory: int
    descriptors: int
    cpu_seconds: float
    # Consecutive readings in uninterruptible sleep.
    stuck_for: int = 0


class Picture(NamedTuple):
    """A worker as the planner sees it. Times are seconds."""

    name: str
    phase: Phase
    connected: bool = True
    # Its process is gone; what is left of its attempt is being ended.
    dead: bool = False
    retiring: bool = False
    idle_for: float = 0.0
    silent_for: float = 0.0
    vitals: Vitals | None = None


class PoolLimits(NamedTuple):
    """What the pool is held to."""

    # Workers that may run at once, lent ones on top.
    bound: int
    # Workers that are kept even if nothing needs them.
    asked: int
    # Startable jobs that are known to have no worker.
    demand: int
    heartbeat: float
    # Idle workers end after this, but for one.
    idle: float
    memory: int
    descriptors: int
    # False right after the loop itself stalled: then silence says nothing about workers.
    judge_silence: bool = True


class Spawn(NamedTuple):
    """Start a worker."""


class Retire(NamedTuple):
    """Let a worker end after its job."""

    name: str
    why: str


class Kill(NamedTuple):
    """End a worker at once; its job is rescued."""

    name: str
    why: str


Action = Spawn | Retire | Kill


def plan(workers: Sequence[Picture], limits: PoolLimits) -> list[Action]:
    """Kill the sick, retire the bloated and the surplus, start the missing."""
    living = [worker for worker in workers if worker.phase is not Phase.GONE and not worker.dead]
    kills = {worker.name: Kill(worker.name, why) for worker in living if (why := _sickness(worker, limits))}
    staying = [worker for worker in living if not worker.retiring and worker.name not in kills]
    bloated = {worker.name: Retire(worker.name, why) for worker in staying if (why := _bloat(worker, limits))}
    staying = [worker for worker in staying if worker.name not in bloated]
    surplus = _surplus(staying, limits)
    missing = _missing(len(staying) - len(surplus), staying, limits, occupied=len(living) - len(kills))
    return [*kills.values(), *bloated.values(), *surplus, *(Spawn() for _ in range(missing))]


def _sickness(worker: Picture, limits: PoolLimits) -> str | None:
    vitals = worker.vitals
    if vitals is not None and vitals.state in _STUCK:
        return f"its process is in state {vitals.state}"
    if vitals is not None and vitals.stuck_for >= 3:
        return "it is stuck in the kernel"
    if limits.judge_silence and worker.connected and worker.silent_for > limits.heartbeat:
        return f"no sign of life for {worker.silent_for:.0f} s"
    return None


def _bloat(worker: Picture, limits: PoolLimits) -> str | None:
    if worker.vitals is None:
        return None
    if worker.vitals.memory > limits.memory:
        return f"it uses {worker.vitals.memory} bytes of memory"
    if worker.vitals.descriptors > limits.descriptors:
        return f"it has {worker.vitals.descriptors} files open"
    return None


def _surplus(staying: Sequence[Picture], limits: PoolLimits) -> list[Retire]:
    """Too many for the bound, the idle ones first; and those that have been idle for long."""
    # Idle before busy, and among the idle the one that has rested longest.
    ranked = sorted(staying, key=lambda worker: (worker.phase is Phase.IDLE, worker.idle_for), reverse=True)
    too_many = max(0, len(staying) - limits.bound)
    surplus = [Retire(worker.name, "the bound of workers is lower") for worker in ranked[:too_many]]
    keep = max(1, min(limits.asked, limits.bound))
    spare = max(0, len(staying) - too_many - keep)
    tired = [worker for worker in ranked[too_many:] if worker.phase is Phase.IDLE and worker.idle_for > limits.idle]
    return surplus + [Retire(worker.name, "nothing to do") for worker in tired[:spare]]


def _missing(count: int, staying: Sequence[Picture], limits: PoolLimits, *, occupied: int) -> int:
    """How many to start: enough for the demand that nobody is free for, at least one, within the bound."""
    free = sum(worker.phase in {Phase.IDLE, Phase.STARTING, Phase.CLAIMING} for worker in staying)
    wanted = max(count + max(0, limits.demand - free), min(limits.asked, limits.bound), 1)
    # Retiring workers that still run a job count against the bound, or more than that would run at once.
    room = limits.bound - max(count, occupied)
    return max(0, min(wanted - count, room))
