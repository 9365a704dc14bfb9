"""Limits on what all processes of a command use: when to look, and what to make of it. Pure: numbers in, verdicts out.

How soon to look again follows from how soon a limit could be reached, so a command that is far from its limits costs
next to nothing, and a short one is never looked at.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from queuectld.protocol.worker_messages import Reason

# Bytes a second that memory may grow by. One process filled 2.8 GiB a second where this was measured. What is faster,
# with several threads say, goes over its limit by as much as it is faster.
FASTEST: Final = 4 << 30
# Seconds between two looks, at least and at most. So the fastest growth passes a limit by at most 41 MiB, and what
# 16 processors do passes one of processor time by at most 0.16 s.
OFTEN: Final = 0.01
SELDOM: Final = 1.0
# A look at many processes takes longer; this many times as long passes until the next, so that it costs 2 % of a
# processor at the most.
_PATIENCE: Final = 50
# What was told to end, and has so many times its limit later, is not ending. The host's memory is not for it to use up.
_BEYOND_PATIENCE: Final = 1.25
_MIB: Final = 1 << 20
_NEVER: Final = float("inf")


class Excess(NamedTuple):
    """A limit was passed."""

    reason: Reason
    # Use and limit, for people.
    text: str
    # Whether there is no time left to end well.
    at_once: bool = False


class Watch:
    """The limits of one attempt: bytes of memory, seconds of processor time."""

    def __init__(self, now: float, *, memory: int | None, cpu: float | None, processors: int) -> None:
        self._memory = _NEVER if memory is None else memory
        self._cpu = _NEVER if cpu is None else cpu
        self._processors = processors
        # Past its limit, and told so.
        self._bloated = False
        self._at = _NEVER
        self._plan(now, 0, 0.0, 0.0)

    def due(self) -> float:
        """When to look next; infinity for never."""
        return self._at

    def judge(self, now: float, *, memory: int, cpu: float, took: float) -> Excess | None:
        """Take what a look found, which took so long; return what is to be done about it, each thing once."""
        excess = self._excess(memory, cpu)
        self._plan(now, memory, cpu, took)
        return excess

    def _excess(self, memory: int, cpu: float) -> Excess | None:
        if self._bloated and memory > self._memory * _BEYOND_PATIENCE:
            text = _memory_text(memory, self._memory)
            self._memory = _NEVER
            return Excess(Reason.OUT_OF_MEMORY, text, at_once=True)
        if not self._bloated and memory > self._memory:
            self._bloated = True
            return Excess(Reason.OUT_OF_MEMORY, _memory_text(memory, self._memory))
        if cpu > self._cpu:
            text = f"{cpu:.2f} s used, {self._cpu:g} s allowed"
            self._cpu = _NEVER
            return Excess(Reason.CPU_LIMIT, text)
        return None

    def _plan(self, now: float, memory: int, cpu: float, took: float) -> None:
        bound = self._memory * _BEYOND_PATIENCE if self._bloated else self._memory
        # Infinity stays infinity.
        pauses = [(self._cpu - cpu) / self._processors]
        if bound != _NEVER:
            pauses.append(min((bound - memory) / FASTEST, SELDOM))
        self._at = now + max(min(pauses), OFTEN, took * _PATIENCE)


def _memory_text(used: float, limit: float) -> str:
    return f"{used / _MIB:.1f} MiB used, {limit / _MIB:.1f} MiB allowed"
