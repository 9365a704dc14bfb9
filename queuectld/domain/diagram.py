"""Draws the life of a job from its table. ``python -m queuectld.domain.diagram`` prints it for the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from queuectld.domain.job import FINAL, State
from queuectld.domain.transitions import NEXT, Event

# What stands at an arrow: the words of the table in the documentation.
_LABELS: Final[Mapping[Event, str]] = {
    Event.CLAIM: "claim",
    Event.COMPLETE: "complete",
    Event.RETRY: "fail, a retry left",
    Event.BURY: "fail, none left",
    Event.REQUEUE: "requeue",
    Event.CANCEL: "cancel",
    Event.REVIVE: "retry",
    Event.DISCARD: "discard",
    Event.UNDELETE: "undelete",
}


def mermaid() -> str:
    """Return the diagram as Mermaid, which GitHub and others draw."""
    arrows = [
        f"    {state} --> {after}: {_LABELS[event]}" for state, moves in NEXT.items() for event, after in moves.items()
    ]
    rests = [f"    {state} --> [*]" for state in State if state in FINAL]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.PENDING}: enqueue", *arrows, *rests])


def block() -> str:
    """Return what stands between the markers ``<!-- states -->`` and ``<!-- /states -->`` of a document."""
    return f"```mermaid\n{mermaid()}\n```"


if __name__ == "__main__":
    print(block())  # noqa: T201  (its purpose)
