"""Connections whose clients have not said yet who they are: there are never more than so many. Decides only."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Guest = TypeVar("Guest", bound=Hashable)


class Lobby(Generic[Guest]):
    """Who is in it, in the order of coming.

    When it is full, whoever has waited longest goes: an honest client is through in a moment, and one of a crowd that
    says nothing is not, so that a crowd keeps nobody else out.
    """

    def __init__(self, most: int) -> None:
        """There may be `most` in it."""
        self._most = most
        self._guests: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[Guest]:
        return iter(tuple(self._guests))

    def enter(self, guest: Guest) -> Guest | None:
        """Let somebody in; return who has to go for it."""
        evicted = None
        if len(self._guests) >= self._most:
            evicted = next(iter(self._guests))
            del self._guests[evicted]
        self._guests[guest] = None
        return evicted

    def leave(self, guest: Guest) -> None:
        """Let somebody go, who may have gone already."""
        self._guests.pop(guest, None)
