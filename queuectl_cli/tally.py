"""What became of many jobs: how many were stored, and which were refused and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from queuectl_cli.client import Message
from queuectl_cli.errors import CliError
from queuectl_cli.options import App
from queuectl_cli.progress import Progress
from queuectl_cli.render import plural
from queuectl_cli.submission import Result


class Tally:
    """Counts what was stored, and gathers what was not."""

    def __init__(self, app: App, word: str) -> None:
        self._app = app
        self._word = word
        self.bad: list[Result] = []
        self.added = 0
        self.progress = Progress(app, "enqueue")

    def good(self, results: Iterable[Result]) -> Iterator[Message]:
        """Yield what was stored."""
        for result in results:
            if result.added is None:
                self.bad.append(result)
                continue
            self.added += 1
            self.progress.show(f"{self.added:,} added, {len(self.bad):,} refused")
            yield result.added

    def complain(self, *, atomic: bool) -> None:
        """Name each line that was refused. Raises `CliError` if there are any."""
        if not self.bad:
            return
        self.bad.sort(key=lambda result: result.number)
        bad = [(result.number, result.error or {}) for result in self.bad]
        for number, error in bad:
            self._app.say(f"{self._word} {number}: {error.get('message')}")
        rest = "nothing was stored" if atomic else f"{plural(self.added)} stored"
        raise BulkError(f"{plural(len(bad), self._word)} refused, {rest}", bad, self._word)


class BulkError(CliError):
    """Some of many jobs were refused."""

    def __init__(self, message: str, bad: Sequence[tuple[int, Message]], word: str) -> None:
        super().__init__(message, code="refused")
        self._bad = bad
        self._word = word

    def as_json(self, status: int) -> dict[str, Any]:
        """Return the object for programs, with each refusal."""
        body = super().as_json(status)
        body["error"]["refused"] = [
            {self._word: number, **{name: error.get(name) for name in ("code", "message", "path")}}
            for number, error in self._bad
        ]
        return body
