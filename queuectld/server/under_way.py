"""What requests that are being carried out take up: beyond a bound the next ones wait, and nothing is lost."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Final

from queuectld.server.budget import MIB, Budget, Share, User

# Lines of requests that are carried out now.
BOUND: Final = Share(32 * MIB, 64 * MIB)
# Shorter ones, of which a connection has at most 64, are not worth the trouble.
_SHORT: Final = 1024


def _nothing() -> None:
    return


class UnderWay:
    """Who may begin; who may not is called back, in the order in which they asked."""

    def __init__(self, share: Share = BOUND) -> None:
        """`share` bounds the bytes of all requests; each user gets something of it while others have much."""
        self._budget: Budget[object] = Budget(share)
        self._waiting: dict[User, deque[Callable[[], None]]] = defaultdict(deque)
        # Something has ended since all were called back; and they are being called back now.
        self._freed = False
        self._calling = False

    def begin(self, user: User, size: int, again: Callable[[], None]) -> Callable[[], None] | None:
        """Return what to call when a request with so long a line has been answered; None if it may not begin.

        Then `again` is called once it might; until then, one who waits must not ask.
        """
        if size <= _SHORT:
            return _nothing
        if not self._budget.fits(user, size):
            self._waiting[user].append(again)
            return None
        request = object()
        self._budget.note(user, request, size)
        return partial(self._end, request)

    def _end(self, request: object) -> None:
        self._budget.forget(request)
        self._freed = True
        # What is answered at once ends while it is called back: one after the other, not one inside the other.
        if self._calling:
            return
        self._calling = True
        try:
            while self._freed:
                self._freed = False
                for waiting in tuple(self._waiting.values()):
                    _call_back(waiting)
        finally:
            self._calling = False


def _call_back(waiting: deque[Callable[[], None]]) -> None:
    """Call those back that may begin now, up to the first that still may not."""
    while waiting:
        again = waiting.popleft()
        again()
        if waiting and waiting[-1] == again:
            return
