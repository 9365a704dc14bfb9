"""Whether the daemon gets on, and not merely lives. Pure: what has moved goes in at each beat, complaints come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

# What comes so much later than it should, a beat or a timer, means that the loop stood still.
STALL: Final = 1.0
# A loop that stood still is mentioned for so long.
_MENTIONED: Final = 60.0

_STORE: Final = "the store has not answered"
_CLAIMS: Final = "no answer to a claim has come"
_NEGLECT: Final = "jobs could start and workers are free, but none has been claimed"


class Signs(NamedTuple):
    """What was asked for and what has come of it, counted since the start."""

    store_asked: int
    store_answered: int
    claims_asked: int
    claims_answered: int
    # Jobs could start, workers are free, and nobody has asked for them.
    neglected: bool


class _Matter(NamedTuple):
    """Something that has to move while it is due; `moved` counts how often it did."""

    what: str
    due: bool
    moved: int


class Pulse:
    """What the beats so far have shown. Times are seconds of one monotonic clock."""

    def __init__(self, patience: float) -> None:
        """What is due and has not moved for `patience` seconds is complained of."""
        self._patience = patience
        self._seen: dict[str, _Matter] = {}
        self._since: dict[str, float] = {}
        self._stood: tuple[float, float] | None = None
        # Seconds by which the last beat, and the latest of all, came after their time.
        self.lag = 0.0
        self.max_lag = 0.0
        # How often the loop stood still, or something did not move.
        self.stalls = 0
        # What does not move now.
        self.stuck: tuple[str, ...] = ()

    def beat(self, signs: Signs, *, now: float, due: float) -> Sequence[str]:
        """Take note of what has moved; return what is to be complained of from now on, and was not before."""
        stood = self._judge_lag(now, due)
        stuck = tuple(matter.what for matter in _matters(signs) if self._is_stuck(matter, now, afresh=stood))
        new = [what for what in stuck if what not in self.stuck]
        self.stuck = stuck
        self.stalls += len(new)
        return new

    def _judge_lag(self, now: float, due: float) -> bool:
        self.lag = max(0.0, now - due)
        self.max_lag = max(self.max_lag, self.lag)
        if self.lag <= STALL:
            return False
        self._stood = now, self.lag
        self.stalls += 1
        return True

    def _is_stuck(self, matter: _Matter, now: float, *, afresh: bool) -> bool:
        before, self._seen[matter.what] = self._seen.get(matter.what), matter
        # Where the loop itself stood still, what should have moved may be waiting behind this very beat.
        if afresh or before is None or not matter.due or not before.due or before.moved != matter.moved:
            self._since[matter.what] = now
        return now - self._since[matter.what] >= self._patience

    def problems(self, now: float) -> Sequence[str]:
        """Return sentences about what is wrong, or was a moment ago."""
        found = [f"{what} for {now - self._since[what]:.0f} s" for what in self.stuck]
        if self._stood is not None and now - self._stood[0] < _MENTIONED:
            ago, lag = now - self._stood[0], self._stood[1]
            found.append(f"the daemon stood still for {lag:.1f} s, {ago:.0f} s ago")
        return found


def _matters(signs: Signs) -> Sequence[_Matter]:
    return (
        _Matter(_STORE, signs.store_asked > signs.store_answered, signs.store_answered),
        _Matter(_CLAIMS, signs.claims_asked > signs.claims_answered, signs.claims_answered),
        _Matter(_NEGLECT, signs.neglected, signs.claims_answered),
    )
