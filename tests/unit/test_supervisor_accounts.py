"""Who a job belongs to is asked for beside the loop, and not for every job."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from queuectld.host.threads import Bystanders
from queuectld.service.account import Account, NoAnswerError, NoSuchAccountError
from queuectld.supervisor.accounts import OneAccount, UserDatabase


class Directory:
    """Knows everybody but bob, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers = threading.Event()
        self.answers.set()

    def __call__(self, owner: str) -> Account:
        self.asked.append(owner)
        assert self.answers.wait(20)
        if owner == "bob":
            raise NoSuchAccountError("there is no bob")
        return Account(owner, f"/home/{owner}/{len(self.asked)}", {})


@pytest.fixture
def directory() -> Directory:
    return Directory()


def users(directory: Callable[[str], Account], **keys: float) -> UserDatabase:
    return UserDatabase(directory, Bystanders(2, "accounts"), **keys)


def test_an_account_is_asked_for_once_and_then_known(directory: Directory) -> None:
    async def run() -> None:
        database = users(directory)
        assert database.known("ann") is None

        found = await database.find("ann")

        assert database.known("ann") == found == await database.find("ann")
        assert directory.asked == ["ann"]

    asyncio.run(run())


def test_after_a_while_it_is_asked_for_again_so_that_new_groups_are_seen(directory: Directory) -> None:
    async def run() -> None:
        database = users(directory, remembered=0.0)
        before = await database.find("ann")

        assert database.known("ann") is None
        assert await database.find("ann") != before

    asyncio.run(run())


def test_who_does_not_exist_is_told_so_and_asked_for_each_time(directory: Directory) -> None:
    async def run() -> None:
        database = users(directory)

        for _ in range(2):
            with pytest.raises(NoSuchAccountError, match="there is no bob"):
                await database.find("bob")

        assert directory.asked == ["bob", "bob"]

    asyncio.run(run())


def test_those_who_ask_for_the_same_at_the_same_time_share_the_answer(directory: Directory) -> None:
    async def run() -> None:
        database = users(directory)
        directory.answers.clear()
        asking = [asyncio.ensure_future(database.find("ann")) for _ in range(5)]
        await asyncio.sleep(0)

        directory.answers.set()

        assert len({id(account) for account in await asyncio.gather(*asking)}) == 1
        assert directory.asked == ["ann"]

    asyncio.run(run())


def test_a_directory_that_does_not_answer_is_not_waited_for_and_its_answer_counts_when_it_comes(
    directory: Directory,
) -> None:
    async def run() -> None:
        database = users(directory, patience=0.05)
        directory.answers.clear()

        with pytest.raises(NoAnswerError, match=r"nobody tells within 0\.05 s who ann is"):
            await database.find("ann")

        again = asyncio.ensure_future(users(directory).find("ann"))
        directory.answers.set()
        await again
        while database.known("ann") is None:  # noqa: ASYNC110 - the answer comes from a thread
            await asyncio.sleep(0.001)

    asyncio.run(run())


def test_the_end_of_the_loop_does_not_wait_for_a_directory_that_hangs(directory: Directory) -> None:
    async def run() -> None:
        directory.answers.clear()
        with pytest.raises(NoAnswerError):
            await users(directory, patience=0.01).find("ann")

    asyncio.run(run())
    # It answers to nobody, which harms nobody.
    directory.answers.set()


def test_a_daemon_that_can_be_nobody_else_knows_one_account_for_all() -> None:
    async def run() -> None:
        me = Account("me", "/home/me", {})

        assert OneAccount(me).known("ann") is me
        assert await OneAccount(me).find("bob") is me

    asyncio.run(run())
