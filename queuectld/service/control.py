"""What requests may ask of the running pool; the supervisor does it. All of it belongs to the loop's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from queuectld.protocol.replies import WorkerView

ShutdownMode = Literal["drain", "wait", "now", "leave"]


class Control(Protocol):
    """The supervisor as the rest of the daemon sees it."""

    @property
    def draining(self) -> bool:
        """Whether the daemon is on its way out."""

    @property
    def limit(self) -> int:
        """How many workers may run at once, those lent by waiting jobs not counted."""

    def workers(self) -> Sequence[WorkerView]:
        """Return the pool as it is now."""

    def start_workers(self, count: int) -> None:
        """Start workers until there are `count`, without waiting for jobs to need them."""

    def reconfigure(self) -> None:
        """Take up what changed in the configuration: the bound of the pool, limits, and times."""

    def interrupt_all(self) -> None:
        """Send all running jobs back to their queues."""

    def cancel(self, token: int, *, kill_after: float | None) -> None:
        """End a live attempt whose cancel is stored. Harmless if it is over."""

    def signal(self, token: int, number: int) -> bool:
        """Pass a signal to the command of a live attempt; return whether there was one."""

    def held_up_by(self, token: int) -> str | None:
        """Return what keeps an attempt from ending, for people; None if it is over."""

    def follow(self, token: int, grown: Callable[[], None]) -> Callable[[], None]:
        """Call `grown` when the attempt writes output; return what ends that. Harmless for attempts that are over."""

    def lend(self, token: int) -> Callable[[], None]:
        """Do not count an attempt, which waits for another job, against the pool's bound; return what ends that."""

    def shutdown(self, mode: ShutdownMode) -> None:
        """Begin to end the daemon; a stronger mode than the one under way replaces it."""

    def problems(self, *, whole: bool = True) -> Sequence[str]:
        """Return sentences about what is wrong now; none if all is well.

        Unless `whole`, without names of processes, which tell what a job runs.
        """
