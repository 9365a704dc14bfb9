"""A file is taken exactly once, whenever the daemon dies and whatever a power cut takes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queuectld.config import Holder, load
from queuectld.errors import DiskFullError, StoreError
from queuectld.host.spool_dir import SpoolError, Taken
from queuectld.host.watch import Observers
from queuectld.server.spool import Spool
from queuectld.service.spool import Arrival
from queuectld.store.base import Query
from queuectld.store.memory import MemoryStore
from tests.process.server_rig import FakeControl

NOW = 1_700_000_000.0
WEEKS = 90 * 86400.0


class Died(BaseException):
    pass


class Fate:
    """Lets the daemon die at the N-th point at which that makes a difference."""

    def __init__(self, dies_at: int | None) -> None:
        self.left = dies_at

    def __call__(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Died


class Disk:
    """The directories of a spool as they are, and what of them is not on the disk yet."""

    def __init__(self) -> None:
        self.new: dict[str, bytes] = {}
        self.taken: dict[str, tuple[str, bytes]] = {}
        self.failed: list[str] = []
        # How many files had failed whenever that was tidied up.
        self.tidied: list[int] = []
        # What takes back each change that is not on the disk, and the directories that have it.
        self.loose: list[tuple[set[str], Callable[[], None]]] = []
        self._marks = 0

    def claim(self, name: str) -> str:
        self._marks += 1
        mark = f"{int(NOW):08x}{self._marks:016x}.{name}"
        data = self.new.pop(name)
        self.taken[mark] = (name, data)

        def back() -> None:
            if self.taken.pop(mark, None) is not None:
                self.new[name] = data

        self.loose.append(({"new", "taken"}, back))
        return mark

    def remove(self, mark: str) -> None:
        kept = self.taken.pop(mark)
        self.loose.append(({"taken"}, lambda: self.taken.__setitem__(mark, kept)))

    def reject(self, mark: str) -> None:
        name, _ = self.taken.pop(mark)
        self.failed.append(name)

    def sync(self, directory: str) -> None:
        self.loose = [(where, back) for where, back in self.loose if directory not in where]

    def power_cut(self, loses: Callable[[], bool]) -> None:
        for _, back in reversed(self.loose):
            if loses():
                back()
        self.loose.clear()


class Place:
    """What `SpoolDir` is, on such a disk."""

    path = Path("/no/such/spool")

    def __init__(self, disk: Disk, fate: Fate) -> None:
        self.disk, self.fate = disk, fate

    def look(self) -> tuple[list[str], list[Arrival]]:
        return self.claimed(), [Arrival(name, 0, 0) for name in self.disk.new]

    def claimed(self) -> list[str]:
        return sorted(self.disk.taken)

    def claim(self, names: list[str]) -> list[str]:
        marks = []
        for name in names:
            self.fate()
            marks.append(self.disk.claim(name))
        return marks

    def inspect(self, marks: list[str]) -> tuple[list[Taken], list[str]]:
        first, rest = marks[:2], marks[2:]
        return [self._inspect(mark) for mark in first], rest

    def _inspect(self, mark: str) -> Taken:
        name, data = self.disk.taken[mark]
        return Taken(mark, name, 0, jobs=[msgspec.Raw(data)])

    def sync_taken(self) -> None:
        self.fate()
        self.disk.sync("taken")

    def sync_new(self) -> None:
        self.fate()
        self.disk.sync("new")

    def discard(self, marks: list[str]) -> None:
        for mark in marks:
            self.fate()
            self.disk.remove(mark)
        self.fate()

    def reject(self, taken: Taken, _reason: str) -> str:
        self.fate()
        self.disk.reject(taken.mark)
        self.fate()
        return taken.name

    def tidy(self) -> None:
        self.disk.tidied.append(len(self.disk.failed))

    def close(self) -> None:
        pass


class Ledger:
    """Every commit is on the disk when it is answered; the daemon may die before it, and before it hears of it."""

    def __init__(self, store: MemoryStore, fate: Fate) -> None:
        self.store, self.fate = store, fate
        self.fault: Exception | None = None

    async def write(self, work: Callable[[MemoryStore], Any], **options: Any) -> Any:
        if self.fault is not None and options.get("sheds"):
            raise self.fault
        self.fate()
        with self.store.transaction():
            result = work(self.store)
        self.fate()
        return result


class World:
    def __init__(self) -> None:
        self.disk = Disk()
        self.store = MemoryStore()
        self.now = NOW
        self.control = FakeControl()

    def spool(self, fate: Fate, fault: Exception | None = None) -> Spool:
        ledger: Any = Ledger(self.store, fate)
        ledger.fault = fault
        holder = Holder(load("/no/such/file", "/no/such/overrides", {}))
        opened: Any = lambda _: Place(self.disk, fate)  # noqa: E731
        return Spool(
            ledger,
            self.control,
            holder,
            Observers(),
            usual=Place.path,
            clock=lambda: self.now,
            opened=opened,
        )

    def live(self, dies_at: int | None = None) -> bool:
        """Look twice, as a daemon does; return whether it came through."""

        async def main() -> None:
            spool = self.spool(Fate(dies_at))
            for _ in range(2):
                await spool._look(woken=False)
            assert spool.problems() == ()

        try:
            asyncio.run(main())
        except Died:
            return False
        return True

    def drop(self, name: str, data: bytes | None = None) -> None:
        self.disk.new[name] = data or b'{"command": "%s"}' % name.encode()

    def commands(self) -> list[str | None]:
        return sorted(str(job.spec.command) for job in self.store.find(Query(), limit=1000).jobs)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_each_file_is_taken_once_whatever_comes_in_between(data: st.DataObject) -> None:
    world = World()
    good, bad = [], []
    for life in range(data.draw(st.integers(1, 4))):
        for number in range(data.draw(st.integers(0, 4))):
            name = f"{life}-{number}"
            if data.draw(st.booleans()):
                good.append(name)
                world.drop(name)
            else:
                bad.append(name)
                world.drop(name, b'{"comand": "x"}')
        if not world.live(dies_at=data.draw(st.integers(0, 25))) and data.draw(st.booleans()):
            world.disk.power_cut(lambda: data.draw(st.booleans()))
    assert world.live()

    assert world.commands() == sorted(good)
    assert sorted(world.disk.failed) == sorted(bad)
    assert (world.disk.new, world.disk.taken) == ({}, {})
    # Nothing is kept on record for ever.
    world.now += WEEKS
    assert world.live()
    assert world.store.taken_files() == []


def test_it_dies_at_every_point_there_is() -> None:
    """The test above would find nothing if there were no such points."""
    points = 0
    while True:
        world = World()
        world.drop("a")
        world.drop("b", b"{}")
        if world.live(dies_at=points):
            break
        assert world.live()
        assert (world.commands(), world.disk.failed) == (["a"], ["b"])
        points += 1

    # Taken, twice; two directories and two commits; removed; the other one rejected.
    assert points > 12


@pytest.mark.parametrize("fault", [DiskFullError(), StoreError("the disk does not answer")])
def test_files_stay_while_the_store_refuses_and_are_taken_afterwards(fault: Exception) -> None:
    world = World()
    world.drop("a")
    world.drop("b", b"{}")

    async def main() -> None:
        spool = world.spool(Fate(None), fault)
        await spool._look(woken=False)
        world.drop("c")
        await spool._look(woken=True)

        assert (world.commands(), world.disk.failed, list(world.disk.new)) == ([], [], ["c"])
        assert "files in the spool are not taken" in spool.problems()[0]
        spool._ledger.fault = None  # type: ignore[attr-defined]
        await spool._look(woken=False)
        assert spool.problems() == ()

    asyncio.run(main())
    assert world.commands() == ["a", "c"]
    assert world.disk.failed == ["b"]


def test_whoever_floods_it_with_bad_files_has_them_tidied_up_all_the_time() -> None:
    world = World()
    for number in range(2500):
        world.drop(str(number), b"{}")

    assert world.live()

    assert len(world.disk.failed) == 2500
    assert max(later - sooner for sooner, later in pairwise(world.disk.tidied)) < 1100


def test_a_daemon_that_ends_leaves_files_where_they_are() -> None:
    world = World()
    world.drop("a")
    world.control.draining = True

    assert world.live()

    assert list(world.disk.new) == ["a"]


def test_a_spool_that_cannot_be_used_is_a_problem_and_is_tried_again() -> None:
    world = World()
    world.drop("a")

    async def main() -> None:
        spool = world.spool(Fate(None))
        opened = spool._open

        def refuses(_: Path) -> Any:
            raise SpoolError("everybody may write to it")

        spool._open = refuses
        await spool._look(woken=False)
        assert "everybody may write to it" in spool.problems()[0]
        spool._open = opened
        await spool._look(woken=False)
        assert spool.problems() == ()

    asyncio.run(main())
    assert world.commands() == ["a"]
