"""What a store can do: the verbs that the rules of a job's life are written over.

`queuectld.store.memory` is the reference, `queuectld.store.sqlite` the one that lasts; one conformance suite holds both
to the same answers. All methods are synchronous and belong to one thread at a time. Errors are those of
`queuectld.errors`; a method that raises has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from queuectld.domain.attempt import Attempt, Reason
from queuectld.domain.job import Job, State


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the history of everything: a move of a job, or another thing worth telling.

    Never holds values of environments, and no output.
    """

    # Given by the store when it is written, without holes within one store's life.
    number: int = 0
    at: float
    # A stable name: job.enqueued, job.started, …, config.set, worker.replaced.
    event: str
    seq: int | None = None
    job: str | None = None
    queue: str | None = None
    owner: str | None = None
    was: State | None = None
    state: State | None = None
    attempt: int | None = None
    token: int | None = None
    worker: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: Reason | None = None
    run_at: float | None = None
    # Who asked for it, where a person did.
    by: str | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a listing shows; all conditions hold. Times in seconds since the epoch; tags are (key, value).

    ``seqs`` and the other conditions narrow each other. Without ``states`` everything visible is meant.
    """

    seqs: tuple[int, ...] | None = None
    queues: tuple[str, ...] = ()
    states: tuple[State, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    owner: str | None = None
    since: float | None = None
    until: float | None = None
    ended_since: float | None = None
    # A glob, as of fnmatch, over the text that `command_text` gives.
    command: str | None = None
    exit_code: int | None = None
    seen: bool | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs in the order of their seq, and the seq to go on behind; None: there are no more.

    May be short or empty and still have more: a page reads a bounded number of rows, and of characters.
    """

    jobs: tuple[Job, ...]
    after: int | None = None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in order. ``gap``: some between what was asked for and the first one are gone."""

    entries: tuple[Entry, ...]
    gap: bool = False


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What retention took away in one step. Files of output are named by `Store.removed_output` from then on."""

    jobs: int
    entries: int
    requests: int


class OutputPlace(NamedTuple):
    """Names the files of an attempt: the position of its job, and its number; and the attempt by its token."""

    seq: int
    number: int
    token: int = 0


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long things are kept, in seconds, and how many finished jobs at most."""

    finished: float
    finished_count: int
    deleted: float
    events: float
    requests: float


class Reader(Protocol):
    """What can be asked without changing anything; also what a read-only connection offers."""

    @property
    def uuid(self) -> str:
        """The store's identity: tokens are numbers within it. 32 hexadecimal digits."""

    def get(self, job_id: str, *, owner: str | None = None) -> Job:
        """Return the job with exactly this id, of this owner if one is given, deleted ones included.

        Of several the visible one, else the newest. Raises `NoSuchJobError`.
        """

    def by_seq(self, seq: int) -> Job:
        """Return a job by its position. Raises `NoSuchJobError`."""

    def resolve(self, prefix: str, *, owner: str | None = None) -> Job:
        """Return the visible job with this id, else the only one whose id begins so (at least 4 characters).

        ``@last`` is the newest visible one. With an `owner`, the only one of his among those whose id begins so, as far
        as he can be told among the first 2,000. Raises `NoSuchJobError`, or `AmbiguousIdError` naming some candidates.
        """

    def find(self, query: Query, *, after: int | None = None, limit: int = 100, reverse: bool = False) -> Page:
        """Return jobs by ascending seq behind `after` (descending, below it, with `reverse`)."""

    def counts(self) -> Mapping[str, Mapping[State, int]]:
        """Return the number of jobs by queue and state, zeros left out; costs a few rows however many jobs."""

    def queues(self) -> Sequence[str]:
        """Return the names of the declared queues; ``default`` is always among them."""

    def first_due(self) -> Mapping[str, float]:
        """Return, for each queue with jobs that could start now, when the one that is next was due."""

    def unseen_dead(self) -> Mapping[str, int]:
        """Return by queue how many dead jobs nobody has taken notice of, zeros left out; costs what `counts` does."""

    def next_due(self) -> float | None:
        """Return when the next job that waits for its time is due."""

    def attempt(self, token: int) -> Attempt | None:
        """Return an attempt by its token."""

    def attempts_of(self, seq: int) -> Sequence[Attempt]:
        """Return the history of a job, oldest first."""

    def live_attempts(self) -> Sequence[Attempt]:
        """Return the attempts that have no outcome, by token."""

    def blob(self, digest: str) -> bytes:
        """Return what was interned under this digest. Raises `KeyError`."""

    def entries(self, *, start: int, limit: int, seq: int | None = None) -> History:
        """Return what happened from number `start` on, of one job if asked."""

    def last_entry(self) -> int:
        """Return the number of the newest entry; 0 if there never was one."""

    def kept_output(self) -> int:
        """Return how many bytes of disk the output of finished attempts takes up, as far as it was measured."""


