"""How far a long command has come: a bar on a terminal, a line every 10 s elsewhere, nothing in JSON."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Final, Self

from queuectl_cli.options import App

_BAR: Final = 30
_REDRAW: Final = 0.1
_LINE: Final = 10.0


class Progress:
    """Shows a number on stderr; a `total` of 0 is an unknown one."""

    def __init__(self, app: App, what: str, total: int = 0) -> None:
        self._silent = app.for_programs or app.quiet
        self._terminal = sys.stderr.isatty()
        self._what = what
        self.total = total
        self._next = time.monotonic() + (0.3 if self._terminal else _LINE)
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, text: str, done: int = 0) -> None:
        """Show how far it is, not more often than is good."""
        now = time.monotonic()
        if self._silent or now < self._next:
            return
        self._next = now + (_REDRAW if self._terminal else _LINE)
        if self._terminal:
            self._drawn = True
            sys.stderr.write(f"\r\x1b[K{self._bar(done)}{self._what}: {text}")
        else:
            sys.stderr.write(f"{self._what}: {text}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away, so that other lines can be written."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False

    def _bar(self, done: int) -> str:
        if not self.total:
            return ""
        full = min(_BAR, _BAR * done // self.total)
        return f"[{'#' * full}{' ' * (_BAR - full)}] "
