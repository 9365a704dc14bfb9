from __future__ import annotations

import asyncio

from queuectld.config import Holder, load
from queuectld.store.memory import MemoryStore
from queuectld.supervisor.janitor import Janitor

DAY = 86400.0


class Direct:
    """A ledger that carries everything out at once."""

    def __init__(self, store):
        self._store = store

    async def write(self, work):
        with self._store.transaction():
            return work(self._store)


def test_answers_to_requests_go_after_a_day_however_many_there_are(tmp_path):
    store = MemoryStore()
    with store.transaction():
        for number in range(1200):
            store.remember(f"ann/{number}", b"{}", now=0.0)
        store.remember("ann/young", b"{}", now=DAY)
    config = Holder(load(tmp_path / "none.toml", tmp_path / "overrides.json", {}))

    asyncio.run(Janitor(Direct(store), config, tmp_path, clock=lambda: DAY + 1).clean())

    assert not any(store.recall(f"ann/{number}") for number in range(1200))
    assert store.recall("ann/young") == b"{}"
