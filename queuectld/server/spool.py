"""Takes the files that are put into the spool: each is on record with its jobs before it is gone, and so taken once.

A file is moved where nobody else can reach it, its jobs and its mark are stored in one transaction, it is removed, and
when that is on disk its mark is forgotten. Whatever comes in between, the next look at what is ours goes on from there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from queuectld.config import Holder, policy
from queuectld.errors import QueueCTLError
from queuectld.host.ledger import Ledger
from queuectld.host.spool_dir import MOST_NAMES, SpoolDir, Taken, taken_at
from queuectld.host.watch import ARRIVALS, Eye, Observers
from queuectld.protocol.replies import Enqueued
from queuectld.server.audit import account_for_file
from queuectld.service.control import Control
from queuectld.service.owner import Submitter, user_name
from queuectld.service.spool import Arrival, RefusedFileError, in_turn, order_of, store_file
from queuectld.service.submit import Ahead, Terms
from queuectld.store.base import Store
from queuectld.store.turns import Turn

log = structlog.get_logger()

# Files that are taken together: one commit for all, while others are served.
_STEP: Final = 64
# Seconds until the next look: where something will be over in a moment, and where the disk or the store refused.
_SOON: Final = 0.2
_REFUSED: Final = 5.0
# After so many seconds, or files that failed, what failed is tidied up.
_TIDY: Final = 600.0
_MUCH: Final = 1000
# A file that is on record and was not found comes back with a backup at most; after that, in seconds, it does not.
_LOST: Final = 30 * 86400.0


def _steps(arrivals: Sequence[Arrival]) -> Iterator[Sequence[Arrival]]:
    return (arrivals[start : start + _STEP] for start in range(0, len(arrivals), _STEP))


class Spool:
    """Watches one directory, and has the jobs in its files stored. Belongs to the loop."""

    def __init__(
        self,
        ledger: Ledger,
        control: Control,
        holder: Holder,
        observers: Observers,
        *,
        usual: Path,
        clock: Callable[[], float],
        opened: Callable[[Path], SpoolDir],
    ) -> None:
        """`usual` is where it is unless the configuration says otherwise; `opened` may raise `SpoolError`."""
        self._ledger = ledger
        self._control = control
        self._holder = holder
        self._observers = observers
        self._usual = usual
        self._clock = clock
        self._open = opened
        self._me = os.geteuid()
        self._ahead = Ahead()
        self._place: SpoolDir | None = None
        self._eye = self._look_at(usual)
        # Marks of files whose jobs are stored, and which are not gone yet as far as we know.
        self._stored: set[str] = set()
        self._trouble: str | None = None
        self._tidy_at = 0.0
        self._rejected = 0
        holder.listen(lambda _: self._eye.wake())

    def problems(self) -> Sequence[str]:
        """Return sentences about what is wrong now."""
        return () if self._trouble is None else (f"files in the spool are not taken: {self._trouble}",)

    def _look_at(self, directory: Path) -> Eye:
        return Eye(self._observers, directory / "new", ARRIVALS)

    @property
    def _directory(self) -> Path | None:
        match self._holder.config.spool:
            case "auto":
                return self._usual
            case "off":
                return None
            case path:
                return Path(path)

    async def run(self) -> None:
        """Take what comes until cancelled."""
        woken = False
        try:
            while True:
                most = await self._look(woken=woken)
                if self._directory is None:
                    await self._eye.woken()
                woken = await self._eye.wait(most)
        finally:
            self._leave()

    async def _look(self, *, woken: bool) -> float | None:
        """Take what is there; return within how many seconds to look again, None if there is no hurry."""
        try:
            again = await self._take_all(woken=woken)
        except (QueueCTLError, OSError) as error:
            self._tell(error.message if isinstance(error, QueueCTLError) else error.strerror or str(error))
            return _REFUSED
        self._tell(None)
        return again

    def _tell(self, trouble: str | None) -> None:
        if trouble is not None and self._trouble is None:
            log.error("Files in the spool are not taken", event_name="spool.failed", error=trouble)
        if trouble is None and self._trouble is not None:
            log.info("Files in the spool are taken again", event_name="spool.works")
        self._trouble = trouble

    async def _arrive(self, directory: Path | None) -> SpoolDir | None:
        """Return the directories, opened if they were not; None if there shall be none."""
        if self._place is not None and self._place.path != directory:
            self._leave()
        if directory is None:
            await self._eye.shut()
            return None
        if self._eye.directory != directory / "new":
            await self._eye.shut()
            self._eye = self._look_at(directory)
        if self._place is None:
            self._place = await asyncio.to_thread(self._open, directory)
            await self._recall(self._place)
        return self._place

    def _leave(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None

    async def _recall(self, place: SpoolDir) -> None:
        """Find out which files an earlier daemon has stored the jobs of."""
        self._stored.update(await self._ledger.write(lambda store: store.taken_files()))
        here = set(await asyncio.to_thread(place.claimed))
        old = [mark for mark in self._stored - here if self._clock() - taken_at(mark) > _LOST]
        if old:
            await self._forget(old)

    async def _take_all(self, *, woken: bool) -> float | None:
        fresh = self._place is None
        place = await self._arrive(self._directory)
        if place is None or self._stopping():
            return None
        if fresh or not woken:
            # Before anybody looks: what comes from now on wakes us.
            await self._eye.open()
        seen = await asyncio.to_thread(place.look)
        if seen is None:
            self._leave()
            return _SOON
        claimed, arrivals = seen
        later = await self._settle(place, claimed)
        count = 0
        for batch in _steps(in_turn(arrivals)):
            if self._stopping():
                return None
            marks = await asyncio.to_thread(place.claim, [arrival.name for arrival in batch])
            count += len(marks)
            later |= await self._settle(place, marks)
            await self._tidy(place)
        await self._tidy(place)
        return _SOON if later or (count and len(arrivals) == MOST_NAMES) else None

    def _stopping(self) -> bool:
        # What is not begun waits for the next daemon.
        return self._control.draining

    async def _tidy(self, place: SpoolDir) -> None:
        if self._clock() >= self._tidy_at or self._rejected >= _MUCH:
            await asyncio.to_thread(place.tidy)
            self._tidy_at, self._rejected = self._clock() + _TIDY, 0

    async def _settle(self, place: SpoolDir, marks: Sequence[str]) -> bool:
        """See files that are ours to their end; return whether some have to be looked at later."""
        done = [mark for mark in marks if mark in self._stored]
        marks = [mark for mark in marks if mark not in self._stored]
        await self._discard(place, done)
        later = False
        while marks:
            (found, marks), *_ = await asyncio.gather(
                asyncio.to_thread(place.inspect, marks),
                # At the same time, for the sake of those who wait: the disk makes one thing of both.
                asyncio.to_thread(place.sync_taken),
                asyncio.to_thread(place.sync_new),
            )
            later |= any(taken.later for taken in found)
            ready = [taken for taken in found if not taken.later]
            answers = await asyncio.gather(*(self._store(taken) for taken in ready), return_exceptions=True)
            await self._discard(place, [taken.mark for taken in ready if taken.mark in self._stored])
            for taken, answer in zip(ready, answers, strict=True):
                if isinstance(answer, str):
                    await self._reject(place, taken, answer)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
        return later

    async def _store(self, taken: Taken) -> str | None:
        """Have the jobs of a file stored; return why that cannot be. Raises what is not the fault of the file."""
        if taken.reason is not None:
            return taken.reason
        owner = user_name(taken.uid)
        if self._me == 0 and owner == str(taken.uid):
            return f"it belongs to nobody: no user of this host has the number {taken.uid}"
        config = self._holder.config
        submitter = Submitter(owner, taken.uid in {0, self._me}, user_name(self._me) if self._me else None)
        terms = Terms(submitter, config, policy(config), self._control.limit, self._ahead, self._clock())
        order = order_of(taken.jobs, terms)
        turn = Turn(("spool", taken.uid), order.part(0).weight)
        try:
            work: Callable[[Store], Enqueued | None] = partial(store_file, mark=taken.mark, order=order)
            reply = await self._ledger.write(work, sheds=True, turn=turn)
        except RefusedFileError as error:
            return error.message
        self._stored.add(taken.mark)
        if reply is not None:
            count = len(reply.jobs)
            log.info("Jobs of a file stored", event_name="spool.taken", path=taken.name, owner=owner, count=count)
            account_for_file(taken.name, owner, taken.uid, reply)
        return None

    async def _discard(self, place: SpoolDir, marks: Sequence[str]) -> None:
        if marks:
            await asyncio.to_thread(place.discard, marks)
            await asyncio.to_thread(place.sync_taken)
            await self._forget(marks)

    async def _forget(self, marks: Sequence[str]) -> None:
        await self._ledger.write(lambda store: store.forget_files(marks))
        self._stored.difference_update(marks)

    async def _reject(self, place: SpoolDir, taken: Taken, reason: str) -> None:
        name = await asyncio.to_thread(place.reject, taken, reason)
        self._rejected += 1
        log.warning(
            "A file in the spool is not taken",
            event_name="spool.refused",
            path=str(place.path / "failed" / name),
            owner=user_name(taken.uid),
            reason=reason,
        )
