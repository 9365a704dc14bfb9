"""Who comes too late: reports of attempts that are over, and claims of jobs that somebody else has got meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.domain.job import WAITING, Job, State
from queuectld.domain.transitions import Event, settle
from queuectld.errors import QueueCTLError
from queuectld.service import attempts
from queuectld.service.attempts import Ending

if TYPE_CHECKING:
    from tests.simulation.world import SimDaemon, World

_Any = TypeVar("_Any")
# They say one of these.
_SAID: Final[tuple[tuple[Reason, int | None], ...]] = (
    (Reason.EXITED, 0),
    (Reason.EXITED, 1),
    (Reason.SIGNALLED, None),
    (Reason.TIMEOUT, None),
    (Reason.LOST, None),
    (Reason.CANCELLED, None),
)


class Latecomers:
    """Ask for moves that cannot be any more; the checker sees to it that nothing comes of that."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        # Jobs that waited once, for whoever read them then and claims them later.
        self._seen_waiting: list[Job] = []

    def report(self, daemon: SimDaemon | None) -> bool:
        """Somebody says once more how an attempt ended, and otherwise than is on record: by a message, or in a file."""
        over = [attempt for attempt in self._world.checker.attempts.values() if not attempt.live]
        if not over:
            return False
        jobs = self._world.store._jobs
        attempt = self._of_any_state(over, lambda one: jobs[one.job].state)
        reason, code = self._dice.choice(_SAID)
        said = Outcome(reason=reason, ended_at=self._world.clock(), exit_code=code, message="late")
        if daemon is None or self._dice.random() < 0.2:
            self._world.disk.forged.add(attempt.token)
            self._world.disk.outcomes[attempt.token] = said
        else:
            work = partial(self._finish, daemon.supervisor._records._finish(attempt.token, said), attempt, said)
            daemon.loop.within(daemon.ledger.submit, work, self._answered)
        return True

    def _finish(self, finish: Callable[[Any], Ending], attempt: Attempt, said: Outcome, store: Any) -> Ending:
        job = store.by_seq(attempt.job)
        running = replace(job, state=State.PROCESSING, cancel_requested=None)
        event = settle(running, said, policy=self._world.policy, now=self._world.clock(), luck=0.0).event
        ending = finish(store)
        self._world.checker.late(job.state, event, ending)
        return ending

    def claim(self, daemon: SimDaemon | None) -> bool:
        """Somebody claims what is not there to be claimed any more, as it is now, or as it was read some time ago."""
        jobs = self._world.store._jobs
        self._seen_waiting = [*self._seen_waiting[-20:], *(job for job in jobs.values() if job.state in WAITING)]
        # What was read and never committed may be gone altogether.
        gone = [job for job in self._seen_waiting if job.seq in jobs and jobs[job.seq].state not in WAITING]
        if daemon is None or not gone:
            return False
        job = self._of_any_state(gone, lambda one: jobs[one.seq].state)
        daemon.loop.within(daemon.ledger.submit, partial(self._claim, job), self._answered)
        return True

    def _claim(self, seen: Job, store: Any) -> None:
        now = store.by_seq(seen.seq)
        if now.state in WAITING:
            return
        job = seen if self._dice.random() < 0.5 else now
        try:
            with store.item():
                attempts._claim(store, job, attempts.Offer("late", 1, 1), self._world.clock(), self._world.host.boot_id)
        except QueueCTLError as error:
            self._world.checker.refused(now.state, Event.CLAIM, error)
            return
        self._world.checker.hold(7, holds=False, what=f"{now.id} is {now.state}, and is claimed")

    def _answered(self, reply: object) -> None:
        if isinstance(reply, BaseException) and not isinstance(reply, QueueCTLError):
            raise reply

    def _of_any_state(self, those: Sequence[_Any], state: Callable[[_Any], State]) -> _Any:
        """Choose one so that what is rare comes as often as what is not."""
        chosen = self._dice.choice(sorted({state(one) for one in those}))
        return self._dice.choice([one for one in those if state(one) is chosen])
