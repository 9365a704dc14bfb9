"""A job that waits for jobs lends its worker, so that jobs that start jobs never lock up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from queuectld.errors import BadRequestError, ForbiddenError
from queuectld.server.desk import Desk
from queuectld.service.sight import Sight
from queuectld.store.base import Reader


@asynccontextmanager
async def lending(desk: Desk, token: str | None, sight: Sight) -> AsyncIterator[None]:
    """Lend the worker of the attempt with this token (as in QUEUECTL_ATTEMPT_TOKEN) as long as the block lasts.

    A token of another store is somebody else's business. Raises `BadRequestError` if it is no token at all, and
    `ForbiddenError` if the attempt is one of somebody else's job.
    """
    if token is None:
        yield
        return
    store, _, number = token.partition("/")
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise BadRequestError("`lend` takes what QUEUECTL_ATTEMPT_TOKEN says", path="$.lend")
    if store != desk.facts.store:
        yield
        return
    if not sight.all and not await desk.ledger.read(partial(_own, token=int(number), sight=sight)):
        raise ForbiddenError("`lend` takes the attempt of a job of yours", path="$.lend")
    release = desk.control.lend(int(number))
    try:
        yield
    finally:
        release()


def _own(reader: Reader, token: int, sight: Sight) -> bool:
    attempt = reader.attempt(token)
    return attempt is not None and sight.whole(reader.by_seq(attempt.job).owner)
