"""When a command is asked to end, when it is killed, and whose doing that was. Pure: time comes in, steps go out."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from queuectld.protocol.worker_messages import Reason


class Stage(IntEnum):
    """How far the ending of a tree has come."""

    FREE = 0
    TERMINATED = 1
    KILLED = 2


class _Demand(NamedTuple):
    term_at: float
    kill_at: float
    reason: Reason


class Ending:
    """The deadlines of one attempt. Of several demands the earliest TERM and the earliest KILL count.

    So a second stop can shorten what the first allowed, and never lengthen it; and the reason is that of the demand
    whose TERM came first.
    """

    def __init__(self, now: float, timeout: float | None, kill_after: float, silence: float | None = None) -> None:
        """`silence` is how long the command may write nothing; see `heard`."""
        self._kill_after = kill_after
        self._silence = float("inf") if silence is None else silence
        self._heard_at = now
        self._demands: list[_Demand] = []
        self._kill_at = float("inf")
        self.stage = Stage.FREE
        # Whose TERM it was; None as long as none was sent.
        self.reason: Reason | None = None
        if timeout is not None:
            self._demands.append(_Demand(now + timeout, now + timeout + kill_after, Reason.TIMEOUT))

    def heard(self, now: float) -> None:
        """Note that the command has written something."""
        self._heard_at = now

    def stop(self, now: float, reason: Reason, grace: float, kill_after: float | None) -> None:
        """Demand an end: TERM after `grace` seconds, KILL `kill_after` seconds (None: the attempt's own) later."""
        term_at = now + max(grace, 0.0)
        kill_at = term_at + (self._kill_after if kill_after is None else max(kill_after, 0.0))
        self._demands.append(_Demand(term_at, kill_at, reason))
        self._kill_at = min(self._kill_at, kill_at)

    def leave_behind(self, now: float) -> None:
        """Note that the leader ended by itself, and that what it left has just been sent TERM."""
        if self.stage is Stage.FREE:
            self.stage = Stage.TERMINATED
            self._kill_at = min(self._kill_at, now + self._kill_after)

    def due(self) -> float | None:
        """When `step` has something to say, if ever."""
        if self.stage is Stage.FREE:
            return min((d.term_at for d in self._wanted()), default=None)
        return self._kill_at if self.stage is Stage.TERMINATED else None

    def step(self, now: float) -> Stage | None:
        """Return the stage that begins now, or None; what that means is the caller's to do."""
        due = self.due()
        if due is None or now < due:
            return None
        if self.stage is Stage.FREE:
            demands = self._wanted()
            self.reason = min(demands, key=lambda d: d.term_at).reason
            self._kill_at = min(d.kill_at for d in demands)
            self.stage = Stage.TERMINATED
        else:
            self.stage = Stage.KILLED
        return self.stage

    def _wanted(self) -> list[_Demand]:
        if self._silence == float("inf"):
            return self._demands
        term_at = self._heard_at + self._silence
        return [*self._demands, _Demand(term_at, term_at + self._kill_after, Reason.SILENT)]
