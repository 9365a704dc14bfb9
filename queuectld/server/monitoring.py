"""Offers figures where the configuration says: over HTTP, and as a file.

What is in the way of that is no reason to run no jobs: it is a problem that `status` names, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from queuectld.config import Holder
from queuectld.durable import replace_file
from queuectld.errors import QueueCTLError
from queuectld.server.listen import BACKLOG, UnixListener, listen_unix
from queuectld.server.metrics_http import Visitors
from queuectld.server.monitor import Monitor
from queuectld.values import metrics_port

log = structlog.get_logger()

# Seconds until a place that could not be had is tried again.
_AGAIN: Final = 15.0
# Seconds that the disk of the file is given at the end.
_FAREWELL: Final = 1.0
# Figures are for everybody on the host, as they are on a port.
_SOCKET_MODE: Final = 0o666
_FILE_MODE: Final = 0o644


class Monitoring:
    """The HTTP server and the writer of the file, as far as they are configured. Belongs to the loop's thread."""

    def __init__(self, monitor: Monitor, holder: Holder) -> None:
        self._monitor = monitor
        self._holder = holder
        self._visitors = Visitors(monitor)
        self._server: asyncio.Server | None = None
        self._unix: UnixListener | None = None
        # What is written, whatever the configuration says for the next start.
        self._file: Path | None = None
        self._tasks: list[asyncio.Task[None]] = []
        # What is wrong, by key.
        self._wrong: dict[str, str] = {}

    async def start(self) -> None:
        """Begin; where nothing is configured, nothing is done at all."""
        config = self._holder.config
        if config.metrics is not None:
            listen = partial(self._listen, config.metrics)
            if not await self._tried("metrics", config.metrics, listen):
                self._beside(self._go_on_trying(config.metrics, listen))
        if config.metrics_file is not None:
            self._file = Path(config.metrics_file)
            self._beside(self._write(self._file))

    def _beside(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def stop(self) -> None:
        """Offer nothing any more. The file goes too, or it would tell for ever how it was."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        if self._unix is not None:
            self._unix.unlink()
        self._visitors.close()
        if self._file is not None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await asyncio.to_thread(self._file.unlink)

    def problems(self) -> Sequence[str]:
        """Return sentences about what cannot be offered."""
        return [f"`{key}`: {error}; it is tried again" for key, error in self._wrong.items()]

    async def _tried(self, key: str, place: str, attempt: Callable[[], Awaitable[None]]) -> bool:
        try:
            await attempt()
        except (OSError, QueueCTLError) as error:
            why = error.message if isinstance(error, QueueCTLError) else str(error)
            if key not in self._wrong:
                log.error("Figures cannot be offered", event_name="metrics.failed", path=place, error=why)  # noqa: TRY400  (it tells all)
            self._wrong[key] = why
            return False
        if self._wrong.pop(key, None):
            log.info("Figures can be offered again", event_name="metrics.recovered", path=place)
        return True

    # Over HTTP.

    async def _listen(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        if address.startswith("/"):
            self._unix = listen_unix(address, mode=_SOCKET_MODE, group=None, key="metrics")
            self._server = await loop.create_server(self._visitors, sock=self._unix.sock, backlog=BACKLOG)
        else:
            host, port = metrics_port(address)
            self._server = await loop.create_server(self._visitors, host, port, backlog=BACKLOG)
        log.info("Figures can be read", event_name="metrics.listening", address=address)

    async def _go_on_trying(self, address: str, listen: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(_AGAIN)
            if await self._tried("metrics", address, listen):
                return

    # As a file.

    async def _write(self, path: Path) -> None:
        while True:
            await self._tried("metrics_file", str(path), partial(self._write_once, path))
            await asyncio.sleep(self._holder.config.metrics_interval)

    async def _write_once(self, path: Path) -> None:
        text = await self._monitor.text()
        await asyncio.to_thread(replace_file, path, text, _FILE_MODE, lasting=False)
