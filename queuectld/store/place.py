"""In which order, if in any, a stored job stands: to be started, to become startable, or to be forgotten."""

from __future__ import annotations

from typing import Final

from queuectld.domain.job import WAITING, Job, State

NOWHERE: Final = 0
# Could start now.
STARTABLE: Final = 1
# Waits for its time.
UNRIPE: Final = 2
# Ages until retention takes it away: completed, cancelled, dead and seen.
FINISHED: Final = 3
# Likewise, but discarded.
HIDDEN: Final = 4

# So many jobs become startable at once when a claim finds that nobody called `ripen`.
RIPEN_STEP: Final = 500


def place_of(job: Job) -> int:
    """Return where a job stands that has just been changed, at its ``updated_at``."""
    if job.state in WAITING:
        return STARTABLE if job.due <= job.updated_at else UNRIPE
    if job.state is State.COMPLETED or job.state is State.CANCELLED or (job.state is State.DEAD and job.seen):
        return FINISHED
    return HIDDEN if job.state is State.DELETED else NOWHERE
