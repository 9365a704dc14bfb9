"""The asking half of the reference: dictionaries, looked through from end to end."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import Job, State
from queuectld.errors import NoSuchJobError
from queuectld.store.base import Entry, History, OutputPlace, Page, Query
from queuectld.store.filter import matches
from queuectld.store.place import STARTABLE, UNRIPE
from queuectld.store.reader import PREFIX_LENGTH, only_one
from queuectld.store.room import UNMEASURED


class MemoryReader:
    """See `queuectld.store.base.Reader`."""

    def __init__(self) -> None:
        self.uuid = uuid.uuid4().hex
        self._jobs: dict[int, Job] = {}
        self._places: dict[int, int] = {}
        self._attempts: dict[int, Attempt] = {}
        self._entries: dict[int, Entry] = {}
        self._blobs: dict[str, bytes] = {}
        self._queues: dict[str, None] = {"default": None}
        self._requests: dict[str, tuple[float, bytes]] = {}
        self._removed: dict[tuple[int, int], None] = {}
        self._taken_files: dict[str, None] = {}
        self._numbers = {"seq": 0, "token": 0, "entry": 0, "removed": 0}

    def _visible(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.state is not State.DELETED]

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """See `Reader.get`."""
        found = [job for job in self._jobs.values() if job.id == job_id and owner in {None, job.owner}]
        if not found:
            raise NoSuchJobError(f"there is no job '{job_id}'")
        return max(found, key=lambda job: (job.state is not State.DELETED, job.seq))

    def by_seq(self, seq: int) -> Job:
        """See `Reader.by_seq`."""
        if seq not in self._jobs:
            raise NoSuchJobError(f"there is no job number {seq}")
        return self._jobs[seq]

    def resolve(self, prefix: str, *, owner: str | None = None) -> Job:
        """See `Reader.resolve`."""
        jobs = sorted(self._visible(), key=lambda job: job.id)
        if owner is not None:
            return only_one(prefix, [job for job in jobs if job.id.startswith(prefix) and job.owner == owner])
        if prefix == "@last":
            return only_one(prefix, sorted(jobs, key=lambda job: job.seq)[-1:])
        exact = [job for job in jobs if job.id == prefix]
        likely = [job for job in jobs if len(prefix) >= PREFIX_LENGTH and job.id.startswith(prefix)]
        return only_one(prefix, exact or likely)

    def find(self, query: Query, *, after: int | None = None, limit: int = 100, reverse: bool = False) -> Page:
        """See `Reader.find`."""
        found = sorted(
            (job for job in self._jobs.values() if matches(query, job)), key=lambda job: job.seq, reverse=reverse
        )
        if after is not None:
            found = [job for job in found if (job.seq < after if reverse else job.seq > after)]
        return Page(jobs=tuple(found[:limit]), after=found[limit - 1].seq if len(found) > limit else None)

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """See `Reader.counts`."""
        counts: dict[str, dict[State, int]] = {}
        for job in self._jobs.values():
            states = counts.setdefault(job.queue, {})
            states[job.state] = states.get(job.state, 0) + 1
        return counts

    def queues(self) -> Sequence[str]:
        """See `Reader.queues`."""
        return sorted(self._queues)

    def _standing(self, place: int) -> list[Job]:
        return [job for seq, job in self._jobs.items() if self._places[seq] == place]

    def first_due(self) -> Mapping[str, float]:
        """See `Reader.first_due`."""
        standing = sorted(self._standing(STARTABLE), key=lambda job: (job.rank, job.seq), reverse=True)
        return {job.queue: job.due for job in standing}

    def unseen_dead(self) -> Mapping[str, int]:
        """See `Reader.unseen_dead`."""
        return Counter(job.queue for job in self._visible() if job.state is State.DEAD and not job.seen)

    def next_due(self) -> float | None:
        """See `Reader.next_due`."""
        return min((job.due for job in self._standing(UNRIPE)), default=None)

    def attempt(self, token: int) -> Attempt | None:
        """See `Reader.attempt`."""
        return self._attempts.get(token)

    def attempts_of(self, seq: int) -> Sequence[Attempt]:
        """See `Reader.attempts_of`."""
        return [attempt for _, attempt in sorted(self._attempts.items()) if attempt.job == seq]

    def live_attempts(self) -> Sequence[Attempt]:
        """See `Reader.live_attempts`."""
        return [attempt for _, attempt in sorted(self._attempts.items()) if attempt.live]

    def entries(self, *, start: int, limit: int, seq: int | None = None) -> History:
        """See `Reader.entries`."""
        kept = [entry for number, entry in sorted(self._entries.items()) if number >= start]
        found = tuple(entry for entry in kept if seq is None or entry.seq == seq)[:limit]
        whole = seq is not None and found and found[0].event == "job.enqueued"
        return History(entries=found, gap=not whole and max(start, 1) <= self._numbers["removed"])

    def last_entry(self) -> int:
        """See `Reader.last_entry`."""
        return self._numbers["entry"]

    def kept_output(self) -> int:
        """See `Reader.kept_output`."""
        return sum(max(attempt.output or 0, 0) for attempt in self._attempts.values())

    def unmeasured_output(self, *, limit: int) -> Sequence[OutputPlace]:
        """See `Store.unmeasured_output`."""
        found = [attempt for _, attempt in sorted(self._attempts.items()) if attempt.output == UNMEASURED]
        return [OutputPlace(attempt.job, attempt.number, attempt.token) for attempt in found[:limit]]

    def removed_output(self, *, limit: int) -> Sequence[OutputPlace]:
        """See `Store.removed_output`."""
        return [OutputPlace(*place) for place in sorted(self._removed)[:limit]]

    def blob(self, digest: str) -> bytes:
        """See `Reader.blob`."""
        return self._blobs[digest]
