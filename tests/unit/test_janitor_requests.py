from __future__ import annotations

import asyncio
from functools import partial

from queuectld.config import Holder, load
from queuectld.domain.attempt import Reason
from queuectld.store.base import Entry
from queuectld.store.memory import MemoryStore
from queuectld.supervisor.janitor import Janitor

DAY = 86400.0


class Direct:
    """A ledger that carries everything out at once."""

    def __init__(self, store):
        self._store = store

    kept_output = 0

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


def test_output_is_looked_after_when_it_comes_to_be_too_much_and_when_a_worker_is_lost(tmp_path):
    store = MemoryStore()
    config = Holder(load(tmp_path / "none.toml", tmp_path / "overrides.json", {"QUEUECTLD_RETENTION_OUTPUT": "8KiB"}))
    ledger = Direct(store)
    rounds = []

    async def scenario():
        janitor = Janitor(ledger, config, tmp_path, clock=lambda: 0.0)
        janitor.tidy_output = partial(note, rounds)
        running = asyncio.create_task(janitor.run())
        counts = []
        for kept, reason in ((8192, Reason.EXITED), (8193, Reason.EXITED), (0, Reason.EXITED), (0, Reason.LOST)):
            ledger.kept_output = kept
            janitor.committed([Entry(at=0.0, event="job.completed", reason=reason)])
            for _ in range(100):
                await asyncio.sleep(0)
            counts.append(len(rounds))
        running.cancel()
        return counts

    # The first round is that of the start.
    assert asyncio.run(scenario()) == [1, 2, 2, 3]


async def note(rounds):
    rounds.append(1)
