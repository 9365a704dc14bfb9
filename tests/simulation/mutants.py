"""The product broken on purpose, one rule at a time: within so many seeds each has to be noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.attempt import Reason
from queuectld.domain.job import State
from queuectld.service import attempts
from queuectld.supervisor.link import Link
from queuectld.supervisor.supervisor import Supervisor
from tests.simulation.figures import SeedFailedError, Tally, live_through
from tests.simulation.ledger import SimLedger
from tests.simulation.machine import SimFiles

BOUND: Final = 300


def _no_token_check() -> Any:
    """A late report counts as any other: it replaces what is on record."""
    real = attempts.finish

    def finish(store: Any, token: int, outcome: Any, given: Any, **options: Any) -> Any:
        attempt = store.attempt(token)
        if attempt is not None and not attempt.live and attempt.outcome != outcome:
            store.touched_attempts.add(token)
            store._put(store._attempts, token, replace(attempt, outcome=outcome))
            return attempts.Ending(recorded=True)
        return real(store, token, outcome, given, **options)

    return mock.patch.object(attempts, "finish", finish)


def _acknowledge_before_commit() -> Any:
    real = SimLedger._begin

    def begin(self: SimLedger) -> None:
        self.hasty = True
        real(self)

    return mock.patch.object(SimLedger, "_begin", begin)


def _forget_retries() -> Any:
    """A restart gives every waiting job its whole budget again."""
    real = Supervisor.start

    async def start(self: Supervisor, **options: Any) -> None:
        def forget(store: Any) -> None:
            for job in tuple(store._jobs.values()):
                if job.retries_spent and job.state is State.FAILED:
                    store.save(replace(job, retries_spent=0), was=job)

        await self._records._ledger.write(forget)
        await real(self, **options)

    return mock.patch.object(Supervisor, "start", start)


@contextmanager
def _claim_without_guard() -> Iterator[None]:
    """Heads are read some time before they are claimed, and whoever has them meanwhile is not asked."""
    real = attempts._heads
    table = {state: {**events} for state, events in transitions.NEXT.items()}
    table[State.PROCESSING][transitions.Event.CLAIM] = State.PROCESSING
    seen: dict[int, Sequence[Any]] = {}

    def heads(store: Any, limit: int, now: float) -> Sequence[Any]:
        stale = [store._jobs[job.seq] for job in seen.get(id(store), ())][:limit]
        seen[id(store)] = real(store, limit, now)
        return stale or seen[id(store)]

    with mock.patch.object(attempts, "_heads", heads), mock.patch.object(transitions, "NEXT", table):
        yield


def _disconnected_is_dead() -> Any:
    def disconnected(self: Link) -> Any:
        self.connected = False
        return self.died()

    return mock.patch.object(Link, "disconnected", disconnected)


def _no_second_look() -> Any:
    return mock.patch.object(SimFiles, "outcome", return_value=None)


def _forget_cancel() -> Any:
    real = attempts.settle

    def settle(job: Any, outcome: Any, **options: Any) -> Any:
        if outcome.reason is Reason.LOST:
            job = replace(job, cancel_requested=None)
        return real(job, outcome, **options)

    return mock.patch.object(attempts, "settle", settle)


# By what each has to be noticed: the beginning of what the checker says.
NOTICED_AS: Final = {
    "no token check": "rule 4,",
    "acknowledge before commit": "rule 11,",
    "retry budget lost on restart": "rule 6,",
    "claim without guard": "rule 7,",
    "a lost connection taken for a death": "rule 5,",
    "the outcome file not looked up again": "rule 1,",
    "a cancel forgotten when its worker is lost": "rule 10,",
}
MUTANTS: Final[dict[str, Callable[[], Any]]] = {
    "no token check": _no_token_check,
    "acknowledge before commit": _acknowledge_before_commit,
    "retry budget lost on restart": _forget_retries,
    "claim without guard": _claim_without_guard,
    "a lost connection taken for a death": _disconnected_is_dead,
    "the outcome file not looked up again": _no_second_look,
    "a cancel forgotten when its worker is lost": _forget_cancel,
}


def first_noticed(name: str, bound: int = BOUND) -> tuple[int, str] | None:
    """Return the first seed that notices the mutant as what it is, and what it says; None if none within the bound."""
    with MUTANTS[name]():
        for seed in range(bound):
            try:
                live_through(seed, Tally())
            except SeedFailedError as error:
                said = str(error).rpartition("\n")[2]
                if NOTICED_AS[name] in said:
                    return seed, said
    return None
