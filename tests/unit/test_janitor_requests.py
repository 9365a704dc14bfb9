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


def test_what_a_changed_retention_no_longer_keeps_goes_at_once(tmp_path):
    store = MemoryStore()
    with store.transaction():
        store.remember("ann/old", b"{}", now=0.0)

    def settings(**environ):
        return load(tmp_path / "none.toml", tmp_path / "overrides.json", environ)

    config = Holder(settings(QUEUECTLD_RETENTION_REQUESTS="7d"))

    async def scenario():
        janitor = Janitor(Direct(store), config, tmp_path, clock=lambda: DAY + 1)
        running = asyncio.create_task(janitor.run())
        # Its first round, and more than that.
        for _ in range(100):
            await asyncio.sleep(0)
        kept = store.recall("ann/old")
        config.replace(settings())
        async with asyncio.timeout(10):
            while store.recall("ann/old"):  # noqa: ASYNC110  (a store has nothing to await)
                await asyncio.sleep(0)
        running.cancel()
        return kept

    assert asyncio.run(scenario()) == b"{}"
