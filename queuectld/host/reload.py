"""The configuration is read again: one path for a signal, a request, and a file that was changed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from queuectld.config import Holder, Loaded, differing
from queuectld.errors import BadConfigError
from queuectld.host.watch import CHANGES, Eye, Observers
from queuectld.keys import Config
from queuectld.protocol.replies import Reloaded

log = structlog.get_logger()

# What a part of the daemon does about a configuration that may be the next: it looks at what that names, in a thread,
# raises `BadConfigError` to refuse it, and returns what takes it up when all others agree, on the loop.
TakeUp = Callable[[], None]
Prepare = Callable[[Config], TakeUp | None]

# Seconds without a change before a changed file is read, and how long changes may go on.
_QUIET: Final = 0.25
_RESTLESS: Final = 2.0
# A file that is gone may be about to come back; so long it is not missed.
_MISSED_AFTER: Final = 1.0
_GONE: Final = "gone"


class Stages(NamedTuple):
    """Who is told how a reload gets on: the service manager waits for it."""

    begun: Callable[[], None]
    # With what is wrong, if it was refused.
    ended: Callable[[str | None], None]


class Reloader:
    """Takes up what the files say now, or refuses all of it. Belongs to the loop."""

    def __init__(
        self,
        read: Callable[[], Loaded],
        holder: Holder,
        *,
        file: Path,
        stages: Stages,
        reconfigure: Callable[[], None],
        rejected: str | None = None,
    ) -> None:
        """`read` reads all sources, of which `file` is the administrator's; `reconfigure` tells the pool.

        `rejected` is what is wrong with the files already, where something else is in force.
        """
        self.file = file
        # Held by whoever changes the configuration: each change begins from the one before.
        self.changing = asyncio.Lock()
        self._read = read
        self._holder = holder
        self._stages = stages
        self._reconfigure = reconfigure
        self._parts: list[Prepare] = []
        self._rejected = rejected
        # What the file held when it was last read; None: nobody looked yet.
        self._content: str | None = None
        self._stamp: object = None

    def ask(self, part: Prepare) -> None:
        """Have a part of the daemon agree to each configuration that is read from now on."""
        self._parts.append(part)

    def problems(self) -> Sequence[str]:
        """Return sentences about what is wrong now."""
        if self._rejected is None:
            return ()
        hint = "correct it, and if nothing comes of that by itself:  queuectl daemon reload"
        return (f"the configuration is not valid, the one before holds: {self._rejected}; {hint}",)

    async def reload(self) -> Reloaded:
        """Read, check, compare, and take up. Raises `BadConfigError`; then nothing has changed."""
        async with self.changing:
            self._stages.begun()
            try:
                return await self._take_up()
            finally:
                self._stages.ended(self._rejected)

    async def misses_file(self) -> bool:
        """Whether the file is not there."""
        _, stamp = await asyncio.to_thread(_seen, self.file, self._stamp)
        return stamp == _GONE

    async def look(self, *, woken: bool) -> None:
        """Read it again if the file is not what it was; where nobody was `woken`, a glance at it has to do.

        The first look is about whether what is in force is what the files say.
        """
        content, stamp = await asyncio.to_thread(_seen, self.file, None if woken else self._stamp)
        if stamp == self._stamp and not woken:
            return
        if self._content is None and await self._in_force():
            self._content, self._stamp = content, stamp
        if content == self._content:
            self._stamp = stamp
            return
        try:
            await self.reload()
        except BadConfigError:
            # On record, and in `problems`.
            return

    async def _in_force(self) -> bool:
        try:
            return await asyncio.to_thread(self._read) == self._holder.loaded
        except BadConfigError:
            return False

    async def _take_up(self) -> Reloaded:
        # Before it is read: what changes meanwhile is looked at again.
        self._content, self._stamp = await asyncio.to_thread(_seen, self.file, None)
        try:
            loaded, parts = await asyncio.to_thread(self._prepare)
        except BadConfigError as error:
            self._rejected = error.message
            log.error("Configuration rejected", event_name="config.rejected", error=error.message)  # noqa: TRY400  (it tells all)
            raise
        self._rejected = None
        before = self._holder.config
        self._holder.replace(loaded)
        for take_up in parts:
            take_up()
        self._reconfigure()
        return _told(self._holder, before)

    def _prepare(self) -> tuple[Loaded, list[TakeUp]]:
        loaded = self._read()
        return loaded, self.consult(loaded.config)

    def consult(self, config: Config) -> list[TakeUp]:
        """Have all parts agree; return what takes it up. Raises `BadConfigError`. Reads files: not for the loop."""
        answers = [part(config) for part in self._parts]
        return [answer for answer in answers if answer is not None]


def _told(holder: Holder, before: Config) -> Reloaded:
    """Say what came of it, to the log too."""
    loaded = holder.loaded
    live = tuple(key.name for key in differing(before, loaded.config) if key.live)
    waiting, hidden = holder.waiting(), loaded.hidden()
    log.info("Configuration read", event_name="config.loaded", path=loaded.config_file, keys=list(live))
    if waiting:
        log.warning("Keys wait for the next start", event_name="config.needs_restart", keys=list(waiting))
    if hidden:
        log.warning("Values in the file have no effect", event_name="config.hidden", keys=list(hidden))
    return Reloaded(
        config_file=loaded.config_file,
        changed=loaded.settings(live) if live else (),
        needs_restart=waiting,
        hidden=hidden,
    )


def _seen(file: Path, known: object) -> tuple[str, object]:
    """Return what tells the content of a file from another, and a mark that changes with it; both of the file's target.

    Where the mark is the `known` one the content is not read.
    """
    try:
        found = file.stat()
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        # Who puts a pipe there is not waited for.
        if stamp == known or not stat.S_ISREG(found.st_mode):
            return "", stamp
        return hashlib.blake2b(file.read_bytes()).hexdigest(), stamp
    except FileNotFoundError:
        return _GONE, _GONE
    except OSError as error:
        return os.strerror(error.errno or 0), error.errno


class ConfigWatch:
    """Has the configuration read again when its file changes, as long as `watch_config` says so."""

    def __init__(self, reloader: Reloader, holder: Holder, observers: Observers) -> None:
        self._reloader = reloader
        self._holder = holder
        # Of the directory: most ways to change a file put another one in its place.
        self._eye = Eye(observers, reloader.file.parent, CHANGES)
        holder.listen(lambda _: self._eye.wake())

    async def run(self) -> None:
        """Watch until cancelled."""
        woken = False
        while True:
            if not self._holder.config.watch_config:
                await self._eye.shut()
                await self._eye.woken()
                woken = True
                continue
            await self._eye.open()
            if woken:
                await self._eye.settle(_QUIET, _RESTLESS)
                if await self._reloader.misses_file():
                    await self._eye.settle(_MISSED_AFTER, _MISSED_AFTER)
            await self._reloader.look(woken=woken)
            woken = await self._eye.wait()
