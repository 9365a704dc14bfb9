"""How much of the disk the output of attempts takes up, and which of it goes when that is too much.

Only the accounts are kept here. Files go after the commit that gives them up, and until they are gone the store
remembers that they have to: no crash leaves one behind that nobody knows of.
"""

# ruff: noqa: S608 - statements are put together from constants of ours, never from values
from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from queuectld.store.base import OutputPlace
from queuectld.store.database import Database
from queuectld.store.room import in_blocks
from queuectld.store.tally import Tally

_OLDEST: Final = (
    "SELECT token, job, number, output FROM attempts INDEXED BY kept_output "
    "WHERE output > 0 ORDER BY ended_at, token LIMIT ?"
)
_OF_MANY: Final = "IN (SELECT value FROM json_each(?))"
_GIVE_UP: Final = f"UPDATE attempts SET output = NULL WHERE token {_OF_MANY}"
_UNMEASURED: Final = (
    "SELECT token, job, number FROM attempts INDEXED BY unmeasured_output WHERE output < 0 ORDER BY token LIMIT ?"
)
_MEASURED: Final = "UPDATE attempts SET output = ? WHERE token = ? AND output < 0"
_REMEMBER: Final = "INSERT OR IGNORE INTO removed_output VALUES (?, ?)"
_REMOVED: Final = "SELECT job, number FROM removed_output ORDER BY job, number LIMIT ?"
_FORGET: Final = "DELETE FROM removed_output WHERE job = ? AND number = ?"


class Outputs:
    """The accounts of one database. The sum is in the tally, and stored with it."""

    def __init__(self, database: Database, tally: Tally) -> None:
        self._database = database
        self._tally = tally

    def shed(self, surplus: int, limit: int) -> int:
        """Answer `Store.shed_output`."""
        chosen, freed = [], 0
        for token, job, number, size in self._database.run(_OLDEST, (limit,)):
            if freed >= surplus:
                break
            chosen.append((token, job, number))
            freed += size
        if chosen:
            self._database.run(_GIVE_UP, (json.dumps([token for token, _, _ in chosen]),))
            self.remove([(job, number) for _, job, number in chosen])
            self._tally.kept_output -= freed
        return len(chosen)

    def unmeasured(self, limit: int) -> Sequence[OutputPlace]:
        """Answer `Store.unmeasured_output`."""
        return [OutputPlace(job, number, token) for token, job, number in self._database.run(_UNMEASURED, (limit,))]

    def measured(self, token: int, size: int) -> None:
        """Answer `Store.note_output`."""
        if self._database.change(_MEASURED, (in_blocks(size), token)):
            self._tally.kept_output += in_blocks(size)

    def remove(self, places: Sequence[tuple[int, int]]) -> None:
        """Remember that files of attempts, given as (position of the job, number), have to go."""
        self._database.many(_REMEMBER, places)

    def removed(self, limit: int) -> Sequence[OutputPlace]:
        """Answer `Store.removed_output`."""
        return [OutputPlace(job, number) for job, number in self._database.run(_REMOVED, (limit,))]

    def forget(self, places: Sequence[OutputPlace]) -> None:
        """Answer `Store.forget_output`."""
        self._database.many(_FORGET, [(place.seq, place.number) for place in places])
