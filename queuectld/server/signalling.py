"""Passes signals on to running commands."""

from __future__ import annotations

from collections.abc import Callable

from queuectld.errors import WrongStateError
from queuectld.protocol.messages import SignalJob
from queuectld.protocol.replies import Done
from queuectld.server.desk import Desk
from queuectld.service.jobs import named


async def signal_job(desk: Desk, request: SignalJob, settled: Callable[[], None]) -> Done:
    """Signal the command of a running job. Raises `NoSuchJobError`, `WrongStateError`."""
    del settled
    job = await desk.ledger.read(lambda reader: named(reader, request.job))
    if job.token is None or not desk.control.signal(job.token, request.number):
        raise WrongStateError(f"job '{job.id}' does not run", path="$.job")
    return Done()
