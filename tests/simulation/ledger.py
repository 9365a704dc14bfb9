"""The store's thread without a thread: the real `Batcher`, on the reference store, in virtual time.

A commit takes its time, and only then it is durable and answered. Who crashes in between finds it there or not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import Job
from queuectld.errors import DiskFullError, QueueCTLError, StoreError
from queuectld.store.base import Entry, Work
from queuectld.store.memory import MemoryStore
from queuectld.store.thread import Batcher, FatalError, Submission
from tests.simulation.host import Disk, Process
from tests.simulation.scheduler import ActorLoop, Scheduler

_TABLES = ("_jobs", "_places", "_attempts", "_entries", "_blobs", "_queues", "_requests", "_removed", "_numbers")
_LOOK = 3.0
# How many attempts may live, and which of these do not count.
Bound = tuple[int, frozenset[int]]


class SimStore(MemoryStore):
    """The reference store on a disk that may be full or broken."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk
        # Commits that still fit on the full disk.
        self.room = 0
        self.broken = False
        self.touched_jobs: set[int] = set()
        self.touched_attempts: set[int] = set()
        # Told of every claim, inside its transaction; and of what went wrong on the disk.
        self.on_claim: Callable[[Job, Attempt], None] = lambda _job, _attempt: None
        self.on_harm: Callable[[str], None] = lambda _attack: None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
            if self.broken:
                self.broken = False
                self.on_harm("break disk")
                raise StoreError("fsync failed")
            if self._disk.full and self._undo:
                if not self.room:
                    self.on_harm("fill disk")
                    raise DiskFullError
                self.room -= 1

    def _set(self, job: Job) -> None:
        self.touched_jobs.add(job.seq)
        super()._set(job)

    def open_attempt(self, attempt: Attempt) -> None:
        self.touched_attempts.add(attempt.token)
        super().open_attempt(attempt)
        self.on_claim(self._jobs[attempt.job], attempt)

    def save_attempt(self, attempt: Attempt) -> None:
        self.touched_attempts.add(attempt.token)
        super().save_attempt(attempt)

    def snapshot(self) -> dict[str, dict[Any, Any]]:
        return {name: dict(getattr(self, name)) for name in _TABLES}

    def restore(self, snapshot: dict[str, dict[Any, Any]]) -> None:
        for name, table in snapshot.items():
            setattr(self, name, table)
        self.touched_jobs.clear()
        self.touched_attempts.clear()
        self._written.clear()


class SimReserve:
    """Space for some commits on a full disk."""

    def __init__(self, store: SimStore, disk: Disk) -> None:
        self._store, self._disk = store, disk
        self._left = 3

    def make(self) -> bool:
        if not self._disk.full:
            self._left = 3
        return not self._disk.full

    def release(self) -> bool:
        if not self._left:
            return False
        self._left -= 1
        self._store.room += 5
        return True


class SimLedger:
    """What `queuectld.host.ledger.Ledger` is to a daemon."""

    def __init__(
        self,
        store: SimStore,
        disk: Disk,
        *,
        scheduler: Scheduler,
        dice: random.Random,
        process: Process,
        loop: ActorLoop,
        publish: Callable[[Sequence[Entry]], None],
        on_fatal: Callable[[QueueCTLError], None],
        durable: Callable[[], None],
        bound: Callable[[], Bound],
        set_bound: Callable[[Bound], None],
    ) -> None:
        """`durable` is called when a commit is; `bound` is what a submission is held to when it runs in the store."""
        self._store, self._scheduler, self._dice, self._process, self._loop = store, scheduler, dice, process, loop
        self._publish, self._on_fatal, self._durable = publish, on_fatal, durable
        self._bound, self._set_bound = bound, set_bound
        self._batcher = Batcher(store, SimReserve(store, disk))
        self.queue: list[Submission] = []
        self._batch: list[Submission] = []
        self._before: dict[str, dict[Any, Any]] | None = None
        self._error: QueueCTLError | None = None
        self._looking = False
        self.slow = 1.0
        # Each is a mutant's.
        self.hasty = False

    @property
    def uuid(self) -> str:
        return self._store.uuid

    @property
    def idle(self) -> bool:
        return not self.queue and not self._batch

    def submit(self, work: Work[Any], done: Callable[[Any], None], *, sheds: bool = False) -> None:
        if not self._process.alive:
            return
        if self._error is not None:
            self._loop.call_soon(done, self._error)
            return
        bound = self._bound()

        def held_to_it(store: Any) -> Any:
            self._set_bound(bound)
            return work(store)

        self.queue.append(Submission(held_to_it, done, sheds))
        if not self._batch and len(self.queue) == 1:
            self._soon(self._begin, 0.0002)

    def _soon(self, call: Callable[[], None], within: float) -> None:
        self._scheduler.after(self._dice.random() * within * self.slow, call, self._process)

    async def write(self, work: Work[Any], *, sheds: bool = False) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.submit(work, partial(_resolve, future), sheds=sheds)
        return await future

    async def read(self, work: Callable[[Any], Any]) -> Any:
        return await self.write(work)

    def _begin(self) -> None:
        self._batch, self.queue = self.queue, []
        if not self._batch:
            return
        if self.slow > 1.0:
            self._store.on_harm("slow disk")
        self._before = self._store.snapshot()
        try:
            results = self._batcher.run(self._batch)
        except FatalError as fatal:
            self._die(fatal.cause)
            return
        if self._batcher.full is not None and not self._looking:
            self._looking = True
            self._scheduler.after(_LOOK, self._look, self._process)
        if self.hasty:
            self._tell(self._batch, results)
            results = []
        self._soon(partial(self._synced, results), 0.004)

    def _synced(self, results: list[Any]) -> None:
        self._before = None
        self._durable()
        batch, self._batch = self._batch, []
        self._soon(partial(self._tell, batch, results), 0.001)
        if self.queue:
            self._soon(self._begin, 0.0002)

    def _tell(self, batch: list[Submission], results: list[Any]) -> None:
        entries = self._batcher.take_entries()
        if entries:
            self._loop.call_soon(self._publish, entries)
        for submission, result in zip(batch, results, strict=False):
            self._loop.call_soon(submission.done, result)

    def _look(self) -> None:
        self._looking = not self._batcher.has_space()
        if self._looking:
            self._scheduler.after(_LOOK, self._look, self._process)

    def _die(self, error: QueueCTLError) -> None:
        self._error = error
        self._before = None
        self._store.touched_jobs.clear()
        self._store.touched_attempts.clear()
        self._loop.call_soon(self._on_fatal, error)
        for submission in (*self._batch, *self.queue):
            self._loop.call_soon(submission.done, error)
        self._batch, self.queue = [], []

    def crashed(self, *, power: bool) -> None:
        """Find out what is on disk of a commit that was under way."""
        if self._before is None:
            return
        if power or self._dice.random() < 0.5:
            self._store.restore(self._before)
        else:
            self._durable()
        self._before = None


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