class Store(Reader, Protocol):
    """The verbs that change. All within `item` within `transaction`; effects show at once, and last after commit."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit at the end; roll everything back if the block raises. Raises `DiskFullError` or `StoreError`."""

    def item(self) -> AbstractContextManager[None]:
        """Undo just this part of the transaction if the block raises, and let the error through."""

    def intact(self) -> bool:
        """Whether the transaction that should be open still is; a full disk ends it behind one's back."""

    def take_entries(self) -> Sequence[Entry]:
        """Return the entries written since the last call; call it after commit to tell followers."""

    def add(self, drafts: Sequence[Job], *, by: str | None = None) -> Sequence[Job | Exception]:
        """Store new jobs with ``seq`` 0; write ``job.enqueued`` for each.

        Return each with its seq and its id (generated if empty), or the error of one that was refused
        (`DuplicateIdError`, `NoSuchQueueError`). The blobs they name must have been interned in this transaction, or
        be in use.
        """

    def save(self, job: Job, *, was: Job, entry: Entry | None = None) -> Job:
        """Replace `was` by `job` and return it with its new version; writes `entry`.

        Raises `StaleError` unless the stored version is that of `was`.
        """

    def heads(self, queue: str, *, limit: int, now: float) -> Sequence[Job]:
        """Return the first startable jobs of a queue by (rank, seq). Startable are the waiting ones that are due."""

    def ripen(self, now: float, *, limit: int) -> int:
        """Make waiting jobs whose time has come startable; return how many. Call again if it was `limit`."""

    def next_token(self) -> int:
        """Return a number larger than all before, in this store's whole life."""

    def open_attempt(self, attempt: Attempt) -> None:
        """Store a new live attempt."""

    def save_attempt(self, attempt: Attempt) -> None:
        """Replace the attempt with that token. Raises `StaleError` if it has ended already."""

    def shed_output(self, surplus: int, *, limit: int) -> int:
        """Give up the output of attempts, oldest finished first, until `surplus` bytes are free; return of how many.

        At most `limit` attempts; `removed_output` names their files.
        """

    def unmeasured_output(self, *, limit: int) -> Sequence[OutputPlace]:
        """Return finished attempts of whose output nobody knows how much it is."""

    def note_output(self, token: int, size: int) -> None:
        """Put down how many bytes of output such an attempt has; harmless if that is known."""

    def removed_output(self, *, limit: int) -> Sequence[OutputPlace]:
        """Return attempts whose files have to be removed, whatever became of them since."""

    def forget_output(self, places: Sequence[OutputPlace]) -> None:
        """Note that these files are gone."""

    def write_entry(self, entry: Entry) -> None:
        """Note something that is no move of a job."""

    def intern(self, data: bytes) -> str:
        """Keep a blob while jobs refer to it; return its digest. Equal ones are stored once."""

    def declare_queue(self, name: str) -> None:
        """Make a queue; harmless if it is there."""

    def remember(self, key: str, reply: bytes, *, now: float) -> None:
        """Keep the answer to a request under its key."""

    def recall(self, key: str) -> bytes | None:
        """Return what was remembered under a key."""

    def take_file(self, name: str) -> bool:
        """Note that the jobs of a file are stored in this transaction; False: they were before, or in it already."""

    def taken_files(self) -> Sequence[str]:
        """Return the names of such files, as far as they are not forgotten, in order."""

    def forget_files(self, names: Sequence[str]) -> None:
        """Note that these files are gone."""

    def expire(self, retention: Retention, *, now: float, limit: int) -> Removed:
        """Remove what has been kept long enough: `limit` jobs and entries at most; call again while it removes."""

    def checkpoint(self, *, truncate: bool = False) -> None:
        """Move what is in the log into the database, as far as readers allow. Outside a transaction only."""

    def close(self) -> None:
        """Let go of everything; a last checkpoint included."""


T = TypeVar("T")
# What the store thread runs: within one transaction, all or nothing.
Work = Callable[[Store], T]


def command_text(job: Job) -> str:
    """Return the command as one line for filters and tables."""
    if job.spec.command is not None:
        return job.spec.command
    return " ".join(job.spec.argv or ("(script)",))
