"""What happened, from a number on. Reads the store at its client's pace, so a slow follower costs no memory."""

from __future__ import annotations

from functools import partial
from typing import Final

from queuectld.protocol.messages import Events
from queuectld.protocol.replies import EventsEnd
from queuectld.server.desk import Desk
from queuectld.server.outlet import Outlet
from queuectld.service.selection import job_named
from queuectld.service.sight import Sight
from queuectld.service.views import event_view
from queuectld.store.base import History, Reader

_PAGE: Final = 256


async def tell_events(desk: Desk, request: Events, sight: Sight, outlet: Outlet) -> EventsEnd:
    """Answer a request for events. A gap is told on the first event behind it."""
    unsubscribe = desk.hub.subscribe(lambda _entries: outlet.wake())
    try:
        seq, start = await desk.ledger.read(partial(_beginning, request=request, sight=sight))
        left = request.limit
        while not outlet.stopping:
            size = _PAGE if left is None else min(_PAGE, left)
            async with outlet.turn:
                history = await desk.ledger.read(partial(_page, start=start, size=size, seq=seq))
                start = await _send(history, start, sight, outlet)
            if left is not None:
                left -= len(history.entries)
            if left == 0 or (len(history.entries) < size and not request.follow):
                break
            if len(history.entries) < size and not await outlet.news():
                break
    finally:
        unsubscribe()
    return EventsEnd(next=start, stopped=outlet.stopping or (request.follow and left != 0))


def _beginning(reader: Reader, request: Events, sight: Sight) -> tuple[int | None, int]:
    seq = None if request.job is None else job_named(reader, request.job, "$.job", sight).seq
    newest = reader.last_entry()
    # Numbers that are far off need not be ones that a store can hold.
    return seq, newest + 1 if request.start is None else min(request.start, newest + 1)


def _page(reader: Reader, start: int, size: int, seq: int | None) -> History:
    return reader.entries(start=start, limit=size, seq=seq)


async def _send(history: History, start: int, sight: Sight, outlet: Outlet) -> int:
    gap = history.gap
    for entry in history.entries:
        if outlet.stopping:
            break
        await outlet.send(event_view(entry, sight, gap=gap))
        gap, start = False, entry.number + 1
    return start
