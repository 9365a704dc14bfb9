"""One attempt from its spawn to its outcome: command, output, deadlines and tree brought together."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from typing import Final

from queuectld.protocol.output import STDERR, STDOUT
from queuectld.protocol.worker_messages import Outcome, Reason, RunSpec
from queuectld.worker.command import Command
from queuectld.worker.enclosure import Group
from queuectld.worker.ending import Ending, Stage
from queuectld.worker.limits import LimitGuard
from queuectld.worker.output import Output
from queuectld.worker.procfs import Stat, stat
from queuectld.worker.tree import Tree

# What a command leaves behind may be about to end by itself, as a process substitution is; so long it is let be.
_SETTLE: Final = 0.1
# While a tree is being ended it is looked at this often: at first, and at last.
_FIRST_LOOK: Final = 0.002
_LAST_LOOK: Final = 0.25
# Blocks read of a pipe when the tree is gone: more than it can hold, and an end to it if a stranger goes on writing.
_REST: Final = 64
# Of what a command leaves behind no more are named: the daemon stores the names, and reads no report without end.
_NAMED: Final = 1000
_NEVER: Final = float("inf")
# Who leads the command's session is told after so long. Most short commands are over by then, and the daemon needs it
# only where it has to end what is left of a command itself.
_ANNOUNCE_AFTER: Final = 0.02


class Execution:
    """A command that runs. `outcome` is None until it is over and nothing of its tree is left."""

    def __init__(self, spec: RunSpec, command: Command, marker: str, group: Group | None, now: float) -> None:
        self.command = command
        self.group = group
        self.outcome: Outcome | None = None
        self._started_at = time.time()
        self._output = Output(spec.output, spec.output_limit)
        self._pipes = {command.stdout: STDOUT, command.stderr: STDERR}
        user = os.geteuid() if spec.identity is None else spec.identity.uid
        self._tree = Tree(command.pid, marker.encode(), group, user)
        self._ending = Ending(now, spec.timeout, spec.kill_after, spec.silent_timeout)
        self._limits = LimitGuard(spec, now)
        # Set once the leader has ended and something is left, or a KILL was sent: when to look at the tree again.
        self._look_at: float | None = None
        self._look_delay = _FIRST_LOOK
        self._settled_at: float | None = None
        self._leftovers: list[str] = []
        self._keeps = spec.keep_leftovers
        # What was left on purpose, and lives on.
        self.kept: list[Stat] = []
        # Whether the leader ended without a TERM of ours; None while it runs.
        self._by_itself: bool | None = None
        self._announce_at: float | None = now + _ANNOUNCE_AFTER
        self._pid_start: int | None = None

    @property
    def pipes(self) -> list[int]:
        """Our ends of those of the command's pipes that are still open."""
        return list(self._pipes)

    @property
    def size(self) -> int:
        """Bytes of output seen so far."""
        return self._output.size

    def due(self) -> float | None:
        """When `turn` has something to do, if no child ends before."""
        watched = self._limits.due() if self._by_itself is None else None
        times = (self._ending.due(), watched, self._look_at, self._settled_at, self._announce_at)
        return min((t for t in times if t is not None), default=None)

    def leader_to_announce(self, now: float) -> tuple[int, int] | None:
        """Return the leader of the command's session and its start time, once, when it is time to tell."""
        if self._announce_at is None or now < self._announce_at:
            return None
        self._announce_at = None
        # It is not reaped before we know of its end, so the number is still its own.
        found = stat(self.command.pid)
        self._pid_start = found.start if found else None
        return None if found is None else (found.pid, found.start)

    def stop(self, now: float, reason: Reason, grace: float, kill_after: float | None) -> None:
        """Demand an end; see `Ending.stop`."""
        self._ending.stop(now, reason, grace, kill_after)

    def pass_signal(self, number: int) -> None:
        """Send a signal to the command's group."""
        # A number that is no signal is refused by Python or by the kernel.
        with contextlib.suppress(OSError, OverflowError):
            self._tree.signal_group(number)

    def pump(self, descriptor: int) -> bool:
        """Take what is in a pipe; return whether the pipe stays open."""
        if self._output.pump(descriptor, self._pipes[descriptor]) is None:
            self._close(descriptor)
            return False
        now = time.monotonic()
        self._ending.heard(now)
        if self._limits.floods(self._output.size):
            self._ending.stop(now, Reason.OUTPUT_LIMIT, 0.0, None)
        return True

    def turn(self, now: float) -> None:
        """Look after the children, and do what is due. To be called when a child has ended, and at `due`."""
        if self._tree.notice():
            self._after_leader(now)
        else:
            self._hold_to_limits(now)
            self._end_what_is_due(now)
        if self._look_at is not None and now >= self._look_at:
            self._look_at = now + self._look_delay
            self._look_delay = min(self._look_delay * 2, _LAST_LOOK)

    def _hold_to_limits(self, now: float) -> None:
        self._limits.note_host(now)
        if excess := self._limits.look(now, self._tree.cpu_seconds):
            self._ending.stop(now, excess.reason, 0.0, 0.0 if excess.at_once else None)

    def _end_what_is_due(self, now: float) -> None:
        stage = self._ending.step(now)
        if stage is Stage.TERMINATED:
            self._tree.signal_group(signal.SIGTERM)
            # A stopped process would not notice.
            self._tree.signal_group(signal.SIGCONT)
            # It may have been granted no time at all.
            stage = self._ending.step(now)
        if stage is Stage.KILLED:
            self._look_at, self._look_delay = now, _FIRST_LOOK
        if self._ending.stage is Stage.KILLED:
            # The group first, at one stroke; then the cgroup, at another; then everything that fled from both.
            self._tree.signal_group(signal.SIGKILL)
            self._tree.kill_group()
            self._tree.signal_each(self._tree.others(), signal.SIGKILL)

    def _after_leader(self, now: float) -> None:
        if self._by_itself is None:
            self._by_itself = self._ending.reason is None
        if self._by_itself and self._tree.clear():
            self._finish()
            return
        others = self._tree.others()
        if not others and self._tree.clear():
            self._finish()
            return
        if self._look_at is None:
            self._look_at = now
        self._end_leftovers(now, others)
        if self._ending.stage is not Stage.FREE:
            self._end_what_is_due(now)

    def _end_leftovers(self, now: float, others: list[Stat]) -> None:
        if self._settled_at == _NEVER:
            return
        if not self._by_itself:
            # The group has had its TERM; those that left it have not.
            self._settled_at = _NEVER
            self._terminate([process for process in others if not self._tree.in_group(process)])
            return
        if self._settled_at is None:
            self._settled_at = now + _SETTLE
        demanded = self._ending.due()
        demands = demanded is not None and now >= demanded
        if now >= self._settled_at or demands:
            self._settled_at = _NEVER
            if self._keeps and not demands:
                self._keep(others)
                return
            self._leftovers = named(others)
            self._terminate(others)
            self._ending.leave_behind(now)

    def _keep(self, others: list[Stat]) -> None:
        self.kept = others
        self._leftovers = named(others, " (kept)")
        self._finish()

    def _terminate(self, processes: list[Stat]) -> None:
        self._tree.signal_each(processes, signal.SIGTERM)
        self._tree.signal_each(processes, signal.SIGCONT)

    def _finish(self) -> None:
        for descriptor in self.pipes:
            for _ in range(_REST):
                if not self._output.pump(descriptor, self._pipes[descriptor]):
                    break
            self._close(descriptor)
        ended_at = time.time()
        self._output.finish(ended_at)
        code = self._tree.leader_code or 0
        reason = self._reason(code)
        said = (self._limits.text(reason, self._tree.peak_memory), self._output.message)
        self.outcome = Outcome(
            reason=reason,
            ended_at=ended_at,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            pid=self.command.pid,
            pid_start=self._pid_start,
            started_at=self._started_at,
            cpu_seconds=self._tree.cpu_seconds,
            peak_memory=self._tree.peak_memory or None,
            output_bytes=self._output.size,
            output_missing=self._output.missing,
            output_index=self._output.index_size,
            leftovers=tuple(self._leftovers),
            message="; ".join(text for text in said if text) or None,
        )

    def _reason(self, code: int) -> Reason:
        if self._ending.reason and not self._by_itself:
            return self._ending.reason
        if limit := self._limits.verdict(self.command.pid, code, self._output.size):
            return limit
        return Reason.EXITED if code >= 0 else Reason.SIGNALLED

    def _close(self, descriptor: int) -> None:
        del self._pipes[descriptor]
        os.close(descriptor)


def named(processes: Sequence[Stat], how: str = "") -> list[str]:
    """Return the first thousand as ``pid name``, and how many more there are."""
    names = [f"{process.pid} {process.name}{how}" for process in processes[:_NAMED]]
    more = len(processes) - len(names)
    return [*names, f"and {more} more"] if more else names
