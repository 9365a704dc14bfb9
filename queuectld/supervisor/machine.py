"""The operating system as the supervisor sees it: all that is not a decision, behind two ports.

`LinuxMachine` and `StateFiles` are the real ones. Whoever gives the supervisor others, with a loop whose time is its
own, can let it live through years of bad luck in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from queuectld.protocol.worker_messages import FromWorker, Hello
from queuectld.service.attempts import Claimed
from queuectld.service.run_spec import InputFiles
from queuectld.supervisor.recovery import Filed
from queuectld.supervisor.rescue import Remains
from queuectld.supervisor.vitals import Reading, Subject
from queuectld.supervisor.worker import Connection, Watch, Worker


class Process(NamedTuple):
    """A process, in a form that survives the reuse of numbers: `start` is in clock ticks since boot."""

    pid: int
    start: int


class Reception(Protocol):
    """Where connections of workers report; it knows all workers."""

    def recognise(self, connection: Connection, hello: Hello) -> Worker | None:
        """Return who is at the other end, if it is who it says."""

    def heard(self, worker: Worker, message: FromWorker) -> None:
        """A worker said something."""

    def lost(self, worker: Worker) -> None:
        """A worker's connection is over, and has been read to its end."""


class AlarmClock(Protocol):
    """Rings once when the wall clock reaches a time, and whenever the clock was set."""

    def no_later_than(self, when: float) -> None:
        """Ring at `when` (seconds since the epoch), unless it rings before anyway."""

    def close(self) -> None:
        """Ring no more."""


class Machine(Protocol):
    """Processes, the worker socket, and the wall clock's alarm. Callbacks come on the loop."""

    @property
    def uid(self) -> int:
        """Whose workers may speak to us."""

    @property
    def boot_id(self) -> str:
        """What names this boot of the host."""

    def become_subreaper(self) -> None:
        """Let orphaned descendants become our children. Raises `OSError`."""

    def start_time(self, pid: int) -> int | None:
        """Return when a living process started; None if there is none of that number."""

    def spawn(self, name: str, orphan_timeout: float) -> Process:
        """Start a worker. Raises `OSError`."""

    def find(self, known: Iterable[int]) -> Sequence[Process]:
        """Return living workers of this store that are not among the `known`."""

    def know(self, pid: int) -> None:
        """Take a process for one of ours: what a dead worker left is not looked for in it."""

    def disown(self, pid: int) -> None:
        """Take it for one of ours no more: its number may be somebody else's."""

    def watch(self, pid: int, gone: Callable[[], None]) -> Watch:
        """Call `gone` once when the process has ended. Raises `ProcessLookupError` if it has, `OSError` if not now."""

    def kill(self, process: Process) -> None:
        """SIGKILL a process that is not watched; nothing happens if it is gone."""

    async def listen(self, reception: Reception) -> Callable[[], None]:
        """Open the worker socket; return what closes it."""

    def alarm(self, ring: Callable[[], None]) -> AlarmClock:
        """Return an alarm, not set; `ring` decides what is due and sets it again."""

    async def examine(self, subjects: Sequence[Subject]) -> Mapping[int, Reading | None]:
        """Read the vitals of workers, and see what is left of what was kept; off the loop."""

    def group(self, token: int) -> str | None:
        """Return the cgroup that an attempt may have of its own; None where there are none."""

    def encloses(self, worker: Process) -> bool:
        """Whether a worker makes use of all the cgroups that there are for it."""

    async def sweep(self, live: Collection[int], workers: Sequence[Process]) -> None:
        """End what is left of attempts that are not `live`, as far as cgroups tell; `workers` are seen to elsewhere."""

    def bury(self, worker: Process) -> None:
        """Clean up behind a worker that is gone and has no attempt."""

    def close(self) -> None:
        """Leave nothing behind that nobody needs any more."""

    async def end_remains(self, remains: Remains, report: Callable[[str], None]) -> list[str]:
        """End everything in the kill set of an attempt; see `queuectld.supervisor.rescue`. Raises `OSError`."""


class Files(Protocol):
    """Outcomes that workers left on disk, and what commands read."""

    def outcomes(self) -> Sequence[Filed]:
        """Return all outcomes of this store that can be read."""

    def outcome(self, token: int) -> Filed | None:
        """Return the outcome of an attempt, if it was left in a file."""

    def remove_outcome(self, token: int) -> None:
        """Forget an outcome, after it was committed."""

    async def write_inputs(self, claimed: Claimed) -> InputFiles:
        """Write script and standard input of an attempt where its worker opens them. Raises `OSError`."""

    def remove_inputs(self, token: int) -> None:
        """Remove them again."""

    def prune_inputs(self, live: frozenset[int]) -> None:
        """Remove those of all other attempts."""
