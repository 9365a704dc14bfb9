"""Notices what happens in a directory, by watchdog where the host lets it, else by looking again now and then.

Whoever waits here looks for himself each time; what this module adds is to be woken early.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from queuectld.host.threads import threads_needed

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, ObservedWatch

log = structlog.get_logger()

# What makes a file another one. Not that it is opened, read, or being written: who looks would wake himself, and what
# is half written is closed in the end.
CHANGES: Final = ("FileClosedEvent", "FileCreatedEvent", "FileMovedEvent", "FileDeletedEvent", "DirMovedEvent")
# A new name, for who does not care what becomes of it.
ARRIVALS: Final = ("FileCreatedEvent",)
# Seconds until the next look, whatever was noticed: events get lost (a network share, a queue that ran over, a
# directory that was replaced), and then this is what is left.
_SLOW: Final = 15.0
# The same where the host watches nothing for us.
_BLIND: Final = 2.0


class Visibility(Enum):
    """How well a directory is seen."""

    WATCHED = "watched"
    # Not there, so nothing happens in it.
    ABSENT = "absent"
    BLIND = "blind"


class Observers:
    """The observer of watchdog that all directories share, made when the first is watched. Belongs to the loop.

    It ends with the process; a program that is run in its place inherits nothing of it.
    """

    def __init__(self) -> None:
        self._observer: BaseObserver | None = None
        self._hopeless = False
        self._making = asyncio.Lock()

    @property
    def running(self) -> BaseObserver | None:
        """The observer, if there is one."""
        return self._observer

    async def get(self) -> BaseObserver:
        """Return it, running. Raises `OSError` if the host does not let us have one."""
        if self._hopeless:
            raise OSError("no thread can be started")
        async with self._making:
            if self._observer is None:
                # It takes 40 ms to import, which only those should feel who wait for it.
                self._observer = self._make(await asyncio.to_thread(import_module, "watchdog.observers.inotify"))
        return self._observer

    def _make(self, inotify: Any) -> BaseObserver:
        # What is moved away is not waited for to arrive elsewhere: all events behind it would be half a second late.
        inotify.InotifyMoveEventGrouper.delay = 0.0
        # Here, and not in a thread: no worker is started in between, which would inherit its descriptor.
        before = _close_on_exec()
        try:
            with threads_needed():
                observer: BaseObserver = inotify.InotifyObserver()
        except OSError:
            # It opened its descriptor, and had no thread to read it.
            self._hopeless = _close_on_exec() > before
            raise
        _close_on_exec()
        try:
            with threads_needed():
                observer.start()
        except OSError:
            self.give_up()
            raise
        return observer

    def give_up(self) -> None:
        """Never try again: where the host has no thread left, each try would lose something."""
        self._hopeless = True


def _close_on_exec() -> int:
    """Keep programs that are started from inheriting what watches; return how many descriptors of that kind there are.

    Watchdog opens it for them too.
    """
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  (numbers)
        with suppress(OSError):
            if "inotify" in os.readlink(f"/proc/self/fd/{name}"):  # noqa: PTH115  (same)
                os.set_inheritable(int(name), False)
                count += 1
    return count


class _Handler:
    """What watchdog calls, in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: Callable[[], None]) -> None:
        self._loop = loop
        self._told = told

    def dispatch(self, _event: object) -> None:
        # The loop may have ended meanwhile.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._told)


class Eye:
    """Looks at one directory. Belongs to the loop, and to one task."""

    def __init__(self, observers: Observers, directory: Path, events: Sequence[str]) -> None:
        """`events` are names of watchdog's classes: `CHANGES` or `ARRIVALS`."""
        self._events = events
        self.directory = directory
        self._observers = observers
        self._handler: Any = _Handler(asyncio.get_running_loop(), self.wake)
        self._event = asyncio.Event()
        self._watch: ObservedWatch | None = None
        self._watched: tuple[int, int] | None = None
        self._complained = False
        self.visibility = Visibility.ABSENT

    def wake(self) -> None:
        """Have who waits look."""
        self._event.set()

    async def open(self) -> None:
        """See to it that the directory of that name is watched, if that is possible; look into it behind this.

        It may be another one than the last time, and an observer ends in silence with the directory that it knew.
        """
        try:
            found = await asyncio.to_thread(_identity, self.directory)
            if found is None:
                await self.shut()
                self.visibility = Visibility.ABSENT
                return
            if self._watch is None or found != self._watched or not await self._alive():
                await self.shut()
                observer = await self._observers.get()
                self._watch = await asyncio.to_thread(self._schedule, observer)
                self._watched = found
        except OSError as error:
            self._complain(error)
            self.visibility = Visibility.BLIND
            return
        if self._complained:
            log.info("The directory is watched again", event_name="watch.works", path=str(self.directory))
            self._complained = False
        self.visibility = Visibility.WATCHED

    async def _alive(self) -> bool:
        observer = await self._observers.get()
        return observer.is_alive() and any(
            one.watch == self._watch and one.is_alive() for one in tuple(observer.emitters)
        )

    def _schedule(self, observer: BaseObserver) -> ObservedWatch:
        events: Any = import_module("watchdog.events")
        wanted = [getattr(events, name) for name in self._events]
        try:
            with threads_needed():
                return observer.schedule(self._handler, str(self.directory), event_filter=wanted)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                self._observers.give_up()
            raise

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            log.warning(
                "The host does not tell of changes in a directory; it is looked at every other second instead",
                event_name="watch.failed",
                path=str(self.directory),
                error=error.strerror or str(error),
            )
        self._complained = True

    async def shut(self) -> None:
        """Watch it no more."""
        watch, self._watch = self._watch, None
        if watch is not None and (observer := self._observers.running) is not None:
            # It waits for half a second if a file was just moved away.
            await asyncio.to_thread(observer.unschedule, watch)

    async def wait(self, most: float | None = None) -> bool:
        """Wait until something happens, and return True, or until it is time to look all the same.

        That is after `most` seconds at the latest.
        """
        patience = _BLIND if self.visibility is Visibility.BLIND else _SLOW
        return await self._within(patience if most is None else min(most, patience))

    async def woken(self) -> None:
        """Wait for `wake`, or until something happens in what is watched."""
        await self._event.wait()
        self._event.clear()

    async def settle(self, quiet: float, most: float) -> None:
        """Wait until nothing happened for `quiet` seconds, at most `most` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + most
        while (left := end - loop.time()) > 0 and await self._within(min(quiet, left)):
            pass

    async def _within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        happened = self._event.is_set()
        self._event.clear()
        return happened


def _identity(directory: Path) -> tuple[int, int] | None:
    """Return what tells this directory from another one of its name; None if there is none. Raises `OSError`."""
    try:
        found = directory.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Watchdog takes a directory that it may not read for one in which nothing happens.
    if not os.access(directory, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))
    return found.st_dev, found.st_ino
