"""What an attack is: so many rounds of it, drawn by a seed, and the count of what it did and of what went wrong."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec

P = ParamSpec("P")
# What may be wrong afterwards: a job that is gone or whose result is, one that ran or is there twice, something that
# still runs or lies about though its job is over; and everything else.
Kind = Literal["lost", "doubled", "left over", "other"]
_BROKEN: Final = Path(__file__).with_name("broken")
KINDS: Final[tuple[Kind, ...]] = ("lost", "doubled", "left over", "other")


class Wrong(NamedTuple):
    kind: Kind
    # One line for people: which job, what of it, in which round.
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


@dataclass
class Tally:
    """What was done, and what was found so far. Attacks count into it as they go."""

    # How often each kind of fault was injected.
    faults: Counter[str] = field(default_factory=Counter)
    # Attempts of jobs that ran meanwhile; for attacks of clients: requests.
    runs: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    # How often each thing that must hold was looked at, by a short name such as `acknowledged jobs are stored`.
    checks: Counter[str] = field(default_factory=Counter)
    # What was measured on the way, as people read it: {"rescue p99": "104 ms"}.
    figures: dict[str, str] = field(default_factory=dict)

    def fault(self, kind: str, times: int = 1) -> None:
        self.faults[kind] += times

    def blame(self, kind: Kind, what: str) -> None:
        self.wrong.append(Wrong(kind, what))

    def check(self, what: str, *, lost: Any = (), doubled: Any = (), left_over: Any = (), other: Any = ()) -> None:
        """Note that something was looked at; each thing in one of the collections is wrong with it."""
        self.checks[what] += 1
        for kind, found in zip(KINDS, (lost, doubled, left_over, other), strict=True):
            for one in found:
                self.blame(kind, f"{what}: {one}")

    def count(self, kind: Kind) -> int:
        return sum(wrong.kind == kind for wrong in self.wrong)


class Suite(NamedTuple):
    name: str
    # What it does, in one line.
    line: str
    # Does so many rounds, and counts into the tally as it goes; the same seed draws the same faults.
    run: Callable[[Tally, int, int], None]
    # How many rounds are a long run, and what a round is.
    rounds: int
    unit: str
    # Says why it cannot be run here; None if it can.
    hindrance: Callable[[], str | None] = lambda: None


def needs_strace() -> str | None:
    return None if shutil.which("strace") else "needs strace"


def tallied(attack: Callable[Concatenate[Tally, P], None], *args: P.args, **kwargs: P.kwargs) -> Tally:
    """Run an attack; return what came of it."""
    tally = Tally()
    attack(tally, *args, **kwargs)
    return tally


def clean(tally: Tally, *, faults: int = 1) -> Tally:
    """Return it if nothing was wrong, and at least so many faults were injected. Raises `AssertionError`."""
    assert not tally.wrong, "\n".join(map(str, tally.wrong[:20]))
    assert tally.faults.total() >= faults, f"{tally.faults.total()} faults were injected"
    assert tally.checks.total() > 0, "nothing was looked at"
    return tally


@contextmanager
def home() -> Iterator[Path]:
    """A directory of its own for one daemon; a socket's path may have 107 bytes only, so it is short."""
    place = Path(tempfile.mkdtemp(prefix="queuectl-faults-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def broken(name: str | None) -> dict[str, str]:
    """Return the environment of a daemon in which one rule is broken on purpose; None breaks none."""
    return {} if name is None else {"PYTHONPATH": str(_BROKEN), "BROKEN_ON_PURPOSE": name}


def growing(first: int = 1) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 9, 13, 19, …: every early one, and some of the many alike that follow."""
    number = first
    while True:
        yield number
        number += max(1, number // 2)


def stopwatch() -> Callable[[], float]:
    begin = time.monotonic()
    return lambda: time.monotonic() - begin
