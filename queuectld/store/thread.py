"""Group commit: what waits shares commits, in fair turns, and nobody hears of it before it is on disk.

`Batcher` does it, for whoever calls it; `StoreThread` calls it from a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from queuectld.errors import DiskFullError, QueueCTLError, StoreDamagedError, StoreError
from queuectld.store.base import Entry, Store, Work
from queuectld.store.turns import FIRST, Turn, Turns

# What was asked for, or the error that kept it from happening. Either way it is settled: committed, or undone.
Result = Any
Done = Callable[[Any], None]
Publish = Callable[[Sequence[Entry]], None]
# Runs a callback on the owner's thread, as `loop.call_soon_threadsafe` does.
Deliver = Callable[[Callable[[], None]], object]

# Seconds without work before the log is moved into the database: long enough for a client to send its next request.
_IDLE: Final = 1.0
# How much clients have done in one commit, in turns' weights: that of a job is 1, and such a commit takes some 30 ms.
COMMIT: Final = 2000
# Seconds between two looks whether a full disk has space again; none while it is not full.
_LOOK: Final = 3.0


class Reserve(Protocol):
    """Space that is put by for a full disk. Belongs to the store's thread."""

    def make(self) -> bool:
        """Put it by, as far as it is not there; return whether the disk has space for that."""

    def release(self) -> bool:
        """Give some of it up; return whether there was any."""


class Submission(NamedTuple):
    """Work, and who hears of its result. ``sheds``: on a full disk it gives way to the others."""

    work: Work[Any]
    done: Done
    sheds: bool = False
    turn: Turn = FIRST


class _LostError(Exception):
    """The transaction is gone, and with it what seemed to have succeeded. Its cause is the `QueueCTLError`."""


