"""The store as the loop sees it: writes share commits on the store's thread, reads run beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from queuectld.errors import QueueCTLError, StoreDamagedError, StoreError
from queuectld.host.threads import ready_threads
from queuectld.store.base import Entry, Reader, Store, Work
from queuectld.store.migrate import newest_version
from queuectld.store.reader import SqliteReader, open_reader
from queuectld.store.thread import Reserve, StoreThread
from queuectld.store.turns import FIRST, Turn

log = structlog.get_logger()

T = TypeVar("T")

# Two reads at once: a slow listing must not hold up a status.
_READERS: Final = 2


class Readers:
    """A few read-only connections, opened when they are first needed, each used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Asked for now: another program may be installed by the time at which a connection is opened.
        self._newest = newest_version()
        self._idle: list[SqliteReader] = []
        self._closed = False
        self._threads = ready_threads(_READERS, "reader")

    async def run(self, work: Callable[[Reader], T]) -> T:
        """Run `work` on one committed state of the store."""
        if self._closed:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)

    def _run(self, work: Callable[[Reader], T]) -> T:
        # Lists are safe between threads, and there are no more connections than threads.
        reader = self._idle.pop() if self._idle else open_reader(self._path, newest=self._newest)
        try:
            with reader.snapshot():
                return work(reader)
        finally:
            self._idle.append(reader)

    def close(self) -> None:
        """Wait for what runs, and close the connections."""
        self._closed = True
        self._threads.shutdown()
        while self._idle:
            self._idle.pop().close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Ledger:
    """Writes and reads for one loop. Results of writes come after their commit is on disk."""

    def __init__(
        self,
        store: Store,
        *,
        publish: Callable[[Sequence[Entry]], None],
        on_fatal: Callable[[QueueCTLError], None],
        path: Path | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        """Take `store` over; on the running loop, call ``publish`` with committed entries before their replies.

        Reads use connections of their own to ``path``; without one (the store is in memory) they wait in line with
        the writes. ``reserve`` is what results are recorded from on a full disk. After ``on_fatal`` every write fails:
        the daemon has to end and begin again from the log.
        """
        self._loop = asyncio.get_running_loop()
        self._readers = None if path is None else Readers(path)
        self._uuid = store.uuid
        self._where = None if path is None else str(path.parent)
        self._path = path
        self._file = None if path is None else _identity(path)
        self._full = False
        self._on_fatal = on_fatal
        self._thread = StoreThread(
            store,
            deliver=self._loop.call_soon_threadsafe,
            publish=publish,
            on_fatal=on_fatal,
            reserve=reserve,
            on_space=self._space_changed,
        )

    def _space_changed(self, space: bool) -> None:  # noqa: FBT001  (a callback)
        self._full = not space
        if space:
            log.info("The disk has space again: new jobs are taken", event_name="store.space")
        else:
            log.error("The disk is full: new jobs are refused", event_name="store.full", path=self._where)

    def problems(self) -> Sequence[str]:
        """Return sentences about what is wrong now."""
        found = []
        if self._full:
            found.append(
                f"the disk that holds {self._where} is full: new jobs are refused until there is space again, what is "
                "under way is still recorded; remove something from it, or let less be kept (`retention.output`)"
            )
        if self._path is not None and _identity(self._path) != self._file:
            found.append(
                f"{self._path} is not the database any more that this daemon writes to: it was moved, removed or "
                "replaced; put it back, or stop the daemon, which knows jobs that the next one will not find"
            )
        return found

    @property
    def full(self) -> bool:
        """Whether new jobs are refused because the disk is full."""
        return self._full

    @property
    def uuid(self) -> str:
        """The identity of the store."""
        return self._uuid

    @property
    def kept_output(self) -> int:
        """How many bytes of disk output took up after the last commit."""
        return self._thread.kept_output

    @property
    def progress(self) -> tuple[int, int]:
        """How many writes were submitted so far, and how many of them were answered."""
        return self._thread.asked, self._thread.answered

    def submit(self, work: Work[Any], done: Callable[[Any], None], *, sheds: bool = False, turn: Turn = FIRST) -> None:
        """Run `work` when its turn comes; `done` gets its result or its exception on the loop.

        `work` may run more than once, and must do nothing but read and write the store. With ``sheds`` it gives way
        when the disk is full, so that results can still be recorded.
        """
        self._thread.submit(work, done, sheds=sheds, turn=turn)

    async def write(self, work: Work[T], *, sheds: bool = False, turn: Turn = FIRST) -> T:
        """Return the result of `work` when it is on disk, or raise its error. Cancelling the wait undoes nothing."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._thread.submit(work, partial(_resolve, future), sheds=sheds, turn=turn)
        return await future

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Return what `work` finds in one committed state, which includes every write that was answered before."""
        if self._readers is None:
            return await self.write(work)
        try:
            return await self._readers.run(work)
        except StoreDamagedError as error:
            self._on_fatal(error)
            raise

    async def close(self, *, patience: float | None = None) -> bool:
        """Wait for everything submitted, empty the log, close the store; return whether all that was done is stored.

        A disk that does not get on for `patience` seconds is not waited for; then the log holds what is stored.
        """
        if self._readers is not None:
            await asyncio.to_thread(self._readers.close)
        closed = await asyncio.to_thread(self._thread.close, patience=patience)
        # What the thread delivered last is called now.
        await asyncio.sleep(0)
        return closed or self._thread.answered == self._thread.asked


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
