"""The limits of one attempt, watched while its command runs; and what is said of the one that ended it."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from typing import Final

from queuectld.protocol.worker_messages import Reason, RunSpec
from queuectld.worker import cgroups, oom, usage
from queuectld.worker.watch import Excess, Watch

# What a shell exits with when the kernel, or anybody, has killed what it ran last.
_CHILD_KILLED: Final = 128 + signal.SIGKILL
_MIB: Final = 1 << 20
# The host is asked how often its kernel has killed when a command has run for so long, and no more often than that
# later; most short ones are over by then. What was killed longer ago than two such spans was not this command.
_FIRST_ASKED: Final = 0.02
_ASKED_EVERY: Final = 5.0


class LimitGuard:
    """What the command of an attempt may use; made when it has been started."""

    def __init__(self, spec: RunSpec, now: float) -> None:
        self._spec = spec
        confined = bool(spec.memory and spec.cgroup and cgroups.confine(spec.cgroup, spec.memory))
        self._memory = None if confined else spec.memory
        self._watch: Watch | None = None
        if self._memory is not None or spec.cpu is not None:
            processors = len(os.sched_getaffinity(0))
            self._watch = Watch(now, memory=self._memory, cpu=spec.cpu, processors=processors)
        self._flooded = False
        # How many processes of the host the kernel had killed for want of memory, the last two times it was asked.
        self._kills: deque[int | None] = deque((None,), maxlen=2)
        self._ask_at = now + _FIRST_ASKED
        self._said: dict[Reason, str] = {}

    def due(self) -> float | None:
        """When `look` has something to do, if ever."""
        return self._watch.due() if self._watch else None

    def look(self, now: float, reaped: float) -> Excess | None:
        """See what the tree uses, if it is time to; `reaped` are the processor seconds of what was reaped already."""
        if self._watch is None or now < self._watch.due():
            return None
        began = time.monotonic()
        pids = list(usage.descendants(os.getpid()))
        memory = usage.memory(pids, self._memory) if self._memory is not None else 0
        cpu = self._cpu(pids, reaped) if self._spec.cpu is not None else 0.0
        excess = self._watch.judge(now, memory=memory, cpu=cpu, took=time.monotonic() - began)
        if excess:
            self._said.setdefault(excess.reason, excess.text)
        return excess

    def _cpu(self, pids: list[int], reaped: float) -> float:
        exact = cgroups.cpu_seconds(self._spec.cgroup) if self._spec.cgroup else None
        return reaped + usage.cpu(pids) if exact is None else exact

    def floods(self, written: int) -> bool:
        """Whether so many bytes of output are a reason to end the command; said once."""
        if self._flooded or not self._spec.output_end or written <= self._spec.output_limit:
            return False
        self._flooded = True
        return True

    def note_host(self, now: float) -> None:
        """Remember how the host stands, to tell later whether it was the kernel that killed the command.

        Cheap; to be called whenever something else has woken us.
        """
        if now >= self._ask_at:
            self._ask_at = now + _ASKED_EVERY
            self._kills.append(oom.kills())

    def verdict(self, pid: int, code: int, written: int) -> Reason | None:
        """Return the limit that a command met which ended without our doing, with that code and so much output."""
        if self._starved(pid, code):
            return Reason.OUT_OF_MEMORY
        # Whether the end came before ours must not depend on how fast it was.
        return Reason.OUTPUT_LIMIT if self._flooded or self.floods(written) else None

    def _starved(self, pid: int, code: int) -> bool:
        if code not in {-signal.SIGKILL, _CHILD_KILLED}:
            return False
        kills = cgroups.oom_kills(self._spec.cgroup) if self._spec.cgroup else None
        if kills is not None:
            return kills > 0
        # Not the last answer: it may count a kill whose victim has only now let go of all its memory.
        before = self._kills[0] if self._kills[0] is not None else self._kills[-1]
        return code == -signal.SIGKILL and oom.killed(pid, before)

    def text(self, reason: Reason, peak: int) -> str | None:
        """Say what a limit was, and what it met; `peak` is the largest size of one process, in bytes."""
        spec = self._spec
        match reason:
            case Reason.SILENT:
                return f"nothing written for {spec.silent_timeout:g} s"
            case Reason.OUTPUT_LIMIT:
                return f"more than {spec.output_limit} bytes written"
            case Reason.OUT_OF_MEMORY if reason not in self._said:
                allowed = f", {spec.memory / _MIB:.1f} MiB allowed" if spec.memory else ""
                return f"killed by the kernel; {peak / _MIB:.1f} MiB used by its largest process{allowed}"
        return self._said.get(reason)
