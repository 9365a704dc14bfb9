"""What is counted while it happens. Nothing here is stored: it begins at zero with the daemon.

Labels are bounded: the first queues are told apart, all others together are one more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from queuectld.domain.attempt import Reason
from queuectld.domain.job import State
from queuectld.domain.transitions import NEXT, Event
from queuectld.figures.histogram import COMMIT, LIFE, Histogram
from queuectld.store.base import Entry

# Queues that have a label of their own.
MOST_QUEUES: Final = 50
# No queue can have this name.
OTHER: Final = "(other)"

WORKER_EVENTS: Final = ("started", "failed", "lost", "replaced", "retired", "ended")

_ENQUEUED: Final = "job.enqueued"
# Shown from the start, so that the first one is seen as a change.
_EVENTS: Final = (_ENQUEUED, *(event.value for event in Event))
_USUAL_ENDS: Final = ((Reason.EXITED, State.COMPLETED), (Reason.EXITED, State.FAILED), (Reason.EXITED, State.DEAD))

# What ends an attempt, and the state in which it leaves the job.
_ENDS: Final = {event.value: state for event, state in NEXT[State.PROCESSING].items()}

# What an entry tells: the event, the queue, the reason, and whether the job ran until then. Those that tell the same
# are counted together.
_Kind = tuple[str, str | None, Reason | None, bool]


class Counts:
    """Belongs to the loop's thread, but for `commits`, which is the store's."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._kinds: dict[_Kind, int] = {}
        self._waiting: dict[str, Histogram] = {}
        self._running: dict[str, Histogram] = {}
        self._requests: Counter[tuple[str, str]] = Counter()
        self._workers = Counter(dict.fromkeys(WORKER_EVENTS, 0))
        self.commits = Histogram(COMMIT)
        # Whether the configuration was valid when it was read last, and when it last was; seconds since the epoch.
        self.config_valid = True
        self.config_read_at: float | None = None

    # What happens.

    def committed(self, entries: Sequence[Entry]) -> None:
        """Entries are on disk."""
        kinds = self._kinds
        for entry in entries:
            queue = entry.queue
            label = None if queue is None else self._labels.get(queue) or self.label(queue)
            kind = (entry.event, label, entry.reason, entry.was is State.PROCESSING)
            kinds[kind] = kinds.get(kind, 0) + 1

    def started(self, queue: str, waited: float) -> None:
        """An attempt was given to a worker, so many seconds after it was due."""
        _of(self._waiting, self.label(queue)).observe(waited)

    def ended(self, queue: str, ran: float) -> None:
        """An attempt is over, which took so many seconds."""
        _of(self._running, self.label(queue)).observe(ran)

    def worker(self, event: str) -> None:
        """One of `WORKER_EVENTS` happened to a worker."""
        self._workers[event] += 1

    def answered(self, op: str, result: str) -> None:
        """A request was answered: ``ok``, or the code of an error."""
        self._requests[op, result] += 1

    def config_read(self, now: float, *, valid: bool) -> None:
        """The configuration was read."""
        self.config_valid = valid
        if valid:
            self.config_read_at = now

    # What came of it: values of labels, and how often.

    def label(self, queue: str) -> str:
        """Return by which name a queue is told."""
        known = self._labels.get(queue)
        if known is None and len(self._labels) < MOST_QUEUES:
            known = self._labels[queue] = queue
        return OTHER if known is None else known

    def expect(self, queues: Iterable[str]) -> None:
        """Show these queues, though nothing has happened there."""
        for queue in queues:
            label = self.label(queue)
            _of(self._waiting, label)
            _of(self._running, label)

    def of_queues(self, event: str) -> Iterator[tuple[tuple[str], int]]:
        """Yield how often something happened to the jobs of each queue."""
        found = Counter(dict.fromkeys(self._waiting, 0))
        for (name, queue, *_), number in self._kinds.items():
            if name == event and queue is not None:
                found[queue] += number
        return (((queue,), number) for queue, number in found.items())

    def ends(self) -> Iterator[tuple[tuple[str, str, str], int]]:
        """Yield how often attempts ended, by queue, reason and the state of the job after that."""
        usual = ((queue, reason.value, state.value) for queue in self._waiting for reason, state in _USUAL_ENDS)
        found = Counter(dict.fromkeys(usual, 0))
        for (event, queue, reason, ran), number in self._kinds.items():
            if ran and event in _ENDS and queue is not None and reason is not None:
                found[queue, reason.value, _ENDS[event].value] += number
        yield from found.items()

    def events(self) -> Iterator[tuple[tuple[str], int]]:
        """Yield how often what happened."""
        found = Counter(dict.fromkeys(_EVENTS, 0))
        for (event, *_), number in self._kinds.items():
            found[event] += number
        return (((event,), number) for event, number in found.items())

    def waiting(self) -> Iterator[tuple[tuple[str], Histogram]]:
        """Yield how long attempts waited, by queue."""
        return (((queue,), histogram) for queue, histogram in self._waiting.items())

    def running(self) -> Iterator[tuple[tuple[str], Histogram]]:
        """Yield how long attempts ran, by queue."""
        return (((queue,), histogram) for queue, histogram in self._running.items())

    def workers(self) -> Iterator[tuple[tuple[str], int]]:
        """Yield how often what happened to workers."""
        return (((event,), number) for event, number in self._workers.items())

    def requests(self) -> Iterator[tuple[tuple[str, str], int]]:
        """Yield how often which request was answered how."""
        yield from self._requests.items()


def _of(histograms: dict[str, Histogram], queue: str) -> Histogram:
    found = histograms.get(queue)
    if found is None:
        found = histograms[queue] = Histogram(LIFE)
    return found
