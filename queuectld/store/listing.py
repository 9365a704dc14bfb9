"""Pages of jobs by key, reading a bounded number of rows each, however rare what is looked for."""

# ruff: noqa: S608 - statements are put together from constants of ours, never from values
from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from queuectld.domain.job import Job, State
from queuectld.store.base import Page, Query
from queuectld.store.database import Database, Row
from queuectld.store.filter import matches
from queuectld.store.rows import CODES, JOB, job_of

# So many rows are looked at for one page and state, about 5 ms of work; then the page is short and says where to go on.
_WINDOW: Final = 2000
# A page ends behind this many characters of specs, however few jobs they are of: one may have a million.
_PAGE_SIZE: Final = 4 * 1024 * 1024
_SEQ, _SPEC = (JOB.split(", ").index(name) for name in ("seq", "spec"))
# Behind every seq: 63 bits, as SQLite has them.
_END: Final = 2**63 - 1


def read_page(database: Database, query: Query, *, after: int | None, limit: int, reverse: bool) -> Page:
    """Answer `Reader.find`."""
    start = after if after is not None else (_END if reverse else 0)
    scan = _Scan(database, query, start, limit, reverse=reverse)
    parts = [scan.part(state) for state in (dict.fromkeys(query.states) or (None,))]
    edges = [edge for _, edge in parts if edge is not None]
    edge = (max(edges) if reverse else min(edges)) if edges else None
    jobs = sorted((job for found, _ in parts for job in found), key=lambda job: job.seq, reverse=reverse)
    if edge is not None:
        jobs = [job for job in jobs if (job.seq >= edge if reverse else job.seq <= edge)]
    if len(jobs) > limit:
        jobs = jobs[:limit]
        edge = jobs[-1].seq
    return Page(jobs=tuple(jobs), after=edge)


class _Scan:
    """Reads what the conditions of one query allow behind `start`, in one direction."""

    def __init__(self, database: Database, query: Query, start: int, limit: int, *, reverse: bool) -> None:
        self._database = database
        self._start = start
        self._beyond, self._within, self._order = ("<", ">=", "DESC") if reverse else (">", "<=", "ASC")
        self._last = 0 if reverse else _END
        self._chosen = None if query.seqs is None else _next_seqs(query.seqs, start, reverse=reverse)
        self._query = replace(query, seqs=None)
        self._where, self._values = _conditions(query)
        # What SQL cannot tell, Python looks for among all rows of the window.
        self._limit = _WINDOW if query.tags or query.command is not None else limit + 1

    def part(self, state: State | None) -> tuple[list[Job], int | None]:
        """Return matching jobs of a state (None: all visible), and the end of the window if there may be more."""
        source, edge = self._window(state)
        values = [self._start, self._last if edge is None else edge, *self._values]
        where = self._where
        if self._chosen is not None:
            where += " AND seq IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(self._chosen[:_WINDOW]))
        rows = self._database.each(
            f"SELECT {JOB} FROM {source} AND seq {self._beyond} ? AND seq {self._within} ? {where} "
            f"ORDER BY seq {self._order} LIMIT ?",
            (*values, self._limit),
        )
        return self._fitting(rows, edge)

    def _fitting(self, rows: Iterable[Row], edge: int | None) -> tuple[list[Job], int | None]:
        """Return those that match, as far as they are not too much for one page, and the last seq looked at."""
        found: list[Job] = []
        size, last = 0, None
        for row in rows:
            size += len(row[_SPEC])
            if size > _PAGE_SIZE and last is not None:
                return found, last
            last = row[_SEQ]
            if matches(self._query, job := job_of(row)):
                found.append(job)
        return found, edge

    def _window(self, state: State | None) -> tuple[str, int | None]:
        """Return where to read, and the last seq of a full window."""
        condition = "hidden = 0" if state is None else f"state = {CODES[state]}"
        if self._chosen is not None:
            return f"jobs WHERE {condition}", self._chosen[_WINDOW - 1] if len(self._chosen) > _WINDOW else None
        if state is None:
            return f"jobs NOT INDEXED WHERE {condition}", self._edge("jobs NOT INDEXED WHERE true")
        source = f"jobs INDEXED BY jobs_by_state WHERE {condition}"
        return source, self._edge(source)

    def _edge(self, source: str) -> int | None:
        row = self._database.one(
            f"SELECT seq FROM {source} AND seq {self._beyond} ? ORDER BY seq {self._order} LIMIT 1 OFFSET ?",
            (self._start, _WINDOW - 1),
        )
        return None if row is None else row[0]


def _next_seqs(seqs: tuple[int, ...], start: int, *, reverse: bool) -> list[int]:
    return sorted({seq for seq in seqs if (seq < start if reverse else seq > start)}, reverse=reverse)


def _conditions(query: Query) -> tuple[str, list[Any]]:
    """Return what SQL can tell: a necessary condition, with its values."""
    terms: list[tuple[str, Any]] = []
    if query.queues:
        terms.append(("queue IN (SELECT value FROM json_each(?))", json.dumps(query.queues)))
    for condition, value in (
        ("owner = ?", query.owner),
        ("created_at >= ?", query.since),
        ("created_at < ?", query.until),
        ("ended_at >= ?", query.ended_since),
        ("exit_code = ?", query.exit_code),
        ("seen = ?", query.seen),
    ):
        if value is not None:
            terms.append((condition, value))
    return "".join(f" AND {condition}" for condition, _ in terms), [value for _, value in terms]
