"""The store that lasts: the verbs on one SQLite connection that writes."""

# ruff: noqa: S608 - statements are put together from constants of ours, never from values
from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import Job
from queuectld.errors import DuplicateIdError, StaleError
from queuectld.store.admission import Numbers, enqueued, no_such_queue, same_request
from queuectld.store.base import Entry, OutputPlace, Removed, Retention
from queuectld.store.blobs import references
from queuectld.store.commits import Commits
from queuectld.store.damage import inspect
from queuectld.store.database import ConstraintError, Database, put_in_place, remove_database
from queuectld.store.migrate import MIGRATIONS, migrate
from queuectld.store.outputs import Outputs
from queuectld.store.place import RIPEN_STEP, UNRIPE, place_of
from queuectld.store.rows import (
    ASKED,
    ATTEMPT,
    JOB,
    LIFE,
    asked_of,
    attempt_row,
    ending_row,
    job_of,
    kind_of,
    life_of,
)
from queuectld.store.survey import survey
from queuectld.store.swap import finish_swap
from queuectld.store.sweep import Sweep


def _marks(columns: str) -> str:
    return ", ".join("?" * len(columns.split(", ")))


_ADD_JOB: Final = f"INSERT INTO jobs (seq, {ASKED}, {LIFE}) VALUES (?, {_marks(ASKED)}, {_marks(LIFE)})"
_SAVE_LIFE: Final = f"UPDATE jobs SET ({LIFE}) = ({_marks(LIFE)}) WHERE seq = ? AND version = ?"
_SAVE_ALL: Final = (
    f"UPDATE jobs SET ({ASKED}, {LIFE}) = ({_marks(ASKED)}, {_marks(LIFE)}) WHERE seq = ? AND version = ?"
)
_TAKEN: Final = "SELECT id FROM jobs WHERE hidden = 0 AND id = ?"
_TAKEN_OF_MANY: Final = "SELECT id FROM jobs WHERE hidden = 0 AND id IN (SELECT value FROM json_each(?))"
_HEADS: Final = (
    f"SELECT {JOB} FROM jobs INDEXED BY startable_jobs WHERE place = 1 AND queue = ? ORDER BY rank, seq LIMIT ?"
)
_RIPEN: Final = (
    "UPDATE jobs SET place = 1 WHERE seq IN "
    "(SELECT seq FROM jobs INDEXED BY unripe_jobs WHERE place = 2 AND due <= ? ORDER BY due, seq LIMIT ?)"
)
_OPEN_ATTEMPT: Final = f"INSERT INTO attempts ({ATTEMPT}) VALUES ({_marks(ATTEMPT)})"
_SAVE_ATTEMPT: Final = (
    "UPDATE attempts SET pid = ?, pid_start = ?, started_at = ?, outcome = ?, ended_at = ?, output = ? "
    "WHERE token = ? AND outcome IS NULL"
)
_DECLARE: Final = "INSERT OR IGNORE INTO queues VALUES (?)"
_REMEMBER: Final = "INSERT OR REPLACE INTO requests VALUES (?, ?, ?)"
_RECALL: Final = "SELECT reply FROM requests WHERE key = ?"
_TAKE_FILE: Final = "INSERT OR IGNORE INTO taken_files VALUES (?)"
_TAKEN_FILES: Final = "SELECT name FROM taken_files ORDER BY name"
_FORGET_FILE: Final = "DELETE FROM taken_files WHERE name = ?"


# Seconds for a look into the database when it is opened: enough for 100 MiB that are in memory.
_SURVEY: Final = 0.3


