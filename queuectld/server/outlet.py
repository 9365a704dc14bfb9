"""The way out for the events of one stream: never faster than its reader, and gone when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec


class Outlet:
    """What a stream writes to, and where it waits for news."""

    def __init__(self, emit: Callable[[msgspec.Struct], Awaitable[None]], turn: asyncio.Lock) -> None:
        """`emit` sends one event, when the client has room for it; `turn` is shared with its other streams."""
        self._emit = emit
        # Held from reading a page to having sent it: however many streams a client has that does not read, one page
        # is kept for it.
        self.turn = turn
        self._news = asyncio.Event()
        # The client asked for the end, or will not say anything more: then nothing is waited for.
        self.stopping = False
        self.last_call = False

    async def send(self, event: msgspec.Struct) -> None:
        """Send an event; waits while the client does not read."""
        await self._emit(event)

    def wake(self) -> None:
        """Let the stream look again. May be called from callbacks, at any time, as often as one likes."""
        self._news.set()

    async def news(self) -> bool:
        """Wait until somebody calls `wake`, or has since the last time; False: there is nothing more to wait for."""
        if not (self.stopping or self.last_call):
            await self._news.wait()
        self._news.clear()
        return not (self.stopping or self.last_call)

    def stop(self) -> None:
        """End the stream as soon as it can."""
        self.stopping = True
        self._news.set()

    def hang_up(self) -> None:
        """Let the stream finish what there is, and wait for nothing."""
        self.last_call = True
        self._news.set()
