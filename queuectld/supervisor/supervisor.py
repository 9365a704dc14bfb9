"""The heart: hands jobs to workers, hears how they end, and sees to it that nothing of an attempt outlives it.

This is the shell around pure parts: `link` decides what to do about a worker, `plan` about the pool, `demand` whether
it is worth asking the store for jobs, `recovery` what a new daemon makes of an old one's attempts. Everything here runs
on the loop; the store answers by callbacks, after its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, assert_never

import structlog

from queuectld.config import Holder, worker_limit
from queuectld.domain.attempt import Reason
from queuectld.protocol.replies import WorkerView
from queuectld.protocol.worker_messages import (
    Beat,
    Ended,
    Follow,
    FromWorker,
    Hello,
    OutputGrown,
    Running,
    Started,
)
from queuectld.service.control import ShutdownMode
from queuectld.service.hub import Hub
from queuectld.supervisor import actions
from queuectld.supervisor.adoption import Adoption
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.dispatch import Dispatcher
from queuectld.supervisor.endings import Endings
from queuectld.supervisor.health import Health, OnBeat
from queuectld.supervisor.link import Phase
from queuectld.supervisor.machine import Process
from queuectld.supervisor.records import Records
from queuectld.supervisor.stopping import Stopping
from queuectld.supervisor.views import worker_view
from queuectld.supervisor.worker import Worker
from queuectld.supervisor.world import World

log = structlog.get_logger()

# Most jobs that are short are over by then, and cost no commit of their own.
_NOTE_AFTER: Final = 0.05


class Supervisor:
    """The pool of workers and the jobs that they run. Implements `queuectld.service.control.Control`."""

    def __init__(
        self,
        records: Records,
        hub: Hub,
        config: Holder,
        world: World,
        *,
        beat: OnBeat = lambda _due, _interval: None,
    ) -> None:
        """Put the parts together; nothing happens before `start`. `beat` is called with each check of the health."""
        self._records = records
        self._config = config
        self._world = world
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._held_back = False
        self._followers = 0
        self._noting: asyncio.TimerHandle | None = None
        self._crew = Crew(world, self)
        self._health = Health(self._crew, config, world, self.replan, beat)
        self._dispatcher = Dispatcher(self, self._crew, records, config, world)
        self._stopping = Stopping(
            self._crew, config, stop=self._interrupt, retire=self._retire, waits=self._dispatcher.has_lent
        )
        self._endings = Endings(self, self._crew, records, self._dispatcher, world)
        self._adoption = Adoption(self, self._crew, records, config, world)
        self._unsubscribe = hub.subscribe(self._dispatcher.heard)

    # Start and end.

    async def start(self, *, asked: int = 0) -> None:
        """Become the subreaper, take up what an earlier daemon left, and begin to give out work.

        `asked` is what `start_workers` was told last.
        """
        self._asked = min(asked, self.limit)
        self._world.machine.become_subreaper()
        await self._adoption.take_up()
        # Not before: a worker whose attempt is not known here yet would be told to drop it.
        await self._crew.listen()
        self._health.start()
        self._dispatcher.start(await self._records.waiting())
        self.replan()
        self._stopping.ready()

    async def wait_until_stopped(self) -> None:
        """Return when a shutdown that was asked for is done, and nothing more will be submitted to the store."""
        await self._stopping.done.wait()
        self._unsubscribe()
        self._health.stop()
        if self._noting is not None:
            self._noting.cancel()
        self._dispatcher.close()
        self._crew.close()
        self._world.machine.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def claims(self) -> tuple[int, int, bool]:
        """Return how often jobs were asked for, how often that was answered, and whether it should be and is not."""
        return self._dispatcher.claims_asked, self._dispatcher.claims_answered, self._dispatcher.neglects

    # Control: what the rest of the daemon may ask.

    @property
    def draining(self) -> bool:
        """Whether the daemon is on its way out, or soon will be."""
        return self._held_back or self._stopping.begun

    @property
    def stopping(self) -> bool:
        """Whether it is decided what becomes of running jobs at the end that is near."""
        return self._stopping.begun

    def hold_back(self) -> None:
        """Begin nothing more; `shutdown` or `press` follows and says what becomes of running jobs."""
        self._held_back = True

    @property
    def limit(self) -> int:
        """How many workers may run at once, lent ones on top."""
        return worker_limit(self._config.config)

    def workers(self) -> Sequence[WorkerView]:
        """Return the pool as it is now."""
        offset = self._world.clock() - self._loop.time()
        ordered = sorted(self._crew, key=lambda worker: (len(worker.name), worker.name))
        return [worker_view(worker, since=worker.since + offset) for worker in ordered]

    @property
    def asked(self) -> int:
        """How many workers are kept whether jobs need them or not."""
        return self._asked

    def start_workers(self, count: int) -> None:
        """Keep at least `count` workers, from now on."""
        self._asked = count
        self.replan()

    def reconfigure(self) -> None:
        """Take up a changed configuration."""
        self._asked = min(self._asked, self.limit)
        self.replan()
        self._dispatcher.dispatch()

    def interrupt_all(self) -> None:
        """Send all running jobs back to their queues."""
        for worker in self._crew:
            self.act(worker, worker.link.stop(Reason.INTERRUPTED, grace=0.0, kill_after=None))

    def cancel(self, token: int, *, kill_after: float | None) -> None:
        """End a live attempt whose cancel is stored."""
        if worker := self._crew.with_token(token):
            self.act(worker, worker.link.stop(Reason.CANCELLED, grace=0.0, kill_after=kill_after))

    def signal(self, token: int, number: int) -> bool:
        """Pass a signal to the command of a live attempt."""
        worker = self._crew.with_token(token)
        actions = None if worker is None else worker.link.signal(number)
        if worker is None or actions is None:
            return False
        self.act(worker, actions)
        return True

    def held_up_by(self, token: int) -> str | None:
        """Return what keeps an attempt from ending."""
        worker = self._crew.with_token(token)
        if worker is None:
            return None
        if stuck := self._endings.stuck.get(token):
            return f"these processes do not die: {stuck}"
        if worker.connection is None:
            return f"its worker {worker.name} (process {worker.pid}) is out of touch"
        return f"its worker {worker.name} is still ending its processes"

    def follow(self, token: int, grown: Callable[[], None]) -> Callable[[], None]:
        """Call `grown` when an attempt writes output."""
        worker = self._crew.with_token(token)
        if worker is None:
            return lambda: None
        self._followers += 1
        number = self._followers
        worker.followers[number] = grown
        if len(worker.followers) == 1:
            self._crew.say(worker, Follow(token, on=True))

        def unfollow() -> None:
            if worker.followers.pop(number, None) and not worker.followers and worker.link.token == token:
                self._crew.say(worker, Follow(token, on=False))

        return unfollow

    def lend(self, token: int) -> Callable[[], None]:
        """Do not count an attempt that waits for another job."""
        take_back = self._dispatcher.lend(token)
        self._stopping.changed()

        def go_on() -> None:
            take_back()
            self._stopping.changed()

        return go_on

    def shutdown(self, mode: ShutdownMode) -> None:
        """Begin to end the daemon, or hurry."""
        self._stopping.begin(mode)

    def press(self) -> None:
        """End the daemon, as a signal asks for it; the second one skips the grace."""
        self._stopping.press()

    def problems(self, *, whole: bool = True) -> Sequence[str]:
        """Return sentences about what is wrong now; unless `whole`, without names of processes."""
        stuck = self._endings.stuck.items()
        told = [f"attempt {token} cannot be ended" + (f": {what}" if whole else "") for token, what in stuck]
        return [*self._health.problems(), *told]

    # Watcher: what workers and the kernel tell.

    def on_hello(self, worker: Worker, hello: Hello) -> None:
        """A worker connected."""
        worker.heard_at = self._loop.time()
        self._adoption.arrived(worker)
        self._health.lived(worker)
        log.debug("Worker connected", event_name="worker.ready", worker_id=worker.name, worker_pid=worker.pid)
        self.act(worker, worker.link.hello(hello))
        if worker.link.phase is Phase.RUNNING and isinstance(hello.state, Running):
            self._go_on(worker, hello.state)
        # It may be one that an earlier daemon started, and one too many.
        self.replan()

    def _go_on(self, worker: Worker, running: Running) -> None:
        """Take up an attempt where the connection before, or the daemon before, left off."""
        token = running.token
        if running.pid is not None and running.pid_start is not None:
            worker.started = (running.pid, running.pid_start)
            self._note_starts_soon()
        if worker.followers:
            self._crew.say(worker, Follow(token, on=True))
        if worker.job is None:
            self.run(self._inform(worker, token))
        else:
            self._stopping.hurry(worker)

    async def _inform(self, worker: Worker, token: int) -> None:
        """Learn what a worker that was taken over runs, and tell it what was decided about that meanwhile."""
        job = await self._records.job_of(token)
        if job is None or worker.link.token != token:
            return
        worker.job = job
        log.info("Job goes on", event_name="worker.adopted", worker_id=worker.name, job_id=job.id, token=token)
        if job.cancel_requested is not None:
            self.cancel(token, kill_after=None)
        self._stopping.hurry(worker)

    def on_message(self, worker: Worker, message: FromWorker) -> None:
        """A worker said something."""
        worker.heard_at = self._loop.time()
        match message:
            case Ended():
                self.act(worker, worker.link.ended(message))
            case Started(token=token, pid=pid, pid_start=pid_start):
                if token == worker.link.token:
                    worker.started = (pid, pid_start)
                    self._note_starts_soon()
            case OutputGrown():
                for grown in tuple(worker.followers.values()):
                    grown()
            case Beat() | Hello():
                pass
            case _:
                assert_never(message)

    def _note_starts_soon(self) -> None:
        """Store who leads the commands' sessions, once for all that started within a moment and did not end in it.

        Only a daemon that finds worker and daemon dead needs it, and that one has the marker of the command too.
        """
        if self._noting is None:
            self._noting = self._loop.call_later(_NOTE_AFTER, self._note_starts)

    def _note_starts(self) -> None:
        self._noting = None
        for worker in self._crew:
            if worker.started is not None and worker.link.token is not None and not worker.start_noted:
                worker.start_noted = True
                self._records.note_start(worker.link.token, *worker.started)

    def on_disconnect(self, worker: Worker) -> None:
        """A worker's connection has been read to the end."""
        self.act(worker, worker.link.disconnected())

    def on_death(self, worker: Worker) -> None:
        """A worker's process is gone."""
        self._health.died(worker)
        if worker.link.token is not None or not worker.link.retiring:
            self._world.note("lost")
            log.warning("Worker lost", event_name="worker.lost", worker_id=worker.name, worker_pid=worker.pid)
        if worker.link.token is not None:
            # Its job is likely to come back: a worker for it starts while what is left of the attempt is ended.
            self._dispatcher.demand.expect(1)
        self.act(worker, worker.link.died())
        self.replan()

    # Surroundings: what the parts need of the whole.

    def act(self, worker: Worker, decided: Sequence[actions.Action]) -> None:  # noqa: C901 - one case an action
        """Do what a link decided."""
        for action in decided:
            match action:
                case actions.Send(message=message):
                    self._crew.say(worker, message)
                case actions.Settle(token=token, outcome=outcome):
                    self._endings.settle(worker, token, outcome)
                case actions.Unfile(token=token):
                    self._endings.unfile(token)
                case actions.GiveBack(token=token, reason=reason, why=why):
                    self._endings.give_back(worker, token, reason, why)
                case actions.Available():
                    worker.since = self._loop.time()
                    self._dispatcher.dispatch()
                case actions.Await():
                    self._adoption.expect(worker)
                case actions.Rescue(token=token):
                    self.run(self._endings.rescue(worker, token))
                case actions.Remove():
                    self._remove(worker)
                case actions.Refuse():
                    log.warning("Worker too old", event_name="worker.refused", worker_id=worker.name)
                    self._crew.disconnect(worker)
                case _:
                    assert_never(action)
        self._stopping.changed()

    @property
    def may_start(self) -> bool:
        """Whether what was claimed may begin; where workers are left to the next daemon, that one goes on with it."""
        return self._stopping.left or (not self.draining and self.limit > 0)

    @property
    def verdict(self) -> Reason:
        """What an attempt came to whose worker died without a word."""
        return Reason.INTERRUPTED if self._stopping.overdue else Reason.LOST

    def replan(self) -> None:
        """See whether the pool should change."""
        if self._stopping.left or (self._held_back and not self._stopping.begun):
            return
        self._health.carry_out(
            bound=0 if self.draining else self._dispatcher.bound,
            asked=self._asked,
            demand=int(self._dispatcher.demand),
            spawn=self._spawn,
            retire=self._retire,
        )

    def run(self, job: asyncio._CoroutineLike[None]) -> None:
        """Run something beside the callbacks of the loop, until the supervisor ends."""
        task = self._loop.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spawn(self) -> bool:
        worker = self._crew.spawn(self._config.config.orphan_timeout)
        if worker is not None:
            self._adoption.expect(worker)
        return worker is not None

    def _retire(self, worker: Worker) -> None:
        self.act(worker, worker.link.retire())

    def _interrupt(self, worker: Worker, grace: float, kill_after: float) -> None:
        self.act(worker, worker.link.stop(Reason.INTERRUPTED, grace=grace, kill_after=kill_after))

    def _remove(self, worker: Worker) -> None:
        self._world.note("ended")
        log.info("Worker ended", event_name="worker.ended", worker_id=worker.name, worker_pid=worker.pid)
        self._crew.forget(worker)
        self._world.machine.bury(Process(worker.pid, worker.start))
        self.replan()
        self._dispatcher.dispatch()
