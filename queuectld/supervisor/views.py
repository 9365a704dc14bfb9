"""Workers and finished attempts as they are told: to clients, and to the log."""

from __future__ import annotations

from typing import Final

import structlog

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import Job, State
from queuectld.protocol.replies import WorkerView
from queuectld.service.views import iso
from queuectld.supervisor.link import Phase
from queuectld.supervisor.worker import Worker

log = structlog.get_logger()

_PHASES: Final = {
    Phase.STARTING: "starting",
    Phase.IDLE: "idle",
    Phase.CLAIMING: "idle",
    Phase.PREPARING: "running",
    Phase.RUNNING: "running",
    Phase.SETTLING: "running",
    Phase.GONE: "stopping",
}


def worker_view(worker: Worker, *, since: float) -> WorkerView:
    """Return a worker as clients see it; `since` is the wall-clock time at which it came into its phase."""
    vitals = worker.vitals
    return WorkerView(
        name=worker.name,
        pid=worker.pid,
        phase=_phase(worker),
        job=worker.job.id if worker.job else None,
        attempt=worker.attempt,
        since=iso(since),
        started_at=iso(worker.started_at),
        jobs_done=worker.jobs_done,
        memory=vitals.memory if vitals else None,
        descriptors=vitals.descriptors if vitals else None,
        cpu_seconds=vitals.cpu_seconds if vitals else None,
    )


def _phase(worker: Worker) -> str:
    if worker.link.retiring or worker.link.stopping or worker.link.dead:
        return "stopping"
    if worker.link.token is not None and worker.connection is None:
        return "awaited"
    return _PHASES[worker.link.phase]


def log_finished(job: Job, attempt: Attempt) -> None:
    """Write the one line that tells everything about a finished attempt."""
    outcome = attempt.outcome
    if outcome is None:
        return
    began = attempt.claimed_at if outcome.started_at is None else outcome.started_at
    write = log.info if job.state is State.COMPLETED else log.warning
    write(
        "Job finished",
        event_name="job.finished",
        job_id=job.id,
        queue=job.queue,
        owner=job.owner,
        worker_id=attempt.worker,
        attempt=attempt.number,
        state=job.state,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        duration_ms=round((outcome.ended_at - began) * 1000, 3),
        cpu_ms=None if outcome.cpu_seconds is None else round(outcome.cpu_seconds * 1000, 3),
        peak_memory=outcome.peak_memory,
        output_bytes=outcome.output_bytes,
        leftovers=outcome.leftovers or None,
    )
