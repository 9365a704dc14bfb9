"""Putting a copy in the place of the database: checked first, under a new identity, and all at once or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from queuectld.domain.attempt import Reason
from queuectld.domain.policy import Policy
from queuectld.errors import BadRequestError, QueueCTLError, StoreDamagedError
from queuectld.host.state_dir import StateDir
from queuectld.protocol.output import SUFFIXES, base_name
from queuectld.service.attempts import Circumstances, finish, vanished
from queuectld.store.base import Query
from queuectld.store.damage import inspect
from queuectld.store.database import Database, put_in_place, remove_database
from queuectld.store.migrate import migrate
from queuectld.store.reader import SqliteReader
from queuectld.store.sqlite import SqliteStore
from queuectld.store.swap import decided, finish_swap
from queuectld.upkeep.ending import end_all
from queuectld.upkeep.rules import examine

_WHY: Final = "the queue was put back to a copy while it ran"
_ADOPT: Final = "UPDATE store SET uuid = ?, last_seq = max(last_seq, ?), last_token = max(last_token, ?)"


class Restored(NamedTuple):
    """What a restore did."""

    jobs: int
    # Attempts that were live in the copy.
    requeued: int
    workers: int
    processes: int
    # Where the database is that was replaced, if there was one.
    kept: Path | None


class _Before(NamedTuple):
    """What is known of the store that is replaced, as far as it can be read."""

    uuid: str | None = None
    last_seq: int = 0
    last_token: int = 0


def restore(state: StateDir, source: Path, *, policy: Policy, now: float) -> Restored:
    """Replace the database of a state directory that no daemon uses by a copy.

    Raises `BadRequestError`, `StoreDamagedError`, `StoreTooNewError`, `StoreError`; then everything is as it was.
    """
    path = state.database
    # What an earlier restore has decided comes first.
    finish_swap(path)
    draft = path.with_name(f"{path.name}.draft")
    remove_database(draft)
    try:
        _copy(source, draft)
        before = _before(state)
        jobs, requeued = _adapt(draft, before, policy, now)
        workers, processes = end_all(state.path, [before.uuid] if before.uuid else [])
        put_in_place(draft, decided(path))
    except BaseException:
        remove_database(draft)
        raise
    kept = finish_swap(path)
    _remove_later_output(state)
    return Restored(jobs, requeued, workers, processes, kept)


def _copy(source: Path, draft: Path) -> None:
    if not source.is_file():
        what = "is a directory" if source.is_dir() else "is no file" if source.exists() else "is not there"
        raise BadRequestError(f"{source} {what}: name a file that `queuectld db backup FILE` has written")
    try:
        inspect(source)
        database = Database(source, readonly=True)
        try:
            database.copy_to(draft)
        finally:
            database.close()
        problems = examine(draft)
    except StoreDamagedError as error:
        raise _no_backup(source, error.what) from error
    if problems:
        raise _no_backup(source, f"is damaged ({problems[0]})")


def _no_backup(source: Path, what: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"{source} {what}: it is no backup of a queue, and nothing was changed; name a file that `queuectld db backup "
        "FILE` has written"
    )


def _before(state: StateDir) -> _Before:
    """Look at the store that is replaced; it may be anything."""
    seen = max((seq for seq, _ in _outputs(state.output)), default=0)
    try:
        if not inspect(state.database):
            return _Before(last_seq=seen)
        database = Database(state.database, readonly=True)
        try:
            [(name, seq, token)] = database.run("SELECT uuid, last_seq, last_token FROM store")
            return _Before(name, max(seq, seen), token)
        finally:
            database.close()
    except (QueueCTLError, ValueError):
        return _Before(last_seq=seen)


def _adapt(draft: Path, before: _Before, policy: Policy, now: float) -> tuple[int, int]:
    """Make it a store of its own, in which nothing runs; return how many jobs it has and how many of them ran."""
    database = Database(draft)
    try:
        migrate(database, keep_copy=False)
        # Positions name files of output and make ids; the numbers of attempts count within an identity.
        database.run(_ADOPT, (uuid.uuid4().hex, before.last_seq, before.last_token))
        store = SqliteStore(database)
        live = store.live_attempts()
        with store.transaction():
            for attempt in live:
                given = Circumstances(policy, now, 0.0, attempt.boot_id)
                finish(store, attempt.token, vanished(Reason.LOST, now, _WHY), given, reboot=True)
        database.keep_log(keep=False)
        store.close()
    finally:
        database.close()
    return sum(sum(states.values()) for states in store.counts().values()), len(live)


def _remove_later_output(state: StateDir) -> None:
    """Remove what attempts wrote that the copy does not know, but will have under the same numbers."""
    database = Database(state.database, readonly=True)
    try:
        reader = SqliteReader(database)
        known = {
            job.seq: job.attempts for seqs in _chunks(state) for job in reader.find(Query(seqs=seqs), limit=500).jobs
        }
    finally:
        database.close()
    for seq, number in _outputs(state.output):
        if number > known.get(seq, number):
            base = state.output / base_name(seq, number)
            for suffix in SUFFIXES:
                base.with_name(base.name + suffix).unlink(missing_ok=True)


def _chunks(state: StateDir) -> Iterator[tuple[int, ...]]:
    seqs = sorted({seq for seq, _ in _outputs(state.output)})
    for start in range(0, len(seqs), 500):
        yield tuple(seqs[start : start + 500])


def _outputs(output: Path) -> Iterator[tuple[int, int]]:
    """Yield the position of the job and the number of each attempt that has output."""
    for file in output.glob("*/*.log"):
        seq, _, number = file.stem.partition(".")
        if seq.isdigit() and number.isdigit():
            yield int(seq), int(number)
