"""A worker process: the real `Channel`, driven as the worker's loop drives it, with commands that are not there."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from queuectld.protocol import worker_messages as wire
from queuectld.worker import actions as acts
from queuectld.worker.channel import Channel, Identity
from queuectld.worker.ending import Ending, Stage
from queuectld.worker.kept import Kept
from queuectld.worker.tree import members
from tests.simulation.host import STORE, Process
from tests.simulation.sockets import Connection

if TYPE_CHECKING:
    from tests.simulation.world import World

_NEVER: Final = float("inf")
# What a command may exceed.
_LIMITS: Final = (wire.Reason.OUT_OF_MEMORY, wire.Reason.CPU_LIMIT, wire.Reason.OUTPUT_LIMIT)


class Command:
    """A command that runs, with all that it started."""

    def __init__(self, worker: SimWorker, token: int, spec: wire.RunSpec) -> None:
        self.worker, self.world, self.token, self.spec = worker, worker.world, token, spec
        self.dice = worker.world.dice
        self.began = self.world.clock()
        self.announced = False
        self.over = False
        now = self.world.scheduler.now
        self.ending = Ending(now, spec.timeout, spec.kill_after, spec.silent_timeout)
        self.leader = self.world.host.fork(worker.process.pid, "leader", token)
        self.leader.deaf = self._lucky(0.15)
        self.reaped = False
        self.leader.watchers.append(self._leader_died)
        # The truth about what it wrote: what its worker has read is in the file.
        self.world.disk.output[token] = 0
        if self._lucky(0.4):
            self._soon(self._fork, 0.1)
        for _ in range(self.dice.randint(0, 3)):
            self._soon(self._write, 1.0)
        if self._lucky(0.04):
            self._soon(partial(self._exceed, self.dice.choice(_LIMITS)), 3.0)
        self._soon(self._announce, 0.02)
        # Whether it ends by itself.
        self.endless = not self.world.calm and self._lucky(0.03)
        if not self.endless:
            long = 1.0 if self.world.calm else self.dice.choice((0.01, 0.1, 1.0, 5.0, 20.0))
            code = 0 if self._lucky(0.6) else self.dice.choice((1, 2, 99))
            self.world.scheduler.after(long * self.dice.random(), partial(self._exit, code), self.leader)
        self.arm()

    def _lucky(self, chance: float) -> bool:
        return self.dice.random() < chance

    def _soon(self, call: Callable[[], object], within: float) -> None:
        self.world.scheduler.after(self.dice.random() * within, call, self.worker.process)

    def _exit(self, code: int) -> None:
        self.world.host.end(self.leader, code=code)

    def _fork(self) -> None:
        """Have children: one in the session, one that fled by a double fork, with a session of its own."""
        if not self.leader.alive:
            return
        child = self.world.host.fork(self.leader.pid, "child", self.token)
        child.session = self.leader.session
        child.deaf = self._lucky(0.3)
        self._ends_some_day(child)
        if self._lucky(0.4):
            fled = self.world.host.fork(self.worker.process.pid, "fled", self.token)
            fled.marked = self._lucky(0.5)
            fled.deaf = True
            self._ends_some_day(fled)

    def _ends_some_day(self, process: Process) -> None:
        self.world.scheduler.after(self.dice.random() * 60, partial(self.world.host.end, process, code=0), process)

    def _write(self) -> None:
        if self.leader.alive and not self.over:
            self.world.disk.output[self.token] += self.dice.randint(1, 5000)
            self.ending.heard(self.world.scheduler.now)
            self.worker.do(self.worker.channel.grown(self.world.disk.output[self.token], self.world.scheduler.now))

    def _announce(self) -> None:
        if self.leader.alive and not self.over:
            self.announced = True
            self.worker.do(self.worker.channel.started(self.leader.pid, self.leader.start))

    # Its end.

    def _exceed(self, limit: wire.Reason) -> None:
        """Need more than it may."""
        if self.leader.alive and not self.over:
            self.stop(limit, 0.0, None)

    def stop(self, reason: wire.Reason, grace: float, kill_after: float | None) -> None:
        self.ending.stop(self.world.scheduler.now, reason, grace, kill_after)
        self.arm()

    def arm(self) -> None:
        due = self.ending.due()
        if due is not None and not self.over:
            self.world.scheduler.at(due, self._step, self.worker.process)

    def _step(self) -> None:
        if self.over or not self.leader.alive:
            return
        stage = self.ending.step(self.world.scheduler.now)
        if stage is None:
            # It was heard of meanwhile.
            self.arm()
        elif stage is Stage.TERMINATED:
            for process in self._group():
                if not process.deaf:
                    self._soon(partial(self.world.host.end, process, signal=15), 0.005)
            self.arm()
        elif stage is Stage.KILLED:
            for process in self._group():
                self.world.host.end(process, signal=9)

    def _group(self) -> list[Process]:
        return [one for one in self.world.host.of_attempt(self.token) if one.session == self.leader.session]

    def _leader_died(self) -> None:
        self.world.host.unreaped[self.leader.pid] = self.worker.process
        self._soon(self._leader_ended, 0.003)

    def _reap(self) -> None:
        if not self.reaped:
            self.reaped = True
            self.world.host.unreaped.pop(self.leader.pid, None)

    def _leader_ended(self) -> None:
        """End what it left, or let that be, and report; nothing is said before the last of them is gone."""
        if self.over:
            return
        if self.ending.reason is None:
            # It ended by itself: no group has to be signalled.
            self._reap()
        left = self._left()
        if left and self.spec.keep_leftovers:
            self.world.figures.case("what a command leaves behind is kept")
            self.world.disk.kept[self.token] = Kept(self.world.host.boot_id, tuple((p.pid, p.start) for p in left))
            for one in left:
                one.kept = True
            # Until that is on the disk.
            self.over = True
            self._soon(partial(self._report, last=True), 0.5 if self._lucky(0.3) else 0.001)
        elif left:
            self.world.figures.case("what a command leaves behind is ended")
            for one in left:
                self.world.checker.hold(13, one.token == self.token, f"{one.pid} of {one.token} ends with {self.token}")
                self.world.host.end(one, signal=9)
            self._soon(self._leader_ended, 0.01)
        else:
            self._report(last=False)

    def _report(self, *, last: bool) -> None:
        self._reap()
        self.over = True
        self.worker.command = None
        self.worker.do(self.worker.channel.ended(self._outcome(), last=last))

    def _left(self) -> list[Process]:
        host = self.world.host
        named = {*host.marked(f"{STORE}/{self.token}".encode()), *host.fenced([self.token])}
        # Once the leader is reaped, its session's number means nothing more.
        session = None if self.reaped else self.leader.pid
        return [host.processes[one.pid] for one in members(host.stats(), self.worker.process.pid, session, named)]

    def _outcome(self) -> wire.Outcome:
        reason, leader = wire.Reason.EXITED, self.leader
        if self.ending.reason is not None:
            reason = self.ending.reason
            by_force = leader.signal == 9
            self.world.figures.case(f"a command that is to end {'is killed' if by_force else 'heeds TERM'}")
        elif leader.signal is not None:
            reason = wire.Reason.SIGNALLED
        return wire.Outcome(
            reason=reason,
            ended_at=self.world.clock(),
            exit_code=leader.exit_code,
            signal=leader.signal,
            pid=leader.pid,
            pid_start=leader.start,
            started_at=self.began,
            output_bytes=self.world.disk.output[self.token],
        )


class SimWorker:
    """A worker from its first connection to its end."""

    def __init__(self, world: World, process: Process, name: str, orphan_timeout: float, store: str) -> None:
        self.world, self.process, self.name = world, process, name
        now = world.scheduler.now
        self.channel = Channel(Identity(store, name, process.pid, process.start), orphan_timeout, now)
        self.connection: Connection | None = None
        self.command: Command | None = None
        self._armed = _NEVER
        self._queue: deque[acts.Action] = deque()
        self._busy = False
        process.watchers.append(self._died)
        # It takes a moment until it runs.
        world.scheduler.after(world.dice.random() * 0.3, self._tick, process)

    @property
    def dice(self) -> random.Random:
        return self.world.dice

    @property
    def holds(self) -> tuple[int, wire.Outcome] | None:
        """The outcome that nobody has confirmed."""
        attempt = self.channel._attempt
        return None if attempt is None or attempt.outcome is None else (attempt.token, attempt.outcome)

    @property
    def saved(self) -> bool:
        attempt = self.channel._attempt
        return attempt is not None and attempt.saved

    def _tick(self) -> None:
        self._armed = _NEVER
        self.do(self.channel.tick(self.world.scheduler.now))

    def _arm(self) -> None:
        due = self.channel.due()
        if due < self._armed and self.process.alive:
            self._armed = due
            self.world.scheduler.at(due, self._tick, self.process)

    def do(self, actions: list[acts.Action]) -> None:
        self._queue += actions
        if self._busy:
            return
        self._busy = True
        while self._queue and self.process.alive:
            self._act(self._queue.popleft())
        self._busy = False
        self._arm()

    def _act(self, action: acts.Action) -> None:  # noqa: C901 - one case an action
        match action:
            case acts.Send(message=message):
                if self.connection is not None:
                    self.world.noticed_from(self, message)
                    self.connection.up.put(message)
            case acts.Spawn(token=token, spec=spec):
                self._spawn(token, spec)
            case acts.Decline(token=token):
                self._end_early(wire.Reason.INTERRUPTED, None)
            case acts.EndTree(reason=reason, grace=grace, kill_after=kill_after):
                if self.command is not None:
                    self.command.stop(reason, grace, kill_after)
            case acts.PassSignal(number=number):
                if self.command is not None and not (self.command.leader.deaf and number == 15):
                    self.world.host.end(self.command.leader, signal=number)
            case acts.Connect():
                self._connect()
            case acts.Disconnect():
                self._disconnect()
            case acts.Save(token=token, outcome=outcome):
                self._save(token, outcome)
            case acts.Quit():
                assert self.command is None, "a worker leaves its command alone"
                self.world.host.end(self.process, code=0)

    def _spawn(self, token: int, spec: wire.RunSpec) -> None:
        self.world.checker.spawned(token)
        luck = 1.0 if self.world.calm else self.dice.random()
        if luck < 0.03:
            self._end_early(wire.Reason.NOT_STARTED, 127)
        elif luck < 0.06:
            self.world.figures.case("the host cannot start a command")
            self._end_early(wire.Reason.HOST_ERROR, None)
        else:
            self.command = Command(self, token, spec)

    def _end_early(self, reason: wire.Reason, code: int | None) -> None:
        outcome = wire.Outcome(reason=reason, ended_at=self.world.clock(), exit_code=code, message="early")
        self._queue += self.channel.ended(outcome)

    def _connect(self) -> None:
        now = self.world.scheduler.now
        connection = self.world.connect(self)
        if connection is None:
            self._queue += self.channel.lost(now)
            return
        self.connection = connection
        self._queue += self.channel.connected(now)

    def told(self, connection: Connection, message: wire.ToWorker | None) -> None:
        """Take what came over a connection; the end of one is its last message."""
        if connection is not self.connection:
            return
        if message is None:
            self._disconnect()
            self.do(self.channel.lost(self.world.scheduler.now))
        else:
            self.do(self.channel.received(message, self.world.scheduler.now))

    def _disconnect(self) -> None:
        if self.connection is not None:
            self.connection.worker_left()
            self.connection = None

    def _save(self, token: int, outcome: wire.Outcome) -> None:
        if self.world.disk.full:
            self.world.adversary.struck("fill disk")
        done = not (self.world.disk.full or (not self.world.calm and self.dice.random() < 0.1))
        if done:
            self.world.disk.outcomes[token] = outcome
            self.world.outcome_filed()
        self._queue += self.channel.saved(token, self.world.scheduler.now, done=done)

    def terminate(self) -> None:
        self.do(self.channel.terminate())

    def _died(self) -> None:
        self.command = None
        self._queue.clear()
        self._disconnect()
        self.world.worker_died(self)
