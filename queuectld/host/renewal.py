"""Sees to it that the program which is installed now could take over, before anything is given up for it."""

from __future__ import annotations

from typing import Final

import structlog

from queuectld.errors import CheckFailedError
from queuectld.host.children import Children, Finished, Parent
from queuectld.host.program import Program
from queuectld.host.state_dir import StateDir

log = structlog.get_logger()

# Seconds for what takes a fraction of one.
_PATIENCE: Final = 20.0


async def check_successor(state: StateDir, program: Program, children: Children, parent: Parent) -> None:
    """Have the program check itself, its configuration and the database, in a process of its own.

    Raises `CheckFailedError` with the last thing that it said.
    """
    if not state.in_place():
        raise CheckFailedError(complaint(f"{state.path} is not the state directory any more that this daemon holds"))
    try:
        finished = await children.run(program.checking(), parent, within=_PATIENCE)
    except OSError as error:
        raise CheckFailedError(complaint(f"{program.argv[0]} cannot be started: {error.strerror}")) from None
    if why := _why_not(finished):
        log.error("The new program cannot take over", event_name="daemon.check_failed", error=why)
        raise CheckFailedError(complaint(why))


def _why_not(finished: Finished) -> str | None:
    if finished.code is None:
        return f"its check did not end within {_PATIENCE:g} s"
    if finished.code == 0:
        return None
    last = (finished.said.strip().splitlines() or ["it said nothing"])[-1]
    return f"exit code {finished.code}: {last.removeprefix('queuectld: ')}"


def complaint(why: str) -> str:
    """Return what the error says."""
    return f"the new program cannot take over, nothing was changed: {why}"
