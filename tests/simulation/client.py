"""Clients: they ask for jobs, ask again where an answer was lost, and change jobs; and remember what they were told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from queuectld.domain.job import State
from queuectld.domain.spec import Duration
from queuectld.domain.transitions import Event
from queuectld.errors import DiskFullError, QueueCTLError, StoreError
from queuectld.protocol import messages
from queuectld.protocol.messages import Cancel, Discard, Enqueue, Retry, Selector, Submission, Undelete
from queuectld.protocol.replies import Enqueued
from queuectld.service import change
from queuectld.service.owner import Submitter
from queuectld.service.sight import EVERYTHING
from queuectld.service.submit import Ahead, Order, Terms, enqueue
from queuectld.store.base import Store
from tests.simulation.checker import SECRET

if TYPE_CHECKING:
    from tests.simulation.world import World

_ASKS_FOR: Final[dict[type[change.AnyBulk], Event]] = {
    Cancel: Event.CANCEL,
    Retry: Event.REVIVE,
    Discard: Event.DISCARD,
    Undelete: Event.UNDELETE,
}


class Clients:
    """All of them together."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._made = 0
        self._ahead = Ahead()
        # Requests that no answer came to yet.
        self._unanswered: dict[str, Enqueue] = {}
        self._commands: dict[str, str] = {}

    def waiting(self) -> list[str]:
        return list(self._unanswered)

    # New jobs.

    def submit(self) -> bool:
        """Ask for one job, or a few; return whether somebody heard it."""
        dice = self._world.dice
        key = f"key-{self._made}"
        jobs = tuple(msgspec.Raw(msgspec.json.encode(self._spec())) for _ in range(dice.choice((1, 1, 1, 2, 4))))
        submission = Submission(env={"TOKEN": SECRET}) if dice.random() < 0.2 else Submission()
        request = Enqueue(id=1, jobs=jobs, request=key, submission=submission)
        for job in jobs:
            self._world.asked[msgspec.json.decode(job)["command"]] = key
        self._unanswered[key] = request
        return self._send(key)

    def _spec(self) -> dict[str, Any]:
        dice = self._world.dice
        self._made += 1
        spec: dict[str, Any] = {"command": f"job {self._made}", "env": {"X": SECRET}, "max_retries": dice.randint(0, 3)}
        chances: tuple[tuple[float, str, Callable[[], Any]], ...] = (
            (0.4, "priority", lambda: dice.randint(-2, 2)),
            (0.3, "delay", lambda: dice.random() * 15),
            (0.15, "rerun", lambda: "never"),
            (0.3, "timeout", lambda: 0.2 + dice.random() * 3),
            (0.5, "kill_after", lambda: dice.random() * 2),
            (0.1, "silent_timeout", lambda: 0.2 + dice.random() * 3),
            (0.15, "leftovers", lambda: "keep"),
            (0.1, "stdin", lambda: "input"),
            (0.2, "no_retry_on", lambda: [99]),
            (0.1, "retry_for", lambda: 10),
            (0.2, "jitter", lambda: 0.5),
            (0.08, "id", lambda: f"n{dice.randint(0, 4)}"),
        )
        spec |= {name: value() for chance, name, value in chances if dice.random() < chance}
        return spec

    def _send(self, key: str) -> bool:
        daemon, request = self._world.daemon, self._unanswered.get(key)
        if request is None or daemon is None or not daemon.ready or daemon.supervisor.draining:
            return False
        world = self._world
        terms = Terms(Submitter("somebody"), world.holder.config, world.policy, world.most, self._ahead, world.clock())
        order = Order(request, request.jobs, {}, terms)
        work = partial(_enqueue, order=order)
        daemon.loop.within(partial(daemon.ledger.submit, work, partial(self._answered, key), sheds=True))
        return True

    def _answered(self, key: str, reply: Any) -> None:
        if isinstance(reply, Exception):
            if not isinstance(reply, QueueCTLError):
                raise reply
            if isinstance(reply, DiskFullError | StoreError):
                self._later(key)
            else:
                self._unanswered.pop(key, None)
            return
        self._unanswered.pop(key, None)
        store = self._world.store
        for added in reply.jobs:
            seq = next((one.seq for one in store._jobs.values() if one.id == added.id), 0)
            self._world.checker.answered(seq, added.id)

    def _later(self, key: str) -> None:
        self._world.scheduler.after(1 + self._world.dice.random() * 3, partial(self._send, key))

    def daemon_gone(self) -> None:
        """Some give up when the connection is lost, and will never know."""
        for key in tuple(self._unanswered):
            if not self._world.calm and self._world.dice.random() < 0.2:
                del self._unanswered[key]

    def daemon_ready(self) -> None:
        """Ask again for what no answer came to."""
        for key in self._unanswered:
            self._world.scheduler.after(self._world.dice.random(), partial(self._send, key))

    # Changes.

    def change(self) -> bool:
        """Cancel, retry, discard or bring back something, or much; return whether somebody heard it."""
        daemon, world = self._world.daemon, self._world
        if daemon is None or not daemon.ready or daemon.supervisor.draining or not world.store._jobs:
            return False
        request, seq = self._request()
        self._step(request, seq, change.begin(world.store, request, EVERYTHING))
        return True

    def end_the_endless(self) -> None:
        """Cancel what never ends by itself; whom somebody has cancelled before, that has to be enough for."""
        daemon, world = self._world.daemon, self._world
        commands = [one.command for one in world.workers.values() if one.command is not None and one.command.endless]
        for command in commands if daemon is not None and daemon.ready else ():
            job = world.store._jobs[world.store._attempts[command.token].job]
            if job.token == command.token and job.cancel_requested is None:
                self._step(Cancel(id=1, select=Selector(ids=(job.id,)), reason="calm"), job.seq, change.Progress())
        world.scheduler.after(5.0, self.end_the_endless)

    def _request(self) -> tuple[change.AnyBulk, int]:
        dice = self._world.dice
        jobs = list(self._world.store._jobs.values())
        kind: Any = dice.choice((Cancel, Cancel, Cancel, Retry, Retry, Discard, Discard, Undelete))
        fitting = {
            Cancel: {State.PENDING, State.FAILED, State.PROCESSING},
            Retry: {State.FAILED, State.DEAD, State.CANCELLED, State.COMPLETED},
            Discard: {State.DEAD},
            Undelete: {State.DELETED},
        }[kind]
        likely = [job for job in jobs if job.state in fitting]
        if likely and dice.random() < 0.6:
            chosen = dice.choice(likely)
        else:
            # For anything, and what is rare as often as what is not.
            state = dice.choice(sorted({job.state for job in jobs}))
            chosen = dice.choice([job for job in jobs if job.state is state])
        select = Selector(ids=(chosen.id,))
        if kind is not Undelete and dice.random() < 0.05:
            select = Selector()
        options: dict[str, Any] = {}
        if kind is Cancel:
            options = {"reason": "because", "kill_after": Duration(0.1) if dice.random() < 0.3 else None}
        elif kind is Retry and dice.random() < 0.3:
            options = {"delay": Duration(dice.random() * 5)}
        request: change.AnyBulk = kind(id=1, select=select, **options)
        return request, chosen.seq

    def _step(self, request: change.AnyBulk, seq: int, progress: change.Progress) -> None:
        world, daemon = self._world, self._world.daemon
        if daemon is None:
            return
        act = change.Act("somebody", world.policy, world.clock(), world.dice.random, EVERYTHING)
        work = partial(self._ask, partial(change.step, request=request, so_far=progress, act=act), type(request), seq)
        daemon.loop.within(daemon.ledger.submit, work, partial(self._changed, daemon, request, seq))

    def _ask(self, step: Callable[[Any], Any], kind: type[change.AnyBulk], seq: int, store: Any) -> Any:
        """Take a step; and if it is refused, tell which move of which job that was."""
        job = store.by_seq(seq)
        try:
            return step(store)
        except QueueCTLError as error:
            # Of an id that was given again, nobody knows here which job it meant.
            if [one.id for one in store._jobs.values()].count(job.id) == 1:
                self._world.checker.refused(job.state, _ASKS_FOR[kind], error)
            raise

    def _changed(self, daemon: Any, request: change.AnyBulk, seq: int, progress: Any) -> None:
        if isinstance(progress, Exception):
            if not isinstance(progress, QueueCTLError):
                raise progress
            return
        for live in progress.live:
            kill_after = request.kill_after if isinstance(request, messages.Cancel) else None
            daemon.supervisor.cancel(live.token, kill_after=kill_after)
        if not progress.done and daemon is self._world.daemon:
            self._step(request, seq, progress._replace(live=()))


def _enqueue(store: Store, order: Order) -> Enqueued:
    reply, _ = enqueue(store, order, order.part(0))
    return reply


def _store(order: Order, store: Any) -> Any:
    reply, _ = enqueue(store, order, order.part(0))
    return reply
