"""Whether a database is in order, as far as that is seen in a bounded time: first what everything hangs on."""

from __future__ import annotations

from typing import Final

from queuectld.store.damage import damaged
from queuectld.store.database import Database, Row

_TREES: Final = (
    "SELECT name, tbl_name FROM sqlite_schema WHERE rootpage > 0 UNION ALL VALUES ('sqlite_schema', 'sqlite_schema')"
)
# SQLite makes a row of each page as it is asked for: this reads one.
_ROOT: Final = "SELECT pagetype FROM dbstat WHERE name = ? LIMIT 1"


def survey(database: Database, *, seconds: float) -> bool:
    """Look into a database; return whether all of it was seen. Raises `StoreDamagedError`.

    The root of every table and index is, and every table that is small, however large the others are.
    """
    tables, large = set(), set()
    for name, table in database.run(_TREES):
        [(kind,)] = database.run(_ROOT, (name,)) or [("",)]
        if kind not in {"leaf", "internal"}:
            raise damaged(database.path, f"is damaged (the beginning of {name})")
        tables.add(table)
        if kind == "internal":
            large.add(table)
    for table in sorted(tables - large):
        _judge(database, database.run(f'PRAGMA quick_check("{table}")'))
    told = database.run_within(seconds, "PRAGMA quick_check(1)")
    if told is None:
        return False
    _judge(database, told)
    return True


def _judge(database: Database, told: list[Row]) -> None:
    if told != [("ok",)]:
        raise damaged(database.path, f"is damaged ({' '.join(str(told[0][0]).split())})")
