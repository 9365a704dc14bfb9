"""Gives out work: asks the store for jobs when there may be some and a worker is free, and hands them over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from queuectld.config import Holder, worker_limit
from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol.output import base_name
from queuectld.protocol.worker_messages import Follow, Run
from queuectld.service.account import Account, NoAnswerError, NoSuchAccountError
from queuectld.service.attempts import Claimed, Claims, Offer
from queuectld.service.run_spec import InputFiles, run_spec
from queuectld.store.base import Entry
from queuectld.supervisor.actions import Action
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.demand import Demand
from queuectld.supervisor.link import Phase
from queuectld.supervisor.records import Records
from queuectld.supervisor.worker import Worker
from queuectld.supervisor.world import World

log = structlog.get_logger()

_CLAIM_AGAIN: Final = 1.0
# So that what has to be over by then is.
_A_LITTLE: Final = 0.01


class Surroundings(Protocol):
    """What the parts of the supervisor need of the whole."""

    @property
    def draining(self) -> bool:
        """Whether no job may be claimed any more."""

    @property
    def may_start(self) -> bool:
        """Whether what is claimed by now may begin."""

    @property
    def verdict(self) -> Reason:
        """What an attempt came to whose worker died without a word."""

    def act(self, worker: Worker, actions: Sequence[Action]) -> None:
        """Do what a link decided."""

    def replan(self) -> None:
        """See whether the pool should change."""

    def run(self, job: asyncio._CoroutineLike[None]) -> None:
        """Run something beside the loop's callbacks."""


