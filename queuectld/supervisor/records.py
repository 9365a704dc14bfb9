"""What the supervisor has the store do: each a request to the ledger, with the values that it needs taken at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from queuectld.config import Config, Holder, policy
from queuectld.domain.attempt import Attempt, Outcome
from queuectld.domain.job import WAITING, Job
from queuectld.domain.policy import Policy
from queuectld.figures.counts import Counts
from queuectld.host.ledger import Ledger
from queuectld.service import attempts
from queuectld.service.attempts import Circumstances, Claimed, Claims, Ending, Offer
from queuectld.store.base import Store
from queuectld.supervisor.recovery import Filed

Done = Callable[[Any], None]


class Records:
    """The store as the supervisor uses it. Callbacks get the result, or the error, on the loop, after the commit."""

    def __init__(
        self,
        ledger: Ledger,
        config: Holder,
        *,
        boot_id: str,
        clock: Callable[[], float],
        luck: Callable[[], float] = random.random,
        counts: Counts | None = None,
    ) -> None:
        """`clock` is the wall clock; `luck`, in [0, 1), spreads retries in time; `counts` how long attempts take."""
        self._ledger = ledger
        self._config = config
        self._boot_id = boot_id
        self._clock = clock
        self._luck = luck
        self._counts = counts or Counts()
        # Made once for each configuration, since every end of an attempt asks for it.
        self._policy_of: tuple[Config, Policy] | None = None

    def claim(self, offers: Sequence[Offer], done: Callable[[Claims | BaseException], None], *, ripen: bool) -> None:
        """Claim jobs for workers."""
        now = self._clock()
        work = partial(attempts.claim_for, offers=offers, now=now, boot_id=self._boot_id, ripen=ripen)

        def claimed(claims: Claims | BaseException) -> None:
            if isinstance(claims, Claims):
                for one in claims.claimed:
                    self._count_start(one)
            done(claims)

        self._ledger.submit(work, claimed)

    def _count_start(self, claimed: Claimed) -> None:
        self._counts.started(claimed.job.queue, claimed.attempt.claimed_at - claimed.attempt.queued_at)

    def _count_end(self, ending: Ending) -> None:
        if ending.job is not None and ending.attempt is not None:
            self._counts.ended(ending.job.queue, _seconds(ending.attempt))
        if ending.claimed is not None:
            self._count_start(ending.claimed)

    def finish(
        self,
        token: int,
        outcome: Outcome,
        done: Callable[[Ending | BaseException], None],
        *,
        offer: Offer | None = None,
    ) -> None:
        """Record an end, and claim the next job for `offer`."""

        def finished(ending: Ending | BaseException) -> None:
            if isinstance(ending, Ending):
                self._count_end(ending)
            done(ending)

        self._ledger.submit(self._finish(token, outcome, offer=offer), finished)

    async def finished(self, token: int, outcome: Outcome, *, reboot: bool = False) -> Ending:
        """Record an end."""
        ending = await self._ledger.write(self._finish(token, outcome, reboot=reboot))
        self._count_end(ending)
        return ending

    async def finished_all(self, filed: Sequence[Filed]) -> None:
        """Record what was found in outcome files, in one commit."""
        works = [self._finish(one.token, one.outcome) for one in filed]
        for ending in await self._ledger.write(lambda store: [work(store) for work in works]):
            self._count_end(ending)

    def _finish(
        self, token: int, outcome: Outcome, *, offer: Offer | None = None, reboot: bool = False
    ) -> Callable[[Store], Ending]:
        given = Circumstances(self._policy(), self._clock(), self._luck(), self._boot_id)
        return partial(attempts.finish, token=token, outcome=outcome, given=given, offer=offer, reboot=reboot)

    def _policy(self) -> Policy:
        config = self._config.config
        if self._policy_of is None or self._policy_of[0] is not config:
            self._policy_of = (config, policy(config))
        return self._policy_of[1]

    def note_start(self, token: int, pid: int, pid_start: int) -> None:
        """Keep who leads a command's session, with the next commit."""
        work = partial(attempts.note_start, token=token, pid=pid, pid_start=pid_start, now=self._clock())
        self._ledger.submit(work, lambda _: None)

    async def attempt(self, token: int) -> Attempt | None:
        """Return an attempt as it is behind everything that was submitted before."""
        return await self._ledger.write(lambda store: store.attempt(token))

    async def job_of(self, token: int) -> Job | None:
        """Return the job of a live attempt; None once it is over."""

        def look(store: Store) -> Job | None:
            attempt = store.attempt(token)
            return store.by_seq(attempt.job) if attempt is not None and attempt.live else None

        return await self._ledger.write(look)

    async def live_attempts(self) -> Sequence[Attempt]:
        """Return the attempts that no outcome is known of."""
        return await self._ledger.write(lambda store: store.live_attempts())

    async def waiting(self) -> int:
        """Return how many jobs wait, for whatever reason."""
        counts = await self._ledger.write(lambda store: store.counts())
        return sum(count for states in counts.values() for state, count in states.items() if state in WAITING)


def _seconds(attempt: Attempt) -> float:
    """Return how long an attempt took that is over."""
    began = attempt.claimed_at if attempt.started_at is None else attempt.started_at
    return 0.0 if attempt.outcome is None else attempt.outcome.ended_at - began
