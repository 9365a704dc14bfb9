"""Threads that are there from the start: a host that can start none later holds up nothing that runs already."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from threading import Barrier, Thread
from typing import Any, TypeVar

T = TypeVar("T")


def ready_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return a pool all of whose threads run. Raises `RuntimeError` if the host cannot start them."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    # A pool starts a thread for what it is given as long as none is idle, and none is before the last one comes.
    together = Barrier(count + 1)
    try:
        for _ in range(count):
            pool.submit(together.wait)
    except RuntimeError:
        together.abort()
        pool.shutdown()
        raise
    together.wait()
    return pool


class Bystanders:
    """Threads for what may hang for ever: the end of the program does not wait for them."""

    def __init__(self, count: int, name: str) -> None:
        """Raises `RuntimeError` if the host cannot start them. Belongs to the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._work: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]]] = SimpleQueue()
        for number in range(count):
            Thread(target=self._serve, name=f"{name}_{number}", daemon=True).start()

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have something done, after all that was asked for before."""
        done: asyncio.Future[T] = self._loop.create_future()
        self._work.put((done, work))
        return done

    def _serve(self) -> None:
        while True:
            done, work = self._work.get()
            try:
                tell = partial(_tell, done.set_result, work())
            # Whatever it is, whoever waits is told.
            except Exception as error:  # noqa: BLE001  (the one that waits raises it)
                tell = partial(_tell, done.set_exception, error)
            with suppress(RuntimeError):
                # The loop is gone.
                self._loop.call_soon_threadsafe(tell, done)


def _tell(how: Callable[[Any], None], what: Any, done: asyncio.Future[Any]) -> None:
    if not done.done():
        how(what)


@contextmanager
def threads_needed() -> Iterator[None]:
    """Translate Python's complaint that no thread can be started into an `OSError`, as for everything of the host."""
    try:
        yield
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        raise OSError(errno.EAGAIN, f"no thread can be started ({os.strerror(errno.EAGAIN)})") from None


class EventLoop(asyncio.SelectorEventLoop):
    """An event loop that needs no new thread at its end, where asyncio's own starts one to wait for the others in."""

    _pool: Executor | None = None

    def set_default_executor(self, executor: Executor) -> None:
        """Take a pool of `ready_threads` for what `asyncio.to_thread` is given."""
        super().set_default_executor(executor)  # type: ignore[arg-type]  # raises `TypeError` for any other
        self._pool = executor

    def _accept_connection(self, protocol_factory: Any, sock: Any, *options: Any) -> None:
        """Accept one client in one turn.

        Python 3.11 goes on to ask for as many as the backlog holds where the host has no descriptor left, and logs
        each failure: a thousand lines a second.
        """
        security, server, _backlog, *rest = options
        super()._accept_connection(protocol_factory, sock, security, server, 1, *rest)  # type: ignore[misc]  # not in typeshed

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109  (asyncio's)
        """Wait for what runs in threads."""
        if self._pool is not None:
            self._pool.shutdown()
