"""Records how attempts end: as their workers report it, or, where the worker died, as it is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from msgspec.structs import replace

from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.errors import QueueCTLError
from queuectld.service.account import NoAnswerError, NoSuchAccountError
from queuectld.service.attempts import Ending, never_begun, vanished
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.dispatch import Dispatcher, Surroundings
from queuectld.supervisor.records import Records
from queuectld.supervisor.rescue import Remains
from queuectld.supervisor.views import log_finished
from queuectld.supervisor.worker import Worker
from queuectld.supervisor.world import World

log = structlog.get_logger()

# A store that cannot take a result now is asked again; the worker, or its outcome file, keeps it meanwhile.
_AGAIN: Final = 1.0
# After a host error a worker rests so long, then twice as long, up to the last.
_FIRST_REST: Final = 1.0
_LONGEST_REST: Final = 30.0
# Of an attempt whose end is not known, because what was told of it cannot be stored.
_UNFIT: Final = "the end that its worker told cannot be stored"


class Endings:
    """From "it is over" to "it is on record"."""

    def __init__(
        self,
        around: Surroundings,
        crew: Crew,
        records: Records,
        dispatcher: Dispatcher,
        world: World,
    ) -> None:
        """`around` is the supervisor."""
        self._around = around
        self._crew = crew
        self._records = records
        self._dispatcher = dispatcher
        self._world = world
        self._loop = asyncio.get_running_loop()
        # What does not die, by token.
        self.stuck: dict[int, str] = {}

    def settle(self, worker: Worker, token: int, outcome: Outcome) -> None:
        """Record what a worker reported, and claim its next job in the same commit."""
        if self._crew.with_token(token) not in {None, worker}:
            # Each worker speaks for its own attempt alone.
            self._around.act(worker, worker.link.settled(token, recorded=False))
            return
        offer = self._dispatcher.next_offer(worker, token, outcome)
        demand = self._dispatcher.demand
        ticket = demand.ticket()

        def done(ending: Ending | BaseException) -> None:
            if isinstance(ending, BaseException):
                self._again(token, outcome, ending, lambda told: self.settle(worker, token, told))
                return
            # A report of the past changes nothing, and did not look for a job either.
            if offer is not None and ending.job is not None:
                demand.served_one(found=ending.claimed is not None, ticket=ticket)
            self._settled(worker, token, ending)

        self._records.finish(token, outcome, done, offer=offer)

    def _settled(self, worker: Worker, token: int, ending: Ending) -> None:
        self._recorded(worker, ending)
        claimed = ending.claimed
        given = claimed.attempt.token if claimed else None
        self._around.act(worker, worker.link.settled(token, recorded=ending.recorded, claimed=given))
        if claimed:
            self._dispatcher.hand_over(worker, claimed)
        self._dispatcher.dispatch()

    def unfile(self, token: int) -> None:
        """Remove the file of an outcome that is on record."""
        self._world.files.remove_outcome(token)

    def give_back(self, worker: Worker, token: int, reason: Reason, why: str) -> None:
        """Record that an attempt never started."""
        self._give_back(worker, token, never_begun(reason, self._world.clock(), why))

    def _give_back(self, worker: Worker, token: int, outcome: Outcome) -> None:
        def done(ending: Ending | BaseException) -> None:
            if isinstance(ending, BaseException):
                self._again(token, outcome, ending, lambda told: self._give_back(worker, token, told))
                return
            self._recorded(worker, ending)
            self._around.act(worker, worker.link.given_back())

        self._records.finish(token, outcome, done)

    async def rescue(self, worker: Worker, token: int) -> None:
        """A worker died, and its socket has been read to the end: look for its file, empty the kill set, commit."""
        if worker.started is None and (attempt := await self._records.attempt(token)) is not None:
            worker.started = _leader(attempt)
        ended = await self._end_remains(worker, token)
        ending = await self._record_lost(worker, token)
        self._world.files.remove_outcome(token)
        log.info("Attempt rescued", event_name="job.rescued", token=token, leftovers=ended or None)
        self._recorded(worker, ending)
        self._around.act(worker, worker.link.settled(token, recorded=True))

    async def _end_remains(self, worker: Worker, token: int) -> list[str]:
        pid, pid_start = worker.started or (None, None)
        remains = Remains(
            marker=f"{self._world.store}/{token}",
            pid=pid,
            pid_start=pid_start,
            token=token,
            worker=(worker.pid, worker.start),
            ended=self._world.files.outcome(token) is not None,
            user=await self._user_of(token),
        )
        while True:
            try:
                return await self._world.machine.end_remains(remains, partial(self._report_stuck, token))
            except OSError as error:
                log.error("Cannot look for what a worker left", event_name="job.stuck", token=token, error=str(error))  # noqa: TRY400  (the errno tells all)
                await asyncio.sleep(_AGAIN)

    async def _user_of(self, token: int) -> int | None:
        """Return as whom an attempt ran; None if all run as the daemon, or nobody knows that user now."""
        job = await self._records.job_of(token)
        if job is None:
            return None
        try:
            account = await self._world.accounts.find(job.owner)
        except (NoSuchAccountError, NoAnswerError):
            return None
        return None if account.identity is None else account.identity.uid

    async def _record_lost(self, worker: Worker, token: int) -> Ending:
        filed = self._world.files.outcome(token)
        outcome = filed.outcome if filed else self._lost(worker)
        while True:
            try:
                return await self._records.finished(token, outcome)
            # Whatever it is, the job must not stay without an end.
            except Exception as error:
                told = self._next_try(token, outcome, error)
                if told is None:
                    raise
                outcome = told
                await asyncio.sleep(_AGAIN)

    def _lost(self, worker: Worker) -> Outcome:
        # An interruption without a process would say that the command never began, and who knows that here?
        reason = Reason.LOST if worker.started is None else self._around.verdict
        outcome = vanished(reason, self._world.clock(), f"its worker {worker.name} died")
        pid, pid_start = worker.started or (None, None)
        return replace(outcome, pid=pid, pid_start=pid_start)

    def _report_stuck(self, token: int, what: str) -> None:
        self.stuck[token] = what
        log.error("Processes cannot be ended", event_name="job.stuck", token=token, leftovers=[what])

    def _again(self, token: int, outcome: Outcome, error: BaseException, record: Callable[[Outcome], None]) -> None:
        told = self._next_try(token, outcome, error)
        if told is not None:
            self._loop.call_later(_AGAIN, record, told)

    def _next_try(self, token: int, outcome: Outcome, error: BaseException) -> Outcome | None:
        log.error("Cannot record an end", event_name="store.failed", token=token, error=str(error))
        told = next_try(outcome, error, now=self._world.clock())
        if told is None:
            self.stuck[token] = f"its end cannot be recorded: {error}"
        return told

    def _recorded(self, worker: Worker, ending: Ending) -> None:
        """Tell about an end that is on record, and clean up behind it."""
        job, attempt = ending.job, ending.attempt
        if job is None or attempt is None:
            return
        log_finished(job, attempt)
        worker.jobs_done += 1
        worker.job = worker.attempt = worker.started = None
        if job.stdin is not None or job.script is not None:
            self._world.files.remove_inputs(attempt.token)
        for grown in tuple(worker.followers.values()):
            grown()
        worker.followers.clear()
        self.stuck.pop(attempt.token, None)
        self._rest(worker, attempt.outcome)

    def _rest(self, worker: Worker, outcome: Outcome | None) -> None:
        if outcome is None or outcome.reason is not Reason.HOST_ERROR:
            worker.rest = 0.0
            return
        worker.rest = next_rest(worker.rest)
        worker.rest_until = self._loop.time() + worker.rest
        log.warning("Worker rests", event_name="worker.resting", worker_id=worker.name, error=outcome.message)
        # A little later than the rest, so that it is over by then.
        self._loop.call_later(worker.rest + 0.01, self._dispatcher.dispatch)


def next_rest(last: float) -> float:
    """Return for how long a worker rests whose host could not start a command, after such a rest before, or none."""
    return min(max(last * 2, _FIRST_REST), _LONGEST_REST)


def next_try(outcome: Outcome, error: BaseException, *, now: float) -> Outcome | None:
    """Return what is to be recorded after that was refused with `error`; None: the store takes no end at all.

    What the store itself has against it, a full disk for one, may pass. Any other error comes from the values, and
    would come again: then it is recorded that the end is not known, with nothing of what was reported.
    """
    if isinstance(error, QueueCTLError):
        return outcome
    if outcome.message == _UNFIT:
        return None
    return vanished(Reason.LOST, now, _UNFIT)


def _leader(attempt: Attempt) -> tuple[int, int] | None:
    return None if attempt.pid is None or attempt.pid_start is None else (attempt.pid, attempt.pid_start)
