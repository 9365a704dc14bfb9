"""What monitoring asks of the store: a few rows, however many jobs there are."""

from __future__ import annotations

from queuectld.figures.picture import Holdings
from queuectld.store.base import Reader


def holdings(store: Reader) -> Holdings:
    """Look what there is."""
    jobs = store.counts()
    return Holdings(
        jobs={queue: jobs.get(queue, {}) for queue in {*store.queues(), *jobs}},
        unseen=store.unseen_dead(),
        first_due=store.first_due(),
        next_due=store.next_due(),
    )
