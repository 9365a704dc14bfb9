"""What both stores decide alike when jobs come in or change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet

from queuectld.domain.ids import job_id
from queuectld.domain.job import Job, State
from queuectld.domain.wording import nearest
from queuectld.errors import NoSuchQueueError
from queuectld.store.base import Entry

# Tells which of some ids are in use.
Taken = Callable[[Sequence[str]], set[str]]


class Numbers:
    """Gives seqs, and the ids made of them; a user may have chosen one of those, then its seq is left out."""

    def __init__(self, last: int, expected: int, look_up: Taken) -> None:
        """``last`` is the last seq given; about ``expected`` will be needed."""
        self.last = last
        self._look_up = look_up
        # Looked up already, all at once.
        self._names = {seq: job_id(seq) for seq in range(last + 1, last + 1 + expected)}
        self.taken = look_up(tuple(self._names.values()))

    def next(self, chosen: str, taken: AbstractSet[str]) -> tuple[int, str]:
        """Return a new seq with the chosen id, or if that is empty with one made of it."""
        self.last += 1
        if chosen:
            return self.last, chosen
        while (name := self._names.get(self.last) or self._further(self.last)) in taken or name in self.taken:
            self.last += 1
        return self.last, name

    def _further(self, seq: int) -> str:
        name = job_id(seq)
        self.taken |= self._look_up((name,))
        return name


def enqueued(job: Job, by: str | None) -> Entry:
    """Return the entry for a new job."""
    return Entry(
        at=job.created_at,
        event="job.enqueued",
        seq=job.seq,
        job=job.id,
        queue=job.queue,
        owner=job.owner,
        state=job.state,
        run_at=job.due if job.due > job.created_at else None,
        by=by,
    )


def same_request(job: Job, was: Job) -> bool:
    """Whether a change leaves alone what was asked for, and whether the job is visible."""
    return (
        job.spec is was.spec
        and job.id is was.id
        and job.environment is was.environment
        and job.stdin is was.stdin
        and job.script is was.script
        and job.owner is was.owner
        and job.created_at == was.created_at
        and (job.state is State.DELETED) == (was.state is State.DELETED)
    )


def no_such_queue(name: str, declared: Collection[str], *, hints: bool = True) -> NoSuchQueueError:
    """Return the error for a queue that nobody declared; `hints`, which cost time, name the nearest that there is."""
    near = nearest(name, declared) if hints else None
    hint = f"; did you mean '{near}'?" if near else f"; there are: {', '.join(sorted(declared)[:10])}"
    return NoSuchQueueError(f"there is no queue '{name}'{hint}", path="$.queue")
