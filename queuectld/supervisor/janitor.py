"""Removes what was kept long enough, in small steps, so that everything else is served in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from queuectld.config import Holder
from queuectld.errors import QueueCTLError
from queuectld.host.ledger import Ledger
from queuectld.keys import Config
from queuectld.protocol.output import SUFFIXES, base_name
from queuectld.store.base import Removed, Retention

log = structlog.get_logger()

# Seconds between two rounds; what it bounds is counted in days and in hundreds of thousands of jobs.
_ROUND: Final = 600.0
# Rows in one transaction.
_STEP: Final = 500


class Janitor:
    """Keeps the store and the output within what `retention.*` allows."""

    def __init__(self, ledger: Ledger, config: Holder, output: Path, *, clock: Callable[[], float]) -> None:
        """`output` is the directory of attempts' output, `clock` the wall clock."""
        self._ledger = ledger
        self._config = config
        self._output = output
        self._clock = clock
        self._changed = asyncio.Event()
        self._kept = retention_of(config.config)
        config.listen(self._reconfigured)

    def _reconfigured(self, config: Config) -> None:
        kept, self._kept = self._kept, retention_of(config)
        if self._kept != kept:
            self._changed.set()

    async def run(self) -> None:
        """Clean up now, every ten minutes and when less is to be kept, until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.clean()
            except QueueCTLError as error:
                # A full disk passes, and everything worse ends the daemon by itself.
                log.warning("Cannot remove old jobs", event_name="store.failed", error=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _ROUND)

    async def clean(self) -> None:
        """Remove, step by step, all that is due."""
        jobs = entries = 0
        while True:
            removed = await self._step()
            if removed.outputs:
                await asyncio.to_thread(remove_outputs, self._output, removed.outputs)
            jobs, entries = jobs + removed.jobs, entries + removed.entries
            if not removed.jobs and not removed.entries and not removed.requests:
                break
        if jobs or entries:
            log.info("Old jobs removed", event_name="store.expired", count=jobs, entries=entries)

    async def _step(self) -> Removed:
        retention, now = retention_of(self._config.config), self._clock()
        return await self._ledger.write(lambda store: store.expire(retention, now=now, limit=_STEP))


def retention_of(keys: Config) -> Retention:
    """Return how long things are kept."""
    return Retention(
        finished=keys.retention_finished,
        finished_count=keys.retention_count,
        deleted=keys.retention_deleted,
        events=keys.retention_events,
        requests=keys.retention_requests,
    )


def remove_outputs(output: Path, attempts: Sequence[tuple[int, int]]) -> None:
    """Remove the output of attempts, given as (position of the job, number of the attempt)."""
    for seq, number in attempts:
        base = output / base_name(seq, number)
        for suffix in SUFFIXES:
            base.with_name(base.name + suffix).unlink(missing_ok=True)
