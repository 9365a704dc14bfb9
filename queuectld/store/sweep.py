"""Retention: forgetting, in small steps, what was kept long enough."""

# ruff: noqa: S608 - statements are put together from constants of ours, never from values
from __future__ import annotations

import json
from collections import Counter
from typing import Final

from queuectld.domain.job import State
from queuectld.store.base import Removed, Retention
from queuectld.store.blobs import Blobs
from queuectld.store.database import Database, Row
from queuectld.store.outputs import Outputs
from queuectld.store.rows import CODES, SEEN_DEAD
from queuectld.store.tally import Tally

_WHAT: Final = "seq, queue, state, seen, environment, stdin, script"
_OLDEST: Final = "ORDER BY updated_at, seq LIMIT ?"
_DELETED: Final = f"SELECT {_WHAT} FROM jobs INDEXED BY deleted_jobs WHERE place = 4 AND updated_at < ? {_OLDEST}"
_FINISHED: Final = f"SELECT {_WHAT} FROM jobs INDEXED BY finished_jobs WHERE place = 3 AND updated_at < ? {_OLDEST}"
_SURPLUS: Final = f"SELECT {_WHAT} FROM jobs INDEXED BY finished_jobs WHERE place = 3 {_OLDEST}"
_DROP_ATTEMPTS: Final = (
    "DELETE FROM attempts WHERE job IN (SELECT value FROM json_each(?)) RETURNING job, number, output"
)
_DROP_JOBS: Final = "DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(?))"
_OLD_ENTRIES: Final = "SELECT number, at FROM entries ORDER BY number LIMIT ?"
_DROP_ENTRIES: Final = "DELETE FROM entries WHERE number <= ?"
_DROP_REQUESTS: Final = (
    "DELETE FROM requests WHERE key IN (SELECT key FROM requests WHERE at < ? ORDER BY at, key LIMIT ?)"
)

_FINISHED_KINDS: Final = (CODES[State.COMPLETED], CODES[State.CANCELLED], SEEN_DEAD)


class Sweep:
    """One step takes a bounded number of rows away."""

    def __init__(self, database: Database, tally: Tally, blobs: Blobs, outputs: Outputs) -> None:
        self._database = database
        self._tally = tally
        self._blobs = blobs
        self._outputs = outputs

    def step(self, retention: Retention, *, now: float, limit: int) -> Removed:
        """Answer `Store.expire`."""
        jobs = self._jobs(retention, now, limit)
        requests = self._database.change(_DROP_REQUESTS, (now - retention.requests, limit))
        entries = self._entries(now - retention.events, limit)
        return Removed(jobs=jobs, entries=entries, requests=requests)

    def _jobs(self, retention: Retention, now: float, limit: int) -> int:
        removed = 0
        for sql, *values in ((_DELETED, now - retention.deleted), (_FINISHED, now - retention.finished), (_SURPLUS,)):
            left = limit - removed
            if sql is _SURPLUS:
                left = min(left, self._tally.number_of(_FINISHED_KINDS) - retention.finished_count)
            if left > 0 and (rows := self._database.run(sql, (*values, left))):
                self._forget(rows)
                removed += len(rows)
        return removed

    def _forget(self, rows: list[Row]) -> None:
        seqs = json.dumps([row[0] for row in rows])
        outputs = [row for row in self._database.run(_DROP_ATTEMPTS, (seqs,)) if row[2]]
        self._outputs.remove([(job, number) for job, number, _ in outputs])
        self._tally.kept_output -= sum(size for _, _, size in outputs if size > 0)
        self._database.run(_DROP_JOBS, (seqs,))
        self._blobs.count(fewer=[digest for row in rows for digest in row[4:] if digest is not None])
        kinds = Counter(
            (queue, SEEN_DEAD if seen and state == CODES[State.DEAD] else state) for _, queue, state, seen, *_ in rows
        )
        for (queue, kind), number in kinds.items():
            self._tally.change(queue, kind, -number)

    def _entries(self, before: float, limit: int) -> int:
        # By number, up to the first that is still young: numbers must go in their order, whatever the clock did.
        old = []
        for number, at in self._database.run(_OLD_ENTRIES, (limit,)):
            if at >= before:
                break
            old.append(number)
        if old:
            self._database.run(_DROP_ENTRIES, (old[-1],))
            self._tally.removed_entry = old[-1]
        return len(old)
