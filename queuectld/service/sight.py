"""Whose jobs somebody may see and change: everybody's; or his own, and of others' no more than a listing tells."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from queuectld.domain.job import Job
from queuectld.errors import ForbiddenError
from queuectld.protocol.messages import Selector


class Others(Enum):
    """What there is of the jobs of others."""

    WHOLE = "whole"
    # Id, owner, queue, state and times.
    LISTED = "listed"
    REFUSED = "refused"


class Sight(NamedTuple):
    """What one request of somebody may see: the jobs of `user` whole (None: nobody's), those of others as it says."""

    user: str | None
    others: Others

    @property
    def all(self) -> bool:
        """Whether there is nothing that may not be seen."""
        return self.others is Others.WHOLE

    def whole(self, owner: str | None) -> bool:
        """Whether jobs of this owner may be seen whole."""
        return self.others is Others.WHOLE or (owner is not None and owner == self.user)

    def check(self, job: Job, path: str) -> None:
        """Refuse a job of somebody else where that may not be had at all. Raises `ForbiddenError` with the path."""
        if self.others is Others.REFUSED and not self.whole(job.owner):
            raise ForbiddenError(f"job '{job.id}' is not yours: it belongs to {job.owner}", path=path)


# What administrators see, and the daemon itself.
EVERYTHING = Sight(None, Others.WHOLE)

# Conditions on what a listing does not tell of the jobs of others: which of these satisfy them is not told either.
_TELLING = ("tags", "command", "exit_code", "seen")


def telling(select: Selector) -> str | None:
    """Return the first condition of a selector that would tell more of a job than a listing does."""
    return next((name for name in _TELLING if getattr(select, name) not in {None, ()}), None)