class SqliteStore(Commits):
    """See `queuectld.store.base.Store`. Belongs to one thread at a time."""

    def __init__(self, database: Database, committed: Callable[[float], None] = lambda _: None) -> None:
        """`committed` is told of each commit how many seconds the disk took for it."""
        super().__init__(database, committed)
        self._outputs = Outputs(database, self._tally)
        self._sweep = Sweep(database, self._tally, self._blobs, self._outputs)

    # Jobs.

    def add(self, drafts: Sequence[Job], *, by: str | None = None) -> Sequence[Job | Exception]:
        """See `Store.add`."""
        answers = self._admit(drafts)
        jobs = [answer for answer in answers if isinstance(answer, Job)]
        if jobs:
            self._database.many(_ADD_JOB, [(job.seq, *asked_of(job), *life_of(job)) for job in jobs])
            if digests := [digest for job in jobs for digest in references(job)]:
                self._blobs.count(more=digests)
            self._count(jobs)
            self._write([enqueued(job, by) for job in jobs])
            self._expect(jobs)
        return answers

    def _count(self, jobs: Iterable[Job]) -> None:
        kinds: dict[tuple[str, int], int] = {}
        for job in jobs:
            kind = (job.queue, kind_of(job))
            kinds[kind] = kinds.get(kind, 0) + 1
        for (queue, number), by in kinds.items():
            self._tally.change(queue, number, by)

    def _admit(self, drafts: Sequence[Job]) -> list[Job | Exception]:
        """Give each draft its seq and id, or its error."""
        numbers = Numbers(self._tally.last_seq, len(drafts), self._taken)
        taken = self._taken([draft.id for draft in drafts if draft.id])
        answers: list[Job | Exception] = []
        for draft in drafts:
            if draft.queue not in self._declared:
                answers.append(no_such_queue(draft.queue, self._declared))
            elif draft.id in taken:
                answers.append(DuplicateIdError(f"a job with id '{draft.id}' exists already"))
            else:
                seq, name = numbers.next(draft.id, taken)
                taken.add(name)
                answers.append(replace(draft, seq=seq, id=name, version=0))
        self._tally.last_seq = numbers.last
        return answers

    def _taken(self, names: Sequence[str]) -> set[str]:
        if not names:
            return set()
        one = len(names) == 1
        found = self._database.run(_TAKEN, names) if one else self._database.run(_TAKEN_OF_MANY, (json.dumps(names),))
        return {name for (name,) in found}

    def _expect(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.due < self._unripe_from and place_of(job) == UNRIPE:
                self._unripe_from = job.due

    def save(self, job: Job, *, was: Job, entry: Entry | None = None) -> Job:
        """See `Store.save`."""
        saved = replace(job, version=was.version + 1)
        if same_request(job, was):
            changed = self._database.change(_SAVE_LIFE, (*life_of(saved), was.seq, was.version))
        else:
            changed = self._save_all(saved, was)
        if not changed:
            raise StaleError(f"job '{was.id}' was changed meanwhile")
        if was.queue != saved.queue or kind_of(was) != kind_of(saved):
            self._tally.change(was.queue, kind_of(was), -1)
            self._tally.change(saved.queue, kind_of(saved), 1)
        self._expect((saved,))
        if entry is not None:
            self.write_entry(entry)
        return saved

    def _save_all(self, saved: Job, was: Job) -> int:
        try:
            changed = self._database.change(_SAVE_ALL, (*asked_of(saved), *life_of(saved), was.seq, was.version))
        except ConstraintError:
            raise DuplicateIdError(f"a job with id '{saved.id}' exists already") from None
        if changed:
            self._blobs.count(more=references(saved), fewer=references(was))
        return changed

    def heads(self, queue: str, *, limit: int, now: float) -> Sequence[Job]:
        """See `Store.heads`. Also makes a first step of what `ripen` should have done before."""
        if self._unripe_from <= now:
            self.ripen(now, limit=RIPEN_STEP)
        return [job_of(row) for row in self._database.run(_HEADS, (queue, limit))]

    def ripen(self, now: float, *, limit: int) -> int:
        """See `Store.ripen`."""
        changed = self._database.change(_RIPEN, (now, limit))
        due = self.next_due()
        self._unripe_from = math.inf if due is None else due
        return changed

    # Attempts.

    def next_token(self) -> int:
        """See `Store.next_token`."""
        self._tally.last_token += 1
        return self._tally.last_token

    def open_attempt(self, attempt: Attempt) -> None:
        """See `Store.open_attempt`."""
        self._database.run(_OPEN_ATTEMPT, attempt_row(attempt))

    def save_attempt(self, attempt: Attempt) -> None:
        """See `Store.save_attempt`."""
        ending = ending_row(attempt.outcome)
        values = (attempt.pid, attempt.pid_start, attempt.started_at, *ending, attempt.token)
        if not self._database.change(_SAVE_ATTEMPT, values):
            raise StaleError(f"attempt {attempt.token} has ended already")
        _, _, room = ending
        self._tally.kept_output += max(room, 0)

    # Output.

    def shed_output(self, surplus: int, *, limit: int) -> int:
        """See `Store.shed_output`."""
        return self._outputs.shed(surplus, limit)

    def unmeasured_output(self, *, limit: int) -> Sequence[OutputPlace]:
        """See `Store.unmeasured_output`."""
        return self._outputs.unmeasured(limit)

    def note_output(self, token: int, size: int) -> None:
        """See `Store.note_output`."""
        self._outputs.measured(token, size)

    def removed_output(self, *, limit: int) -> Sequence[OutputPlace]:
        """See `Store.removed_output`."""
        return self._outputs.removed(limit)

    def forget_output(self, places: Sequence[OutputPlace]) -> None:
        """See `Store.forget_output`."""
        self._outputs.forget(places)

    # The rest.

    def intern(self, data: bytes) -> str:
        """See `Store.intern`."""
        return self._blobs.intern(data)

    def declare_queue(self, name: str) -> None:
        """See `Store.declare_queue`."""
        if name not in self._declared:
            self._database.run(_DECLARE, (name,))
            self._declared |= {name}

    def remember(self, key: str, reply: bytes, *, now: float) -> None:
        """See `Store.remember`."""
        self._database.run(_REMEMBER, (key, now, reply))

    def recall(self, key: str) -> bytes | None:
        """See `Store.recall`."""
        row = self._database.one(_RECALL, (key,))
        return None if row is None else row[0]

    def take_file(self, name: str) -> bool:
        """See `Store.take_file`."""
        return bool(self._database.change(_TAKE_FILE, (name,)))

    def taken_files(self) -> Sequence[str]:
        """See `Store.taken_files`."""
        return [name for (name,) in self._database.run(_TAKEN_FILES)]

    def forget_files(self, names: Sequence[str]) -> None:
        """See `Store.forget_files`."""
        self._database.many(_FORGET_FILE, [(name,) for name in names])

    def expire(self, retention: Retention, *, now: float, limit: int) -> Removed:
        """See `Store.expire`."""
        return self._sweep.step(retention, now=now, limit=limit)


def open_store(
    path: Path, *, migrations: Path = MIGRATIONS, committed: Callable[[float], None] = lambda _: None
) -> SqliteStore:
    """Open a database for writing; make or migrate it first if need be. `committed` is as for `SqliteStore`.

    Raises `StoreError`, `StoreTooNewError`, `StoreDamagedError`; a damaged file is left as it is.
    """
    finish_swap(path)
    if not inspect(path):
        _create(path, migrations)
    database = Database(path)
    try:
        survey(database, seconds=_SURVEY)
        database.make_last()
        migrate(database, migrations)
        store = SqliteStore(database, committed)
        database.keep_log(keep=False)
    except BaseException:
        database.close()
        raise
    return store


def _create(path: Path, migrations: Path) -> None:
    """Make a new database, which is there as a whole or not at all: an empty file is a sign of damage."""
    draft = path.with_name(f"{path.name}.new")
    remove_database(draft)
    database = Database(draft)
    try:
        migrate(database, migrations)
        # To close it does so as well, but says nothing if that fails; and the log stays behind where it is.
        database.checkpoint(truncate=True)
        database.keep_log(keep=False)
    finally:
        database.close()
    put_in_place(draft, path)
