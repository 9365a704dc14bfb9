"""Passes signals on to running commands."""

from __future__ import annotations

from queuectld.errors import WrongStateError
from queuectld.protocol.messages import SignalJob
from queuectld.protocol.replies import Done
from queuectld.server.desk import Desk
from queuectld.service.selection import job_named
from queuectld.service.sight import Sight


async def signal_job(desk: Desk, request: SignalJob, sight: Sight) -> Done:
    """Signal the command of a running job. Raises `NoSuchJobError`, `ForbiddenError`, `WrongStateError`."""
    job = await desk.ledger.read(lambda reader: job_named(reader, request.job, "$.job", sight))
    if job.token is None or not desk.control.signal(job.token, request.number):
        raise WrongStateError(f"job '{job.id}' does not run", path="$.job")
    return Done()
