"""Configuration keys, listed and overridden; and the bound of the pool, which is one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from msgspec.structs import replace

from queuectld.config import Loaded
from queuectld.errors import BadConfigError
from queuectld.keys import find_key
from queuectld.protocol.messages import ConfigList, ConfigSet, ConfigUnset, WorkerStart, WorkerStop
from queuectld.protocol.replies import Reloaded, Settings, Workers
from queuectld.server.desk import Desk
from queuectld.server.door import FILES
from queuectld.service.sight import EVERYTHING, Sight
from queuectld.store.base import Entry

log = structlog.get_logger()


def list_settings(desk: Desk, request: ConfigList) -> Settings:
    """Return keys. Raises `NoSuchKeyError`."""
    return Settings(settings=desk.holder.loaded.settings(request.keys))


async def set_key(desk: Desk, request: ConfigSet, user: str) -> Settings:
    """Override a key. Raises `NoSuchKeyError`, `BadConfigError`."""
    now = desk.clock()
    await _take_up(
        desk, lambda old: old.with_override(request.key, request.value, user, now), "config.set", request.key, user
    )
    return Settings(settings=desk.holder.loaded.settings((request.key,)))


async def unset_key(desk: Desk, request: ConfigUnset, user: str) -> Settings:
    """Take an override away. Raises `NoSuchKeyError`."""
    await _take_up(desk, lambda old: old.without_override(request.key), "config.unset", request.key, user)
    return Settings(settings=desk.holder.loaded.settings((request.key,)))


async def reload(desk: Desk, user: str) -> Reloaded:
    """Read the configuration again. Raises `BadConfigError`."""
    told = await desk.reloader.reload()
    entry = Entry(at=desk.clock(), event="config.loaded", by=user)
    await desk.ledger.write(lambda store: store.write_entry(entry))
    return told


async def start_workers(desk: Desk, request: WorkerStart, user: str) -> Workers:
    """Set the bound of the pool and start that many; without a number, as many as before `worker_stop`."""
    now, count = desk.clock(), request.count
    if count is not None:
        await _bound(desk, lambda old: old.with_override("workers", count, user, now), user)
    elif desk.config.workers == 0:
        await _bound(desk, lambda old: old.resumed(user, now), user)
    desk.control.start_workers(desk.control.limit)
    return list_workers(desk)


async def stop_workers(desk: Desk, request: WorkerStop, user: str) -> Workers:
    """Let no worker run any more; what runs may end, or goes back to its queue."""
    now = desk.clock()
    await _bound(desk, lambda old: old.paused(user, now), user)
    if request.now:
        desk.control.interrupt_all()
    return list_workers(desk)


def list_workers(desk: Desk, sight: Sight = EVERYTHING) -> Workers:
    """Return the pool; of the jobs of others no more than which they are."""
    workers = tuple(desk.control.workers())
    if not sight.all:
        workers = tuple(replace(worker, attempt=None) for worker in workers)
    return Workers(limit=desk.control.limit, workers=workers)


async def _bound(desk: Desk, change: Callable[[Loaded], Loaded], user: str) -> None:
    await _take_up(desk, change, "config.set", "workers", user)


async def _take_up(desk: Desk, change: Callable[[Loaded], Loaded], event: str, key: str, user: str) -> None:
    """Store an override, and live by it; what could not be stored is not taken up."""
    async with desk.reloader.changing:
        loaded = change(desk.holder.loaded)
        # What other keys say needs no look at files, be they right or not by now.
        named = find_key(key).field in {*FILES, "log_file"}
        parts = await asyncio.to_thread(desk.reloader.consult, loaded.config) if named else []
        try:
            await asyncio.to_thread(loaded.write_overrides, desk.overrides_file)
        except OSError as error:
            raise BadConfigError(f"cannot store the override: {error.strerror or error}", path=key) from None
        desk.holder.replace(loaded)
        for take_up in parts:
            take_up()
    desk.control.reconfigure()
    log.info("A configuration key was changed", event_name=event, key=find_key(key).name, user=user)
    entry = Entry(at=desk.clock(), event=event, by=user)
    await desk.ledger.write(lambda store: store.write_entry(entry))
