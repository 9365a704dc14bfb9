"""What must be true of a database besides what SQLite knows: each a query that finds nothing where all is well."""

# ruff: noqa: S608 - statements are put together from constants of ours, never from values
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from queuectld.errors import StoreDamagedError
from queuectld.store.damage import inspect
from queuectld.store.database import Database, Row
from queuectld.store.migrate import check_not_newer, newest_version, version_of
from queuectld.store.rows import ATTEMPT, JOB, attempt_of, entry_of, job_of

# Of one kind of trouble so much is told.
_EXAMPLES: Final = 5
_MANY: Final = 1000


class Rule(NamedTuple):
    """`query` gives one row, with one text, for each thing that is wrong."""

    name: str
    query: str


_KIND: Final = "iif(state = 4 AND seen, 7, state)"
_PLACE: Final = (
    "CASE WHEN state IN (0, 3) THEN iif(place = 1, 1, 2) WHEN state IN (2, 5) OR (state = 4 AND seen) THEN 3 "
    "WHEN state = 6 THEN 4 ELSE 0 END"
)
_REFERENCES: Final = (
    "SELECT digest, count(*) AS number FROM (SELECT environment AS digest FROM jobs UNION ALL SELECT stdin FROM jobs "
    "UNION ALL SELECT script FROM jobs) WHERE digest IS NOT NULL GROUP BY digest"
)

RULES: Final = (
    Rule("there is one store", "SELECT count(*) || ' rows' FROM store HAVING count(*) <> 1"),
    Rule("states are legal", "SELECT 'job ' || id || ': ' || state FROM jobs WHERE state NOT BETWEEN 0 AND 6"),
    Rule(
        "jobs stand where their state says",
        f"SELECT 'job ' || id FROM jobs WHERE place <> {_PLACE} OR hidden <> (state = 6)",
    ),
    Rule(
        "queues are declared",
        "SELECT 'job ' || id || ': ' || queue FROM jobs WHERE queue NOT IN (SELECT name FROM queues)",
    ),
    Rule(
        "the counts are right",
        f"SELECT queue || ', kind ' || kind || ': ' || sum(counted) || ' counted, ' || sum(there) || ' there' FROM ("
        f"SELECT queue, kind, number AS counted, 0 AS there FROM counts UNION ALL "
        f"SELECT queue, {_KIND}, 0, count(*) FROM jobs GROUP BY 1, 2) "
        f"GROUP BY queue, kind HAVING sum(counted) <> sum(there)",
    ),
    Rule(
        "a running job has one live attempt, its newest",
        "SELECT 'job ' || id FROM jobs WHERE (state = 1) <> (token IS NOT NULL) OR state = 1 AND ("
        "(SELECT count(*) FROM attempts WHERE job = seq AND outcome IS NULL) <> 1 OR "
        "token IS NOT (SELECT max(attempts.token) FROM attempts WHERE job = seq))",
    ),
    Rule(
        "a live attempt has a running job",
        "SELECT 'attempt ' || token FROM attempts AS a WHERE outcome IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM jobs WHERE seq = a.job AND state = 1 AND token = a.token)",
    ),
    Rule(
        "every attempt has its job", "SELECT 'attempt ' || token FROM attempts WHERE job NOT IN (SELECT seq FROM jobs)"
    ),
    Rule(
        "attempts of a job are numbered from 1 on",
        "SELECT 'job ' || id FROM jobs LEFT JOIN (SELECT job, count(*) AS n, max(number) AS last, "
        "count(DISTINCT number) AS d FROM attempts GROUP BY job) ON job = seq "
        "WHERE attempts <> ifnull(n, 0) OR attempts <> ifnull(last, 0) OR attempts <> ifnull(d, 0)",
    ),
    Rule(
        "tokens are below the counter",
        "SELECT 'attempt ' || max(token) FROM attempts, store HAVING max(token) > last_token",
    ),
    Rule("positions are below the counter", "SELECT 'job ' || max(seq) FROM jobs, store HAVING max(seq) > last_seq"),
    Rule(
        "events have no holes",
        "SELECT count(*) || ' events from ' || min(number) || ' to ' || max(number) FROM entries, store "
        "HAVING count(*) <> last_entry - removed_entry "
        "OR min(number) <> removed_entry + 1 OR max(number) <> last_entry",
    ),
    Rule(
        "what jobs refer to is there, and counted",
        f"SELECT ifnull(b.digest, r.digest) FROM blobs AS b FULL JOIN ({_REFERENCES}) AS r ON b.digest = r.digest "
        "WHERE b.refs IS NOT r.number OR b.number NOT IN (SELECT number FROM blob_data)",
    ),
    Rule(
        "output is counted",
        "SELECT kept_output || ' counted, ' || there || ' there' FROM store, "
        "(SELECT ifnull(sum(output), 0) AS there FROM attempts WHERE output > 0) WHERE kept_output <> there",
    ),
)

_ROWS: Final[tuple[tuple[str, Callable[[Row], object]], ...]] = (
    (f"SELECT {JOB} FROM jobs", job_of),
    (f"SELECT {ATTEMPT} FROM attempts", attempt_of),
    ("SELECT number, body FROM entries", entry_of),
)


def examine(path: Path) -> list[str]:
    """Return what is wrong with a database, in lines for people; changes nothing.

    Raises `StoreTooNewError`, `StoreDamagedError` if it cannot even be opened, `StoreError`.
    """
    if not inspect(path):
        raise StoreDamagedError(f"there is no database {path}")
    database = Database(path, readonly=True)
    try:
        check_not_newer(database)
        return list(_problems(database))
    finally:
        database.close()


def _problems(database: Database) -> Iterator[str]:
    try:
        found = [text for (text,) in database.run(f"PRAGMA integrity_check({_EXAMPLES * 4})")]
        if found != ["ok"]:
            yield from (f"SQLite: {line}" for text in found for line in text.splitlines())
            return
        # Older tables are another matter; they are brought up to date at the next start.
        if version_of(database) == newest_version():
            yield from _broken_rules(database)
            yield from _unreadable(database)
    except StoreDamagedError as error:
        yield error.message


def _broken_rules(database: Database) -> Iterator[str]:
    for rule in RULES:
        found = [str(text) for (text,) in database.run(f"{rule.query} LIMIT {_MANY}")]
        if found:
            more = f" and {len(found) - _EXAMPLES} more" if len(found) > _EXAMPLES else ""
            yield f"it is not true that {rule.name}: {'; '.join(found[:_EXAMPLES])}{more}"


def _unreadable(database: Database) -> Iterator[str]:
    for sql, read in _ROWS:
        count = 0
        for row in database.each(sql):
            try:
                read(row)
            except StoreDamagedError as error:
                count += 1
                if count <= _EXAMPLES:
                    yield error.message
        if count > _EXAMPLES:
            yield f"{count - _EXAMPLES} more cannot be read"
