"""In whose name a job is stored: in that of whoever asks for it, or where an administrator says so in another's."""

from __future__ import annotations

import functools
import os
import pwd
from typing import Final, NamedTuple

from queuectld.errors import BadRequestError, ForbiddenError

# Who has accounts of the host itself; those of a directory service are remembered for as long as we run.
_USERS: Final = "/etc/passwd"


class Submitter(NamedTuple):
    """Who asks for jobs."""

    user: str
    # Whether jobs in the names of others may be asked for.
    admin: bool = False
    # On a daemon that is not root's: its user, as whom all jobs run.
    only: str | None = None

    def owner(self, named: str | None) -> str:
        """Return whose job it is that names this user, or none. Raises `BadRequestError`, `ForbiddenError`."""
        if named is None:
            return self.user
        if self.only is not None and named != self.only:
            raise BadRequestError(
                f"`as` cannot be '{named}': this daemon is not root's, and runs all jobs as {self.only}", path="$.as"
            )
        if named == self.user:
            return self.user
        if not self.admin:
            # Whether there is such a user is not told.
            raise ForbiddenError("only administrators may have jobs run as somebody else", path="$.as")
        return named if named == self.only else known_user(named)


def user_name(uid: int) -> str:
    """Return the name of a user, or its number if it has none that means it and nobody else.

    Two directories may give one name to two users, and a name may look like the number of another: what is one's would
    be the other's as well. So it would be if a number that was given to somebody else still had its old name.
    """
    return _name_of(uid, _edition())


def _edition() -> tuple[int, int] | None:
    try:
        found = os.stat(_USERS)  # noqa: PTH116  (for each connection: pathlib takes three times as long)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _name_of(uid: int, _edition: object) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
        return name if pwd.getpwnam(name).pw_uid == uid and not name.isdigit() else str(uid)
    except KeyError:
        return str(uid)


def known_user(name: str) -> str:
    """Return what the user of that name is called by the kernel's number. Raises `BadRequestError` if there is none."""
    try:
        # Two names may share a number; whoever comes by the number has to find what is his.
        return user_name(pwd.getpwnam(name).pw_uid)
    except KeyError:
        raise BadRequestError(f"there is no user '{name}' on this host", path="$.as") from None