class FatalError(Exception):
    """Nobody knows any more what is on disk, or it is damaged: the process must end and begin again from the log.

    Its cause is the `QueueCTLError`.
    """

    def __init__(self, cause: QueueCTLError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Batcher:
    """Runs submissions on a store, all of a batch in one commit."""

    def __init__(self, store: Store, reserve: Reserve | None = None) -> None:
        """With a `reserve`, work that sheds is refused from the first lack of space on, until `has_space`."""
        self._store = store
        self._reserve = reserve
        # The disk is full, and this is what new work is told.
        self.full: DiskFullError | None = None

    def run(self, batch: Sequence[Submission]) -> list[Result]:
        """Commit what can be committed and return one result or error for each submission, all settled.

        Work may run more than once, so it must do nothing but read and write the store. Raises `FatalError`.
        """
        try:
            return self._commit(batch, shed=self.full)
        except _LostError as lost:
            error = _cause(lost)
        while True:
            released = self._make_room(error)
            with suppress(_LostError):
                return self._commit(batch, shed=error)
            if not released:
                break
        # Even so it does not fit, or something is wrong with one of them: each for itself.
        return [self._alone(submission, error) for submission in batch]

    def _alone(self, submission: Submission, error: QueueCTLError) -> Result:
        if submission.sheds:
            return error
        try:
            return self._commit([submission], shed=None)[0]
        except _LostError as lost:
            return _cause(lost)

    def _commit(self, batch: Sequence[Submission], *, shed: QueueCTLError | None) -> list[Result]:
        results: list[Result] = []
        try:
            with self._store.transaction():
                for submission in batch:
                    gives_way = shed is not None and submission.sheds
                    results.append(shed if gives_way else self._item(submission.work))
        except _LostError:
            raise
        except DiskFullError as error:
            raise _LostError from error
        except QueueCTLError as error:
            # The commit itself failed, not the work: its outcome is unknown.
            raise FatalError(error) from error
        return results

    def _item(self, work: Work[Any]) -> Result:
        result: Result
        try:
            with self._store.item():
                result = work(self._store)
        except StoreDamagedError as error:
            raise FatalError(error) from error
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one item is told to its sender
            result = error
        if not self._store.intact():
            raise _LostError from (
                result if isinstance(result, QueueCTLError) else StoreError("the transaction is gone")
            )
        return result

    def _make_room(self, error: QueueCTLError) -> bool:
        """Do what can be done for another try; return whether more could be done for one after that."""
        released = False
        if isinstance(error, DiskFullError) and self._reserve is not None:
            self.full = error
            released = self._reserve.release()
        # Emptying the log lets the next commit overwrite it, which needs no new space.
        with suppress(DiskFullError):
            self.checkpoint()
        return released

    def has_space(self) -> bool:
        """Look whether the disk has space again, or still; from then on new work is taken."""
        if self._reserve is None or self._reserve.make():
            self.full = None
        else:
            self.full = self.full or DiskFullError()
        return self.full is None

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Move the log into the database. Raises `DiskFullError`, which harms nothing, or `FatalError`."""
        try:
            self._store.checkpoint(truncate=truncate)
        except DiskFullError:
            raise
        except QueueCTLError as error:
            raise FatalError(error) from error

    def take_entries(self) -> Sequence[Entry]:
        """Return the entries that were committed since the last call."""
        return self._store.take_entries()

    def close(self) -> None:
        """Let go of the store, its log emptied."""
        self._store.close()


def _cause(lost: _LostError) -> QueueCTLError:
    cause = lost.__cause__
    return cause if isinstance(cause, QueueCTLError) else StoreError(str(cause))


class StoreThread:
    """Owns a store. `submit` and `close` may be called from any one thread."""

    def __init__(
        self,
        store: Store,
        *,
        deliver: Deliver,
        publish: Publish,
        on_fatal: Callable[[QueueCTLError], None],
        reserve: Reserve | None = None,
        on_space: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """``deliver`` carries each batch's results over at once; there, the others are called.

        ``on_space`` is told that the disk is full (False), and that it has space again.
        """
        self._store = store
        self._batcher = Batcher(store, reserve)
        self._deliver = deliver
        self._publish = publish
        self._on_fatal = on_fatal
        self._on_space = on_space
        self._look_at = monotonic()
        self._told_full = False
        self._looked = False
        self._queue: SimpleQueue[Submission | None] = SimpleQueue()
        self._waiting: Turns[Submission] = Turns()
        # How much was submitted so far, and how much of it was answered.
        self.asked = 0
        self.answered = 0
        # How much output the store knew of after its last commit, for whoever wants to bound it.
        self.kept_output = store.kept_output()
        self._closing = False
        self._ended = False
        self._rested = True
        self._thread = threading.Thread(target=self._loop, name="store", daemon=True)
        self._thread.start()

    def submit(self, work: Work[Any], done: Done, *, sheds: bool = False, turn: Turn = FIRST) -> None:
        """Run `work` in the first commit that has room for it; `done` gets its result or error, by way of `deliver`."""
        if self._closing:
            raise StoreError("the store is closed")
        self.asked += 1
        self._queue.put(Submission(work, done, sheds, turn))

    def close(self, *, patience: float | None = None) -> bool:
        """Finish what was submitted, empty the log, close the store; wait for that, and return whether it is done.

        Where nothing gets on for `patience` seconds, it is not waited for any longer.
        """
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        answered = -1
        while self._thread.is_alive() and self.answered != answered:
            answered = self.answered
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        batch: Sequence[Submission] = ()
        try:
            self._look_for_space()
            while batch := self._wait():
                self._settle(batch, self._batcher.run(batch))
                self._look_for_space()
            self._batcher.close()
        except FatalError as fatal:
            self._die(fatal.cause, batch)
        except QueueCTLError as error:
            self._die(error, ())
        except Exception as error:  # noqa: BLE001 - a silent end of this thread would leave everybody waiting
            self._die(StoreError(f"the store's thread failed: {error!r}"), batch)

    def _wait(self) -> Sequence[Submission]:
        """Return what the next commit is for, as soon as there is something; nothing at the end."""
        if not (self._ended or self._waiting):
            self._take(self._next())
        with suppress(Empty):
            while not self._ended:
                self._take(self._queue.get_nowait())
        return self._waiting.take(COMMIT)

    def _look_for_space(self) -> None:
        """On a full disk, look now and then whether that is over; tell when it changes."""
        if (self._batcher.full or not self._looked) and monotonic() >= self._look_at:
            self._looked = True
            self._batcher.has_space()
            self._look_at = monotonic() + _LOOK
        full = self._batcher.full is not None
        if full != self._told_full:
            self._told_full = full
            self._deliver(partial(self._on_space, not full))

    def _take(self, submission: Submission | None) -> None:
        if submission is None:
            self._ended = True
        else:
            self._waiting.put(submission.turn, submission)

    def _next(self) -> Submission | None:
        if not self._rested:
            try:
                return self._queue.get(timeout=_IDLE)
            except Empty:
                with suppress(DiskFullError):
                    self._batcher.checkpoint()
                self._rested = True
        while self._batcher.full:
            with suppress(Empty):
                return self._queue.get(timeout=max(self._look_at - monotonic(), 0.0))
            self._look_for_space()
        return self._queue.get()

    def _settle(self, batch: Sequence[Submission], results: Sequence[Result]) -> None:
        self._rested = False
        self.kept_output = self._store.kept_output()
        answers = [(submission.done, result) for submission, result in zip(batch, results, strict=True)]
        self._deliver(partial(self._tell, self._batcher.take_entries(), answers))

    def _tell(self, entries: Sequence[Entry], answers: Sequence[tuple[Done, Result]]) -> None:
        self.answered += len(answers)
        tell = [partial(done, result) for done, result in answers]
        if entries:
            tell.insert(0, partial(self._publish, entries))
        failures = []
        for call in tell:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the others must hear of theirs first
                failures.append(error)
        if failures:
            raise ExceptionGroup("receivers of results failed", failures)

    def _die(self, error: QueueCTLError, batch: Sequence[Submission]) -> None:
        """Touch the store no more; refuse what waits and what still comes, until `close`."""
        self._deliver(partial(self._on_fatal, error))
        waiting = batch
        while waiting:
            self._deliver(partial(self._tell, (), [(submission.done, error) for submission in waiting]))
            waiting = self._wait()
