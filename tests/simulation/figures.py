"""What was lived through, added up over a world, or over many. What stands here and was never met is a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from queuectld.domain.attempt import Reason
from queuectld.domain.job import State
from queuectld.domain.transitions import NEXT, Event

RULES: Final = {
    1: "no job lost",
    2: "no phantom",
    3: "one live attempt",
    4: "fencing",
    5: "one outcome",
    6: "counters only grow",
    7: "legal moves only",
    8: "order",
    9: "limits",
    10: "not before",
    11: "answer after effect",
    12: "output complete",
    13: "nothing left",
    14: "secrets stay",
}
# The table of `recovery.md`, each told by what was true when the daemon, or the worker, died.
CRASH_POINTS: Final = (
    "before the claim's commit",
    "committed, `run` unsent",
    "`run` sent, unread",
    "spawned, `started` unsaid",
    "ended, unreported",
    "reported, uncommitted",
    "committed, `recorded` unsent",
    "outcome file written after it was looked for",
    "inside recovery",
    "the worker dies after its command ended, before reporting",
)
# What attempts come to, and what the host does to them.
CASES: Final = (
    "poison: lost so often in a row that the job is dead",
    "`rerun = never`: dead, for it may have begun",
    "`rerun = never`: given back, for it cannot have begun",
    "the host goes down under an attempt: that says nothing against the job",
    "the host cannot start a command",
    "the host cannot start a worker",
    "the host cannot watch a worker yet",
    "the input of a command cannot be written",
    "the owner of a job is no user any more",
    "nobody tells who the owner of a job is",
    "a worker grows too large",
    "a command that is to end heeds TERM",
    "a command that is to end is killed",
    "what a command leaves behind is ended",
    "what a command leaves behind is kept",
    "what is kept lives on while another attempt's is ended",
    "what was to be kept is ended, for its command was lost",
    "what a dead worker left is ended by the daemon",
    "a kept process has gone by itself",
    "a process that does not die is told of",
)
# The attacks, and how often each is tried beside the others; those are counted that hit something.
ATTACKS: Final = {
    "submit": 30,
    "change": 18,
    "crash": 6,
    "crash soon": 3,
    "stop daemon": 3,
    "replace daemon": 2,
    "hang daemon": 3,
    "reboot": 1,
    "kill worker": 6,
    "kill both": 1,
    "freeze worker": 4,
    "terminate worker": 3,
    "cut": 8,
    "kill command": 6,
    "signal": 3,
    "set clock": 2,
    "fill disk": 2,
    "slow disk": 2,
    "break disk": 1,
    "configure": 3,
    "lend": 3,
    "interrupt all": 2,
    "late report": 8,
    "late claim": 6,
}
_PAIRS: Final = tuple((state, event) for state in State for event in Event)


def move(state: State, event: Event) -> str:
    return f"{state} by {event}"


# Each counted name of each table.
TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "rule checked": tuple(f"{number:2}. {name}" for number, name in RULES.items()),
    "move": tuple(move(state, event) for state, event in _PAIRS if event in NEXT[state]),
    "move refused": tuple(move(state, event) for state, event in _PAIRS if event not in NEXT[state]),
    "end of an attempt": tuple(Reason),
    "case": CASES,
    "crash point": CRASH_POINTS,
    "attack that hit": tuple(ATTACKS),
}


class Figures:
    """Counts; picklable, so that processes can hand it over."""

    def __init__(self) -> None:
        self.seeds = self.steps = 0
        # Of all that happened, in order; of many worlds, whatever their order.
        self.trace = 0
        self.counts = {title: dict.fromkeys(names, 0) for title, names in TABLES.items()}
        self._rules = self.counts["rule checked"]
        self._numbered = {int(name.partition(".")[0]): name for name in self._rules}

    def rule(self, number: int) -> None:
        self._rules[self._numbered[number]] += 1

    def move(self, state: State, event: Event, *, refused: bool = False) -> None:
        self.counts["move refused" if refused else "move"][move(state, event)] += 1

    def end(self, reason: Reason) -> None:
        self.counts["end of an attempt"][reason] += 1

    def case(self, name: str) -> None:
        self.counts["case"][name] += 1

    def point(self, name: str) -> None:
        self.counts["crash point"][name] += 1

    def hit(self, attack: str) -> None:
        self.counts["attack that hit"][attack] += 1

    def add(self, other: Figures) -> None:
        self.seeds += other.seeds
        self.steps += other.steps
        self.trace ^= other.trace
        for title, counts in other.counts.items():
            for name, count in counts.items():
                self.counts[title][name] += count

    def zeros(self) -> list[str]:
        """Return what was never exercised."""
        return [f"{title} {name}" for title, counts in self.counts.items() for name, n in counts.items() if not n]
