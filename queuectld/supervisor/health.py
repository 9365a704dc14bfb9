"""The health of the pool: readings every few seconds, and what the planner makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, assert_never

import structlog

from queuectld.config import Holder
from queuectld.host.pulse import STALL
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.link import Phase
from queuectld.supervisor.plan import Action, Kill, Picture, PoolLimits, Retire, Spawn, plan
from queuectld.supervisor.vitals import Reading, Subject
from queuectld.supervisor.worker import Worker
from queuectld.supervisor.world import World

log = structlog.get_logger()

# A worker that dies before its first word, or cannot be started: wait so long, then twice as long, up to the last.
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 30.0

# Told when a reading was due, and after how many seconds the next one comes.
OnBeat = Callable[[float, float], None]


class Health:
    """Looks at the workers, and starts, retires and kills them as the plan says."""

    def __init__(self, crew: Crew, config: Holder, world: World, replan: Callable[[], None], beat: OnBeat) -> None:
        """`replan` is called after each reading, and when a pause between starts is over; `beat` before each one."""
        self._crew = crew
        self._config = config
        self._machine = world.machine
        self._note = world.note
        self._replan = replan
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[Mapping[int, Reading | None]] | None = None
        self._due = 0.0
        # Only right after a reading that came in time: where the loop stood still, silence says nothing about workers,
        # and after that, what woke the loop may come before their beats.
        self._judge_silence = False
        self._pause = 0.0
        self._spawn_after = 0.0

    def start(self) -> None:
        """Read now and every `vitals_interval`."""
        self._due = self._loop.time() + self._config.config.vitals_interval
        self._timer = self._loop.call_at(self._due, self._read)

    def stop(self) -> None:
        """Read no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reading is not None:
            self._reading.cancel()

    def problems(self) -> Sequence[str]:
        """Return what is wrong with the pool."""
        if self._pause >= _FIRST_PAUSE * 8:
            return ["workers cannot be started, or die at once; the daemon's log and workers.log tell why"]
        return []

    # Starts.

    @property
    def may_spawn(self) -> bool:
        """Whether no pause between starts is on."""
        return self._loop.time() >= self._spawn_after

    def lived(self, worker: Worker) -> None:
        """A worker said its first word: starting them works."""
        del worker
        self._pause = 0.0

    def died(self, worker: Worker) -> None:
        """A worker died; one that never said a word makes the next start wait."""
        if worker.link.phase is Phase.STARTING:
            self._rest()

    def _rest(self) -> None:
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._spawn_after = self._loop.time() + self._pause
        self._loop.call_at(self._spawn_after, self._replan)

    # Readings.

    def _read(self) -> None:
        self._beat(self._due, self._config.config.vitals_interval)
        late = self._due + STALL
        subjects = [
            Subject(worker.pid, worker.created, worker.vitals.stuck_for if worker.vitals else 0)
            for worker in self._crew
            if not worker.link.dead
        ]
        if subjects:
            self._reading = self._loop.create_task(self._examine(subjects))
            self._reading.add_done_callback(partial(self._have_read, late))
        self.start()

    async def _examine(self, subjects: Sequence[Subject]) -> Mapping[int, Reading | None]:
        return await self._machine.examine(subjects)

    def _have_read(self, late: float, reading: asyncio.Task[Mapping[int, Reading | None]]) -> None:
        if reading.cancelled():
            return
        for worker in self._crew:
            if result := reading.result().get(worker.pid):
                worker.vitals, worker.created = result.vitals, result.created
        self._judge_silence = self._loop.time() < late
        self._replan()
        self._judge_silence = False

    # The plan, and its execution.

    def carry_out(
        self,
        *,
        bound: int,
        asked: int,
        demand: int,
        spawn: Callable[[], bool],
        retire: Callable[[Worker], None],
    ) -> None:
        """Do what the planner says about the pool as it is."""
        config = self._config.config
        limits = PoolLimits(
            bound=bound,
            asked=asked,
            demand=demand,
            heartbeat=config.heartbeat_timeout,
            idle=config.worker_idle,
            memory=config.worker_max_memory,
            descriptors=config.worker_max_files,
            judge_silence=self._judge_silence,
        )
        for action in plan([self._picture(worker) for worker in self._crew], limits):
            self._carry_out(action, spawn, retire)

    def _picture(self, worker: Worker) -> Picture:
        now = self._loop.time()
        return Picture(
            name=worker.name,
            phase=worker.link.phase,
            connected=worker.connection is not None,
            dead=worker.link.dead,
            retiring=worker.link.retiring,
            idle_for=now - worker.since if worker.link.phase is Phase.IDLE else 0.0,
            silent_for=now - worker.heard_at,
            vitals=worker.vitals,
        )

    def _carry_out(self, action: Action, spawn: Callable[[], bool], retire: Callable[[Worker], None]) -> None:
        if isinstance(action, Spawn):
            if self.may_spawn and not spawn():
                self._rest()
            return
        worker = self._crew.named(action.name)
        if worker is None or worker.link.dead:
            return
        match action:
            case Retire(why=why):
                log.info("Worker retires", event_name="worker.retired", worker_id=worker.name, reason=why)
                self._note("retired")
                retire(worker)
            case Kill(why=why):
                log.warning("Worker is sick", event_name="worker.replaced", worker_id=worker.name, reason=why)
                self._note("replaced")
                self._crew.kill(worker)
            case _:
                assert_never(action)
