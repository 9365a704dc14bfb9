"""A job that waits for jobs lends its worker, so that jobs that start jobs never lock up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from queuectld.errors import BadRequestError
from queuectld.server.desk import Desk


@contextmanager
def lending(desk: Desk, token: str | None) -> Iterator[None]:
    """Lend the worker of the attempt with this token (as in QUEUECTL_ATTEMPT_TOKEN) as long as the block lasts.

    A token of another store is somebody else's business. Raises `BadRequestError` if it is no token at all.
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
    release = desk.control.lend(int(number))
    try:
        yield
    finally:
        release()
