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
from queuectld.supervisor import rescue
from queuectld.supervisor.crew import Crew
from queuectld.supervisor.dispatch import Dispatcher
from queuectld.supervisor.link import WorkerLink
from queuectld.supervisor.supervisor import Supervisor
from queuectld.worker.channel import Channel
from tests.simulation import machine
from tests.simulation.ledger import SimLedger
from tests.simulation.life import SeedFailedError, live_through
from tests.simulation.machine import SimFiles

BOUND: Final = 600


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
    def disconnected(self: WorkerLink) -> Any:
        self.connected = False
        return self.died()

    return mock.patch.object(WorkerLink, "disconnected", disconnected)


def _no_second_look() -> Any:
    return mock.patch.object(SimFiles, "outcome", return_value=None)


def _forget_cancel() -> Any:
    real = attempts.settle

    def settle(job: Any, outcome: Any, **options: Any) -> Any:
        if outcome.reason is Reason.LOST:
            job = replace(job, cancel_requested=None)
        return real(job, outcome, **options)

    return mock.patch.object(attempts, "settle", settle)


def _one_too_many() -> Any:
    """The dispatcher takes the limit for one more than it is."""
    real = Dispatcher.bound.fget
    assert real is not None
    return mock.patch.object(Dispatcher, "bound", property(lambda self: real(self) + 1))


def _never_taken_back() -> Any:
    """What was lent once does not count, however long its wait is over."""
    real = Dispatcher.lend

    def lend(self: Dispatcher, token: int) -> Callable[[], None]:
        real(self, token)
        return lambda: None

    return mock.patch.object(Dispatcher, "lend", lend)


def _lends_to_the_end() -> Any:
    """An attempt that has ended does not count, although its worker may be getting the next one."""
    return mock.patch.object(Dispatcher, "has_lent", lambda self, worker: worker.link.token in self._lent)


def _known_by_number() -> Any:
    """A worker takes the place of one that had its number before."""
    real = Crew.register

    def register(self: Crew, name: str, pid: int, start: int, link: WorkerLink) -> Any:
        self._workers = {known: one for known, one in self._workers.items() if one.pid != pid}
        return real(self, name, pid, start, link)

    return mock.patch.object(Crew, "register", register)


def _claims_not_counted() -> Any:
    """Workers that wait for the answer to a claim are taken for none."""

    def room(self: Dispatcher) -> int:
        return self.bound - sum(worker.link.token is not None for worker in self._crew)

    return mock.patch.object(Dispatcher, "_room", room)


def _open_after_closing() -> Any:
    """A daemon that has let go of its workers still lets them in."""
    real = Crew.close

    def close(self: Crew) -> None:
        real(self)
        self._closed = False

    return mock.patch.object(Crew, "close", close)


def _any_connection() -> Any:
    """The hello of an earlier connection counts, however late it is read."""
    real = Crew.recognise

    def recognise(self: Crew, connection: Any, hello: Any) -> Any:
        return real(self, connection, replace(hello, connection=0))

    return mock.patch.object(Crew, "recognise", recognise)


def _stays_away() -> Any:
    """A worker that has lost its connection does not connect again."""
    real = Channel.lost

    def lost(self: Channel, now: float) -> Any:
        actions = real(self, now)
        self._retry_at = float("inf")
        return actions

    return mock.patch.object(Channel, "lost", lost)


def _leader_only() -> Any:
    """Of what a dead worker left, only the process is ended that it started."""
    real = rescue.kill_set

    def kill_set(remains: Any, scene: Any) -> Any:
        return [one for one in real(remains, scene) if one.pid == remains.pid]

    return mock.patch.object(machine, "kill_set", kill_set)


def _nothing_spared() -> Any:
    return mock.patch.object(machine, "spared_among", return_value=frozenset())


def _a_reboot_counts() -> Any:
    """That the host went down is taken for a sign against the job."""
    real = attempts.settle

    def settle(job: Any, outcome: Any, **options: Any) -> Any:
        return real(job, outcome, **options | {"reboot": False})

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
    "one attempt more than the limit": "rule 9,",
    "claims under way not counted": "rule 9,",
    "what was lent is never taken back": "rule 9,",
    "what was lent until the end is on record": "rule 9,",
    "workers told apart by their numbers alone": "rule 9,",
    "workers recognised after they were let go of": "rule 4,",
    "a late hello of an earlier connection taken for the last": "rule 13,",
    "no second connection": "rule 5,",
    "kill of the leader only": "rule 13,",
    "kept leftovers ended with the rest of others": "rule 13,",
    "a reboot taken for a loss": "rule 6,",
}
MUTANTS: Final[dict[str, Callable[[], Any]]] = {
    "no token check": _no_token_check,
    "acknowledge before commit": _acknowledge_before_commit,
    "retry budget lost on restart": _forget_retries,
    "claim without guard": _claim_without_guard,
    "a lost connection taken for a death": _disconnected_is_dead,
    "the outcome file not looked up again": _no_second_look,
    "a cancel forgotten when its worker is lost": _forget_cancel,
    "one attempt more than the limit": _one_too_many,
    "claims under way not counted": _claims_not_counted,
    "what was lent is never taken back": _never_taken_back,
    "what was lent until the end is on record": _lends_to_the_end,
    "workers told apart by their numbers alone": _known_by_number,
    "workers recognised after they were let go of": _open_after_closing,
    "a late hello of an earlier connection taken for the last": _any_connection,
    "no second connection": _stays_away,
    "kill of the leader only": _leader_only,
    "kept leftovers ended with the rest of others": _nothing_spared,
    "a reboot taken for a loss": _a_reboot_counts,
}


def first_noticed(name: str, bound: int = BOUND) -> tuple[int, str] | None:
    """Return the first seed that notices the mutant as what it is, and what it says; None if none within the bound."""
    with MUTANTS[name]():
        for seed in range(bound):
            try:
                live_through(seed)
            except SeedFailedError as error:
                said = str(error).rpartition("\n")[2]
                if NOTICED_AS[name] in said:
                    return seed, said
    return None
