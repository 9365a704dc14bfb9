"""Who is connected, and who may come: nobody can keep the others out by taking all connections. Decides only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

Guest = TypeVar("Guest", bound=Hashable)

# Of the connections that there may be, a user has at most a half, and never more than that many, which cost some
# 60 MiB; one in so many is for administrators.
_SHARE: Final = 2
_MOST: Final = 8192
_RESERVED: Final = 16


class Crowd(Generic[Guest]):
    """Guests, and whose they are (None: that is not known yet). No bound but the last is for administrators."""

    def __init__(self, most: int) -> None:
        """There may be `most` of them."""
        self._most = most
        self._guests: dict[Guest, int | None] = {}
        self._of_user: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self._guests)

    def __iter__(self) -> Iterator[Guest]:
        return iter(tuple(self._guests))

    def __contains__(self, guest: Guest) -> bool:
        return guest in self._guests

    def enter(self, guest: Guest, user: int | None, *, admin: bool) -> bool:
        """Let somebody in, or not."""
        most = self._most if admin else self._most - self._most // _RESERVED
        if len(self._guests) >= most or not (admin or self._fits(user)):
            return False
        self._take_down(guest, user)
        return True

    def name(self, guest: Guest, user: int, *, admin: bool) -> bool:
        """Know from now on whose this one is, who is in already; False: that user has too many."""
        if self._guests.get(guest) != user:
            if not (admin or self._fits(user)):
                return False
            self.leave(guest)
            self._take_down(guest, user)
        return True

    def leave(self, guest: Guest) -> None:
        """Let somebody go, who may have gone already."""
        user = self._guests.pop(guest, None)
        if user is not None:
            self._of_user[user] -= 1
            if not self._of_user[user]:
                del self._of_user[user]

    def _fits(self, user: int | None) -> bool:
        return user is None or self._of_user[user] < min(self._most // _SHARE, _MOST)

    def _take_down(self, guest: Guest, user: int | None) -> None:
        self._guests[guest] = user
        if user is not None:
            self._of_user[user] += 1
