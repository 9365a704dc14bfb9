"""Breaks the product on purpose, in each Python that starts with this directory on its path.

`BROKEN_ON_PURPOSE` names what is broken. Nothing in the product knows of this: whoever is attacked this way is the
code as it is but for one rule, which the attacks have to miss.
"""

# ruff: noqa: PLC0415 - only what is broken is imported, since every worker starts with this

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any


def synchronous_normal() -> None:
    """A commit is not fsynced: the write-ahead log only survives a crash of the process."""
    from queuectld.store.database import Database

    run = Database.run

    def hasty(self: Database, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return run(self, re.sub(r"^PRAGMA synchronous = \w+", "PRAGMA synchronous = NORMAL", sql), bindings)

    Database.run = hasty


def acknowledge_before_commit() -> None:
    """Answers leave while their transaction is still open."""
    from queuectld.store.thread import Batcher, StoreThread

    settle, open_ = StoreThread._settle, []

    def run(self: Batcher, batch: Sequence[Any]) -> list[Any]:
        transaction = self._store.transaction()
        transaction.__enter__()
        open_.append(transaction)
        return [self._item(submission.work) for submission in batch]

    def settle_early(self: StoreThread, batch: Sequence[Any], results: Sequence[Any]) -> None:
        settle(self, batch, results)
        # Whoever waits for an answer gets it now; who is answered is not on disk yet.
        time.sleep(0.01)
        open_.pop().__exit__(None, None, None)

    Batcher.run = run
    StoreThread._settle = settle_early


def kill_the_leader_only() -> None:
    """Of a command that is over only the process is ended that the worker started."""
    from queuectld.supervisor import rescue
    from queuectld.worker.tree import Tree

    kill_set = rescue.kill_set

    def leader(remains: Any, *others: Any) -> list[Any]:
        return [process for process in kill_set(remains, *others) if process.pid == remains.pid]

    clear = Tree.clear
    Tree.others = lambda _self: []
    Tree.clear = lambda self: clear(self) or True
    Tree.signal_group = lambda self, number: os.kill(self._leader, number)
    rescue.kill_set = leader


def ignore_outcome_files() -> None:
    """What workers wrote down while there was no daemon is not read."""
    from queuectld.supervisor.files import StateFiles

    StateFiles.outcome = lambda _self, _token: None
    StateFiles.outcomes = lambda _self: []


def take_the_living_for_dead() -> None:
    """A worker that has lost its connection with the daemon that died counts as dead, too."""
    from queuectld.supervisor import adoption
    from queuectld.supervisor.recovery import Fate

    fate = adoption.fate

    def hasty(*about: Any, **means: Any) -> Fate:
        found = fate(*about, **means)
        return found if found is Fate.REBOOTED else Fate.WIDOWED

    adoption.fate = hasty


BREAK = {
    function.__name__.replace("_", "-"): function
    for function in (
        synchronous_normal,
        acknowledge_before_commit,
        kill_the_leader_only,
        ignore_outcome_files,
        take_the_living_for_dead,
    )
}

if name := os.environ.get("BROKEN_ON_PURPOSE"):
    BREAK[name]()
