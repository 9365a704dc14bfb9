"""Forgets, round after round, what was kept long enough: jobs, events, answers to requests, output of attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from queuectld.config import Holder
from queuectld.domain.attempt import Reason
from queuectld.errors import QueueCTLError
from queuectld.host.ledger import Ledger
from queuectld.keys import Config
from queuectld.protocol.output import SUFFIXES, base_name
from queuectld.store.base import Entry, OutputPlace, Removed, Retention, Store

log = structlog.get_logger()

# Seconds between two rounds; what it bounds is counted in days and in hundreds of thousands of jobs.
_ROUND: Final = 600.0
# Rows in one transaction.
_STEP: Final = 500
# When there is too much output, so much of what is allowed goes besides: else every job to come would begin it anew.
_SLACK: Final = 64


class Janitor:
    """Keeps the store and the output within what `retention.*` allows."""

    def __init__(self, ledger: Ledger, config: Holder, output: Path, *, clock: Callable[[], float]) -> None:
        """`output` is the directory of attempts' output, `clock` the wall clock."""
        self._ledger = ledger
        self._config = config
        self._output = output
        self._clock = clock
        self._wake = asyncio.Event()
        # Whether the next round is about everything, and not only about output.
        self._everything = True
        self._kept = retention_of(config.config)
        self._bound = config.config.retention_output
        config.listen(self._reconfigured)

    def _reconfigured(self, config: Config) -> None:
        kept, self._kept = self._kept, retention_of(config)
        bound, self._bound = self._bound, config.retention_output
        if self._kept != kept:
            self._everything = True
        if self._kept != kept or self._bound < bound:
            self._wake.set()

    def committed(self, entries: Sequence[Entry]) -> None:
        """Listen to the hub: output is bounded when it comes to be too much, not only when a round is due."""
        if self._ledger.kept_output > self._bound or any(entry.reason is Reason.LOST for entry in entries):
            self._wake.set()

    async def run(self) -> None:
        """Clean up now, every ten minutes and when there is too much, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _ROUND
        while True:
            everything, self._everything = self._everything, False
            self._wake.clear()
            try:
                await (self.clean() if everything else self.tidy_output())
            except (QueueCTLError, OSError) as error:
                # A full disk passes, and everything worse ends the daemon by itself.
                log.warning("Cannot remove old jobs", event_name="store.failed", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            if loop.time() >= due:
                self._everything, due = True, loop.time() + _ROUND

    async def clean(self) -> None:
        """Remove, step by step, all that is due."""
        jobs = entries = 0
        while True:
            removed = await self._step()
            jobs, entries = jobs + removed.jobs, entries + removed.entries
            if not removed.jobs and not removed.entries and not removed.requests:
                break
        if jobs or entries:
            log.info("Old jobs removed", event_name="store.expired", count=jobs, entries=entries)
        await self.tidy_output()

    async def _step(self) -> Removed:
        retention, now = retention_of(self._config.config), self._clock()
        return await self._ledger.write(lambda store: store.expire(retention, now=now, limit=_STEP))

    # Output.

    async def tidy_output(self) -> None:
        """Give up the oldest output if all together is too much, and remove the files of what was given up."""
        await self._measure()
        if count := await self._shed():
            log.info("Old output removed", event_name="output.removed", count=count)
        await self._remove()

    async def _measure(self) -> None:
        """Look how much a worker wrote that could not say so any more."""
        while places := await self._ledger.write(lambda store: store.unmeasured_output(limit=_STEP)):
            sizes = await asyncio.to_thread(_sizes, self._output, places)
            await self._ledger.write(partial(_note, sizes=sizes))

    async def _shed(self) -> int:
        bound, count = self._config.config.retention_output, 0
        if await self._ledger.write(lambda store: store.kept_output()) <= bound:
            return 0
        target = bound - bound // _SLACK
        while step := await self._ledger.write(
            lambda store: store.shed_output(store.kept_output() - target, limit=_STEP)
        ):
            count += step
            await self._remove()
        return count

    async def _remove(self) -> None:
        while places := await self._ledger.write(lambda store: store.removed_output(limit=_STEP)):
            gone = await asyncio.to_thread(remove_outputs, self._output, places)
            await self._ledger.write(partial(_forget, gone=gone))
            if len(gone) < len(places):
                # The next round tries again.
                break


def retention_of(keys: Config) -> Retention:
    """Return how long things are kept."""
    return Retention(
        finished=keys.retention_finished,
        finished_count=keys.retention_count,
        deleted=keys.retention_deleted,
        events=keys.retention_events,
        requests=keys.retention_requests,
    )


def _files(output: Path, place: OutputPlace) -> list[Path]:
    base = output / base_name(place.seq, place.number)
    return [base.with_name(base.name + suffix) for suffix in SUFFIXES]


def _sizes(output: Path, places: Sequence[OutputPlace]) -> list[tuple[int, int]]:
    """Return the tokens of attempts, and how many bytes there are of each."""
    return [(place.token, sum(_size(file) for file in _files(output, place))) for place in places]


def _note(store: Store, sizes: Sequence[tuple[int, int]]) -> None:
    for token, size in sizes:
        store.note_output(token, size)


def _forget(store: Store, gone: Sequence[OutputPlace]) -> None:
    store.forget_output(gone)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def remove_outputs(output: Path, places: Sequence[OutputPlace]) -> list[OutputPlace]:
    """Remove the output of attempts; return those of which nothing is left."""
    gone = []
    for place in places:
        try:
            for file in _files(output, place):
                file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("Cannot remove output", event_name="store.failed", path=error.filename, error=str(error))
            continue
        gone.append(place)
    return gone
