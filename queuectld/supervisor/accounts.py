"""Whose job it is: looked up beside the loop, since a directory service may be slow, and remembered for a moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol

from queuectld.host.threads import Bystanders
from queuectld.service.account import Account, NoAnswerError, account_of

# So long a user's new groups, or a new home, may go unnoticed.
_REMEMBERED: Final = 60.0
# A directory service that has not answered by then is the host's trouble; the job is tried again later.
_PATIENCE: Final = 30.0
# More of those that are remembered are more than one host has of submitters.
_MOST: Final = 10_000
# Threads of their own: one question that is not answered must not hold up disks, and another user's neither.
_THREADS: Final = 2


class Accounts(Protocol):
    """Who the owners of jobs are."""

    def known(self, owner: str) -> Account | None:
        """Return an account that need not be asked for."""

    async def find(self, owner: str) -> Account:
        """Return an account. Raises `NoSuchAccountError`, and `NoAnswerError` if nobody tells."""


class OneAccount:
    """Of a daemon that cannot be anybody else: all jobs are its own."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def known(self, owner: str) -> Account:  # noqa: ARG002  (it is as good for any)
        """Return the one that there is."""
        return self._account

    async def find(self, owner: str) -> Account:
        """Return the one that there is."""
        return self.known(owner)


class _Known(NamedTuple):
    account: Account
    until: float


class UserDatabase:
    """Of a daemon that is root: each job is its submitter's."""

    def __init__(
        self,
        look_up: Callable[[str], Account],
        threads: Bystanders,
        *,
        remembered: float = _REMEMBERED,
        patience: float = _PATIENCE,
    ) -> None:
        """`look_up` may take its time and raises `NoSuchAccountError`; both times are in seconds."""
        self._look_up = look_up
        self._threads = threads
        self._remembered = remembered
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, _Known] = {}
        self._asked: dict[str, asyncio.Future[Account]] = {}

    def known(self, owner: str) -> Account | None:
        """Return an account that was looked up a moment ago."""
        found = self._known.get(owner)
        return found.account if found is not None and self._loop.time() < found.until else None

    async def find(self, owner: str) -> Account:
        """Return an account. Raises `NoSuchAccountError`, and `NoAnswerError` if nobody tells."""
        if (account := self.known(owner)) is not None:
            return account
        asked = self._asked.get(owner)
        if asked is None:
            asked = self._asked[owner] = self._threads.run(partial(self._look_up, owner))
            asked.add_done_callback(partial(self._told, owner))
        # Whoever waits no more does not keep others from the answer, nor it from coming later.
        await asyncio.wait({asked}, timeout=self._patience)
        if not asked.done():
            raise NoAnswerError(f"nobody tells within {self._patience:g} s who {owner} is")
        return asked.result()

    def _told(self, owner: str, asked: asyncio.Future[Account]) -> None:
        del self._asked[owner]
        if asked.cancelled() or asked.exception() is not None:
            # Not remembered: the next job of this user asks again.
            return
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[owner] = _Known(asked.result(), self._loop.time() + self._remembered)


def accounts_for(me: Account, environ: Mapping[str, str]) -> Accounts:
    """Return who jobs belong to at a daemon of the user `me`. Raises `RuntimeError` if the host has no threads."""
    if os.geteuid() != 0:
        return OneAccount(me)
    return UserDatabase(partial(account_of, environ=environ), Bystanders(_THREADS, "accounts"))
