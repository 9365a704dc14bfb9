"""What all connections together may have the daemon keep for them, and who goes when that is too much. Decides only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

Holder = TypeVar("Holder", bound=Hashable)
User = int | None

MIB: Final = 1024 * 1024


class Share(NamedTuple):
    """Bytes that one user's connections may hold together, and those of all users."""

    user: int
    everybody: int


# Lines that have not ended or may not begin yet, and answers that nobody reads: any number of honest clients has far
# less, because theirs are gone in the next moment.
TRAFFIC: Final = Share(64 * MIB, 128 * MIB)
# One connection of a user may stage all that one may; others of the same user wait their turn.
STAGED: Final = Share(128 * MIB + MIB, 256 * MIB)


class Budget(Generic[Holder]):
    """Who holds how much. Whoever holds something is known until it holds nothing."""

    def __init__(self, share: Share) -> None:
        """`share` bounds what is held."""
        self._share = share
        self._held: dict[User, dict[Holder, int]] = defaultdict(dict)
        self._of_user: dict[User, int] = defaultdict(int)
        # A stranger may be somebody by the next time.
        self._user: dict[Holder, User] = {}
        self.total = 0

    def note(self, user: User, holder: Holder, size: int) -> None:
        """Take down that `holder`, who belongs to `user`, holds so many bytes now."""
        self.forget(holder)
        if size:
            self._user[holder] = user
            self._held[user][holder] = size
            self._of_user[user] += size
            self.total += size

    def forget(self, holder: Holder) -> None:
        """Take down that `holder` holds nothing."""
        if holder not in self._user:
            return
        user = self._user.pop(holder)
        size = self._held[user].pop(holder)
        self._of_user[user] -= size
        self.total -= size
        if not self._held[user]:
            del self._held[user], self._of_user[user]

    def fits(self, user: User, more: int) -> bool:
        """Whether there is room for so many bytes more of this user."""
        return self._of_user.get(user, 0) + more <= self._share.user and self.total + more <= self._share.everybody

    def greediest(self, user: User) -> Holder | None:
        """Return who has to go after `user` has taken more; None: nobody.

        Of a user who has too much, or else of the one who has most, it is whoever holds most: of equals the one who
        came last.
        """
        if self._of_user.get(user, 0) > self._share.user:
            culprit = user
        elif self.total > self._share.everybody:
            culprit = max(self._of_user, key=self._of_user.__getitem__)
        else:
            return None
        held = self._held[culprit]
        return max(reversed(held), key=held.__getitem__)
