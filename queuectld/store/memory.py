"""The reference: what the verbs mean, as plainly as possible. Keeps everything in dictionaries, nothing for long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from msgspec.structs import replace

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import Job, State
from queuectld.errors import DuplicateIdError, StaleError, StoreError
from queuectld.store.admission import Numbers, enqueued, no_such_queue
from queuectld.store.base import Entry, OutputPlace, Removed, Retention
from queuectld.store.blobs import digest_of, references
from queuectld.store.memory_reader import MemoryReader
from queuectld.store.place import FINISHED, HIDDEN, RIPEN_STEP, STARTABLE, UNRIPE, place_of
from queuectld.store.room import UNMEASURED, in_blocks, room_of

_MISSING: Final = object()


class MemoryStore(MemoryReader):
    """See `queuectld.store.base.Store`. Changes go through `_put` and `_drop`, which know how to take them back."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[Entry] = []
        self._undo: list[Callable[[], object]] = []
        self._open = False

    # Transactions.

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        old = table.get(key, _MISSING)
        self._undo.append(lambda: table.pop(key) if old is _MISSING else table.__setitem__(key, old))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Any) -> None:
        old = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, old))

    @contextmanager
    def _undone_if_it_fails(self) -> Iterator[None]:
        mark, written = len(self._undo), len(self._written)
        try:
            yield
        except BaseException:
            while len(self._undo) > mark:
                self._undo.pop()()
            del self._written[written:]
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store.transaction`."""
        self._open = True
        try:
            with self._undone_if_it_fails():
                yield
                self._drop_loose_blobs()
        finally:
            self._undo.clear()
            self._open = False

    @contextmanager
    def item(self) -> Iterator[None]:
        """See `Store.item`."""
        with self._undone_if_it_fails():
            yield

    def intact(self) -> bool:
        """See `Store.intact`."""
        return self._open

    def take_entries(self) -> Sequence[Entry]:
        """See `Store.take_entries`."""
        entries, self._written = self._written, []
        return entries

    def checkpoint(self, *, truncate: bool = False) -> None:
        """See `Store.checkpoint`; there is no log."""

    def close(self) -> None:
        """See `Store.close`."""

    # Jobs.

    def add(self, drafts: Sequence[Job], *, by: str | None = None) -> Sequence[Job | Exception]:
        """See `Store.add`."""
        with self._undone_if_it_fails():
            taken = {job.id for job in self._visible()}
            return [self._add(draft, by, taken) for draft in drafts]

    def _add(self, draft: Job, by: str | None, taken: set[str]) -> Job | Exception:
        if draft.queue not in self._queues:
            return no_such_queue(draft.queue, self._queues)
        if draft.id in taken:
            return DuplicateIdError(f"a job with id '{draft.id}' exists already")
        seq, name = Numbers(self._numbers["seq"], 1, taken.intersection).next(draft.id, taken)
        job = replace(draft, seq=seq, id=name, version=0)
        self._check_blobs(job)
        self._put(self._numbers, "seq", seq)
        self._set(job)
        taken.add(job.id)
        self.write_entry(enqueued(job, by))
        return job

    def _check_blobs(self, job: Job) -> None:
        for digest in references(job):
            if digest not in self._blobs:
                raise StoreError(f"a job refers to the blob {digest}, which is not there")

    def _set(self, job: Job) -> None:
        self._put(self._jobs, job.seq, job)
        self._put(self._places, job.seq, place_of(job))

    def save(self, job: Job, *, was: Job, entry: Entry | None = None) -> Job:
        """See `Store.save`."""
        stored = self._jobs.get(was.seq)
        if stored is None or stored.version != was.version:
            raise StaleError(f"job '{was.id}' was changed meanwhile")
        if job.state is not State.DELETED and any(
            other.id == job.id and other.seq != job.seq for other in self._visible()
        ):
            raise DuplicateIdError(f"a job with id '{job.id}' exists already")
        self._check_blobs(job)
        saved = replace(job, version=was.version + 1)
        self._set(saved)
        if entry is not None:
            self.write_entry(entry)
        return saved

    def heads(self, queue: str, *, limit: int, now: float) -> Sequence[Job]:
        """See `Store.heads`."""
        self.ripen(now, limit=RIPEN_STEP)
        startable = [job for job in self._standing(STARTABLE) if job.queue == queue]
        return sorted(startable, key=lambda job: (job.rank, job.seq))[:limit]

    def ripen(self, now: float, *, limit: int) -> int:
        """See `Store.ripen`."""
        due = sorted((job for job in self._standing(UNRIPE) if job.due <= now), key=lambda job: (job.due, job.seq))
        for job in due[:limit]:
            self._put(self._places, job.seq, STARTABLE)
        return len(due[:limit])

    # Attempts.

    def next_token(self) -> int:
        """See `Store.next_token`."""
        self._put(self._numbers, "token", self._numbers["token"] + 1)
        return self._numbers["token"]

    def open_attempt(self, attempt: Attempt) -> None:
        """See `Store.open_attempt`."""
        if attempt.token in self._attempts:
            raise StoreError(f"there is an attempt {attempt.token} already")
        self._put(self._attempts, attempt.token, attempt)

    def save_attempt(self, attempt: Attempt) -> None:
        """See `Store.save_attempt`."""
        stored = self._attempts.get(attempt.token)
        if stored is None or not stored.live:
            raise StaleError(f"attempt {attempt.token} has ended already")
        self._put(self._attempts, attempt.token, replace(attempt, output=room_of(attempt.outcome)))

    # Output.

    def _with_output(self) -> list[Attempt]:
        kept = [attempt for attempt in self._attempts.values() if attempt.outcome and (attempt.output or 0) > 0]
        return sorted(kept, key=lambda attempt: (attempt.outcome.ended_at if attempt.outcome else 0.0, attempt.token))

    def shed_output(self, surplus: int, *, limit: int) -> int:
        """See `Store.shed_output`."""
        count = freed = 0
        for attempt in self._with_output()[:limit]:
            if freed >= surplus:
                break
            freed += attempt.output or 0
            count += 1
            self._put(self._attempts, attempt.token, replace(attempt, output=None))
            self._put(self._removed, (attempt.job, attempt.number), None)
        return count

    def note_output(self, token: int, size: int) -> None:
        """See `Store.note_output`."""
        attempt = self._attempts.get(token)
        if attempt is not None and attempt.output == UNMEASURED:
            self._put(self._attempts, token, replace(attempt, output=in_blocks(size)))

    def forget_output(self, places: Sequence[OutputPlace]) -> None:
        """See `Store.forget_output`."""
        for place in places:
            if (place.seq, place.number) in self._removed:
                self._drop(self._removed, (place.seq, place.number))

    # Entries.

    def write_entry(self, entry: Entry) -> None:
        """See `Store.write_entry`."""
        number = self._numbers["entry"] + 1
        self._put(self._numbers, "entry", number)
        self._put(self._entries, number, replace(entry, number=number))
        self._written.append(self._entries[number])

    # The rest.

    def intern(self, data: bytes) -> str:
        """See `Store.intern`."""
        digest = digest_of(data)
        if digest not in self._blobs:
            self._put(self._blobs, digest, data)
        return digest

    def _drop_loose_blobs(self) -> None:
        wanted = {digest for job in self._jobs.values() for digest in references(job)}
        for digest in self._blobs.keys() - wanted:
            self._drop(self._blobs, digest)

    def declare_queue(self, name: str) -> None:
        """See `Store.declare_queue`."""
        self._put(self._queues, name, None)

    def remember(self, key: str, reply: bytes, *, now: float) -> None:
        """See `Store.remember`."""
        self._put(self._requests, key, (now, reply))

    def recall(self, key: str) -> bytes | None:
        """See `Store.recall`."""
        return self._requests[key][1] if key in self._requests else None

    # Files of the spool.

    def take_file(self, name: str) -> bool:
        """See `Store.take_file`."""
        if name in self._taken_files:
            return False
        self._put(self._taken_files, name, None)
        return True

    def taken_files(self) -> Sequence[str]:
        """See `Store.taken_files`."""
        return sorted(self._taken_files)

    def forget_files(self, names: Sequence[str]) -> None:
        """See `Store.forget_files`."""
        for name in self._taken_files.keys() & set(names):
            self._drop(self._taken_files, name)

    # Retention.

    def expire(self, retention: Retention, *, now: float, limit: int) -> Removed:
        """See `Store.expire`."""
        with self._undone_if_it_fails():
            jobs = self._too_old(retention, now)[:limit]
            for job in jobs:
                self._forget(job)
            old = sorted((at, key) for key, (at, _) in self._requests.items() if at < now - retention.requests)
            requests = [key for _, key in old[:limit]]
            for key in requests:
                self._drop(self._requests, key)
            entries = self._expire_entries(now - retention.events, limit)
            return Removed(jobs=len(jobs), entries=entries, requests=len(requests))

    def _too_old(self, retention: Retention, now: float) -> list[Job]:
        deleted = [job for job in self._standing(HIDDEN) if job.updated_at < now - retention.deleted]
        finished = sorted(self._standing(FINISHED), key=lambda job: (job.updated_at, job.seq))
        surplus = len(finished) - retention.finished_count
        old = [
            job for index, job in enumerate(finished) if index < surplus or job.updated_at < now - retention.finished
        ]
        return sorted(deleted, key=lambda job: (job.updated_at, job.seq)) + old

    def _forget(self, job: Job) -> None:
        for attempt in self.attempts_of(job.seq):
            self._drop(self._attempts, attempt.token)
            if attempt.output:
                self._put(self._removed, (attempt.job, attempt.number), None)
        self._drop(self._jobs, job.seq)
        self._drop(self._places, job.seq)

    def _expire_entries(self, before: float, limit: int) -> int:
        removed = 0
        for number in sorted(self._entries)[:limit]:
            if self._entries[number].at >= before:
                break
            self._drop(self._entries, number)
            self._put(self._numbers, "removed", number)
            removed += 1
        return removed
