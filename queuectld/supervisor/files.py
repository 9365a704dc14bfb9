"""The state directory as the supervisor uses it: outcomes of workers, inputs of commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from queuectld.host.state_dir import StateDir
from queuectld.service.attempts import Claimed
from queuectld.service.run_spec import InputFiles
from queuectld.supervisor.recovery import Filed, filed_outcomes, read_outcome, remove_outcome

_INPUTS: Final = ("stdin", "script")


class StateFiles:
    """The files of one store. Implements `queuectld.supervisor.machine.Files`."""

    def __init__(self, state: StateDir, store: str) -> None:
        """`store` is the uuid of the store."""
        self._state = state
        self._store = store

    def outcomes(self) -> Sequence[Filed]:
        """Return all outcomes of this store that can be read."""
        return list(filed_outcomes(self._state.outcomes, self._store))

    def outcome(self, token: int) -> Filed | None:
        """Return the outcome of an attempt, if it was left in a file."""
        return read_outcome(self._state.outcomes, self._store, token)

    def remove_outcome(self, token: int) -> None:
        """Forget an outcome, after it was committed."""
        remove_outcome(self._state.outcomes, self._store, token)

    async def write_inputs(self, claimed: Claimed) -> InputFiles:
        """Write script and standard input of an attempt where its worker opens them. Raises `OSError`."""
        return await asyncio.to_thread(_write_inputs, self._state.input, claimed)

    def remove_inputs(self, token: int) -> None:
        """Remove them again."""
        for kind in _INPUTS:
            (self._state.input / f"{token}.{kind}").unlink(missing_ok=True)

    def prune_inputs(self, live: frozenset[int]) -> None:
        """Remove those of all other attempts."""
        self._state.prune_input(live)


def _write_inputs(directory: Path, claimed: Claimed) -> InputFiles:
    names: dict[str, str] = {}
    for kind, data in zip(_INPUTS, (claimed.stdin, claimed.script), strict=True):
        if data is not None:
            path = directory / f"{claimed.attempt.token}.{kind}"
            _write(path, data)
            names[kind] = str(path)
    return InputFiles(**names)


def _write(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        # Nobody gets at it here but we. Who is given it open may open it again by its name in /proc, as ``/dev/stdin``,
        # and must not be able to make it larger.
        os.fchmod(file.fileno(), 0o444)
        file.write(data)
