from __future__ import annotations

import asyncio
import threading

import pytest

from queuectld.host.threads import EventLoop, ready_threads, threads_needed


@pytest.fixture
def no_more_threads(monkeypatch: pytest.MonkeyPatch):
    """A host that starts no thread, or only so many more."""

    def limit(count: int) -> None:
        left = iter(range(count))
        start = threading.Thread.start

        def try_to(self: threading.Thread) -> None:
            if next(left, None) is None:
                raise RuntimeError("can't start new thread")
            start(self)

        monkeypatch.setattr(threading.Thread, "start", try_to)

    return limit


def test_a_pool_works_on_when_the_host_starts_no_more_threads(no_more_threads) -> None:
    pool = ready_threads(3, "reader")
    no_more_threads(0)
    together = threading.Barrier(3)

    done = [pool.submit(together.wait, 10) for _ in range(3)]

    assert sorted(one.result() for one in done) == [0, 1, 2]
    pool.shutdown()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_pool_that_cannot_be_started_leaves_no_thread_and_says_why(no_more_threads, count: int) -> None:
    before = threading.active_count()
    no_more_threads(count)

    with pytest.raises(OSError, match="no thread can be started"), threads_needed():
        ready_threads(3, "reader")

    assert threading.active_count() == before


def test_a_loop_runs_to_its_end_where_no_thread_can_be_started(no_more_threads) -> None:
    async def work() -> str:
        asyncio.get_running_loop().set_default_executor(ready_threads(2, "helper"))
        no_more_threads(0)
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        assert runner.run(work()).startswith("helper")


def test_a_loop_waits_at_its_end_for_what_runs_in_threads() -> None:
    over = threading.Event()

    async def work() -> None:
        asyncio.get_running_loop().set_default_executor(ready_threads(1, "helper"))
        asyncio.get_running_loop().run_in_executor(None, lambda: (threading.Event().wait(0.05), over.set()))

    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(work())

    assert over.is_set()