class Dispatcher:
    """Brings startable jobs and free workers together. Nothing polls: news, free workers and the alarm wake it."""

    def __init__(
        self,
        around: Surroundings,
        crew: Crew,
        records: Records,
        config: Holder,
        world: World,
    ) -> None:
        """`around` is the supervisor."""
        self._around = around
        self._crew = crew
        self._records = records
        self._config = config
        self._world = world
        self._loop = asyncio.get_running_loop()
        self._alarm = world.machine.alarm(self._rung)
        self._lent: dict[int, int] = {}
        self._claim_from = 0.0
        # How often jobs were asked for so far, and how often the store answered.
        self.claims_asked = 0
        self.claims_answered = 0
        self.demand = Demand()

    def start(self, waiting: int) -> None:
        """Begin, with so many jobs that wait for whatever reason."""
        self.demand.expect(waiting)
        self._rung()
        self.dispatch()

    def close(self) -> None:
        """Wake up no more."""
        self._alarm.close()

    # How many.

    @property
    def bound(self) -> int:
        """How many attempts may run at once; those that only wait for another job do not count."""
        lent = sum(map(self.has_lent, self._crew)) if self._lent else 0
        return worker_limit(self._config.config) + lent

    def has_lent(self, worker: Worker) -> bool:
        """Whether its attempt only waits for another job. One that has ended does not: its worker may get the next."""
        return worker.link.token in self._lent and worker.link.phase is not Phase.SETTLING

    def _room(self) -> int:
        busy = sum(worker.link.token is not None or worker.link.phase is Phase.CLAIMING for worker in self._crew)
        return self.bound - busy

    def lend(self, token: int) -> Callable[[], None]:
        """Do not count an attempt, until what is returned is called."""
        self._lent[token] = self._lent.get(token, 0) + 1
        self.dispatch()
        pending = [token]

        def take_back() -> None:
            if not pending:
                return
            pending.clear()
            self._lent[token] -= 1
            if not self._lent[token]:
                del self._lent[token]
            self._around.replan()

        return take_back

    # When.

    def heard(self, entries: Sequence[Entry]) -> None:
        """Take note of what was committed."""
        before = self.demand.ticket()
        due = self.demand.hear(entries, self._world.clock())
        if due is not None:
            self._alarm.no_later_than(due)
        if self.demand.ticket() != before:
            self.dispatch()

    @property
    def neglects(self) -> bool:
        """Whether jobs could start, workers are free, and nobody asks for them: which must not last."""
        waits = bool(self.demand) and not self._around.draining and self.claims_asked == self.claims_answered
        return waits and bool(self._free())

    def dispatch(self) -> None:
        """Claim for whoever is free, or see to it that somebody will be."""
        if not self.demand or self._around.draining:
            return
        free = self._free()
        if int(self.demand) > len(free) and len(self._crew) < self.bound:
            self._around.replan()
        if free:
            self._claim(free, ripen=False)

    def _rung(self) -> None:
        """A due time has come, or the clock was set: see which jobs' time has come."""
        if not self._around.draining:
            self._claim(self._free(), ripen=True)

    def _free(self) -> list[Worker]:
        now = self._loop.time()
        free = [worker for worker in self._crew if _is_free(worker, now)]
        if not free or self._around.draining or now < self._claim_from:
            return []
        return free[: max(0, self._room())]

    def next_offer(self, worker: Worker, token: int, outcome: Outcome) -> Offer | None:
        """Return the worker itself, if it may have another job in the commit that records the end of this one."""
        if not _takes_work(worker) or outcome.reason is Reason.HOST_ERROR or self._around.draining:
            return None
        # It still counts as busy with the attempt that is ending.
        room = self._room() + (token == worker.link.token and not self.has_lent(worker))
        return _offer(worker) if room > 0 else None

    # Claim, and hand over.

    def _claim(self, free: Sequence[Worker], *, ripen: bool) -> None:
        for worker in free:
            worker.link.offered()
        ticket = self.demand.ticket()
        self.claims_asked += 1

        def done(claims: Claims | BaseException) -> None:
            self.claims_answered += 1
            if isinstance(claims, BaseException):
                claims = self._refused(claims, self._rung if ripen else self.dispatch)
            self.demand.served(more=claims.more, got=len(claims.claimed), ticket=ticket)
            for worker, claimed in zip(free, claims.claimed, strict=False):
                worker.link.claimed(claimed.attempt.token)
                self.hand_over(worker, claimed)
            for worker in free[len(claims.claimed) :]:
                self._around.act(worker, worker.link.unclaimed())
            if claims.next_due is not None:
                self._alarm.no_later_than(claims.next_due)
            self.dispatch()

        self._records.claim([_offer(worker) for worker in free], done, ripen=ripen)

    def _refused(self, error: BaseException, again: Callable[[], None]) -> Claims:
        """Nothing was claimed and nothing lost; ask again, but not at once: a full disk does not pass in a moment."""
        log.error("Cannot claim jobs", event_name="store.failed", error=str(error))
        self._claim_from = self._loop.time() + _CLAIM_AGAIN
        self._loop.call_later(_CLAIM_AGAIN + _A_LITTLE, again)
        return Claims((), more=True)

    def hand_over(self, worker: Worker, claimed: Claimed) -> None:
        """Tell a worker to run what was claimed for it, unless nothing may begin any more since then."""
        worker.job, worker.attempt = claimed.job, claimed.attempt.number
        worker.started, worker.start_noted = None, False
        worker.since = self._loop.time()
        if not self._around.may_start:
            self._around.act(worker, worker.link.withdrawn(Reason.INTERRUPTED, "it was stopped before it began"))
            return
        account = self._world.accounts.known(claimed.job.owner)
        if account is not None and claimed.stdin is None and claimed.script is None:
            self._hand_over(worker, claimed, account, InputFiles())
        else:
            self._around.run(self._prepare(worker, claimed))

    async def _prepare(self, worker: Worker, claimed: Claimed) -> None:
        """Find out whose it is, and write what it reads."""
        try:
            account = await self._world.accounts.find(claimed.job.owner)
            reads = claimed.stdin is not None or claimed.script is not None
            files = await self._world.files.write_inputs(claimed) if reads else InputFiles()
        except NoSuchAccountError as error:
            self._around.act(worker, worker.link.withdrawn(Reason.NOT_STARTED, str(error)))
        except NoAnswerError as error:
            self._around.act(worker, worker.link.withdrawn(Reason.HOST_ERROR, str(error)))
        except OSError as error:
            why = f"cannot write its input: {error.strerror}"
            self._around.act(worker, worker.link.withdrawn(Reason.HOST_ERROR, why))
        else:
            self._hand_over(worker, claimed, account, files)

    def _hand_over(self, worker: Worker, claimed: Claimed, account: Account, files: InputFiles) -> None:
        job, attempt = claimed.job, claimed.attempt
        spec = run_spec(
            claimed,
            config=self._config.config,
            account=account,
            store=self._world.store,
            output=f"{self._world.output}/{base_name(job.seq, attempt.number)}",
            files=files,
            cgroup=self._world.machine.group(attempt.token),
        )
        self._around.act(worker, worker.link.ready(Run(attempt.token, spec)))
        if worker.followers:
            # Who follows since before the command was sent has asked in vain.
            self._crew.say(worker, Follow(attempt.token, on=True))


def _is_free(worker: Worker, now: float) -> bool:
    return worker.link.phase is Phase.IDLE and _takes_work(worker) and worker.rest_until <= now


def _takes_work(worker: Worker) -> bool:
    return worker.connection is not None and not (worker.link.retiring or worker.link.dead)


def _offer(worker: Worker) -> Offer:
    return Offer(worker.name, worker.pid, worker.start)
