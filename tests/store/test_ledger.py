"""The store as the loop sees it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from queuectld.domain.job import State
from queuectld.errors import DuplicateIdError, NoSuchJobError
from queuectld.host.ledger import Ledger
from queuectld.store.base import Query
from queuectld.store.memory import MemoryStore
from queuectld.store.sqlite import open_store
from tests.store.driving import draft


def add(*names):
    def work(store):
        answers = store.add([draft(name) for name in names])
        return next((answer for answer in answers if isinstance(answer, Exception)), answers)

    return work


def strictly(work):
    def strict(store):
        answer = work(store)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return strict


@pytest.fixture(params=["memory", "sqlite"])
def with_ledger(request, tmp_path):
    """Run a coroutine function with a ledger and the list of what it was told."""

    def run(scenario):
        async def main():
            path = None if request.param == "memory" else tmp_path / "queue.db"
            told = []
            ledger = Ledger(
                MemoryStore() if path is None else open_store(path),
                publish=lambda entries: told.extend(entry.job for entry in entries),
                on_fatal=told.append,
                path=path,
            )
            try:
                return await scenario(ledger, told)
            finally:
                await ledger.close()

        return asyncio.run(main())

    return run


def test_a_read_sees_every_write_that_was_answered(with_ledger):
    async def scenario(ledger, told):
        for index in range(20):
            await ledger.write(add(f"j{index}"))
            page = await ledger.read(lambda reader: reader.find(Query()))
            assert len(page.jobs) == index + 1
        return told

    assert with_ledger(scenario) == [f"j{index}" for index in range(20)]


def test_errors_of_writes_and_reads_reach_whoever_waits(with_ledger):
    async def scenario(ledger, _told):
        await ledger.write(strictly(add("a")))
        with pytest.raises(DuplicateIdError):
            await ledger.write(strictly(add("a")))
        with pytest.raises(NoSuchJobError):
            await ledger.read(lambda reader: reader.get("b"))

    with_ledger(scenario)


def test_many_writers_and_readers_at_once(with_ledger):
    async def scenario(ledger, _told):
        async def client(number):
            for index in range(10):
                await ledger.write(add(f"j{number}-{index}"))
                await ledger.read(lambda reader: reader.counts())

        await asyncio.gather(*(client(number) for number in range(8)))
        return await ledger.read(lambda reader: reader.counts())

    assert with_ledger(scenario) == {"default": {State.PENDING: 80}}


def test_the_callback_form_gets_results_and_errors_after_followers_have_heard(with_ledger):
    async def scenario(ledger, told):
        over = asyncio.Event()
        ledger.submit(add("a"), lambda result: told.append(result[0].seq))
        ledger.submit(strictly(add("a")), lambda result: (told.append(type(result)), over.set()))
        await over.wait()
        return list(told)

    assert with_ledger(scenario) == ["a", 1, DuplicateIdError]


def test_closing_waits_for_everything_submitted(with_ledger):
    async def scenario(ledger, told):
        results = []
        for index in range(50):
            ledger.submit(add(f"j{index}"), results.append)
        await ledger.close()
        return len(results), len(told)

    assert with_ledger(scenario) == (50, 50)


def test_giving_up_the_wait_undoes_nothing_and_disturbs_nobody(with_ledger):
    async def scenario(ledger, _told):
        task = asyncio.create_task(ledger.write(add("a")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ledger.write(add("b"))
        page = await ledger.read(lambda reader: reader.find(Query()))
        return [job.id for job in page.jobs]

    assert with_ledger(scenario) == ["a", "b"]


def test_a_store_that_hangs_is_not_waited_for_at_the_end():
    hung, free = threading.Event(), threading.Event()

    class Hanging(MemoryStore):
        def transaction(self):
            hung.set()
            free.wait()
            return super().transaction()

    async def scenario():
        ledger = Ledger(Hanging(), publish=list, on_fatal=list)
        ledger.submit(add("a"), list)
        await asyncio.to_thread(hung.wait)
        try:
            stuck = await asyncio.wait_for(ledger.close(patience=0.05), 5)
        finally:
            free.set()
        return stuck, await ledger.close()

    assert asyncio.run(scenario()) == (False, True)


def test_a_log_that_is_long_to_empty_is_not_waited_for_and_costs_nothing():
    hung, free = threading.Event(), threading.Event()

    class Hanging(MemoryStore):
        def close(self):
            hung.set()
            free.wait()
            super().close()

    async def scenario():
        ledger = Ledger(Hanging(), publish=list, on_fatal=list)
        await ledger.write(add("a"))
        try:
            return await asyncio.wait_for(ledger.close(patience=0.05), 5)
        finally:
            free.set()

    assert asyncio.run(scenario())
    assert hung.is_set()
