"""Signals that come while something else is waited for."""

from __future__ import annotations

import os
import select
import signal
from types import TracebackType
from typing import Self

import click


class Signals:
    """Signals become bytes in a pipe: handlers only queue."""

    def __init__(self, *numbers: int) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Return the end to wait on."""
        return self._reader

    def pause(self, seconds: float) -> None:
        """Wait for so many seconds; a signal is the end. Raises `click.exceptions.Exit`."""
        if select.select([self], [], [], seconds)[0]:
            raise click.exceptions.Exit(130)

    def take(self) -> list[int]:
        """Return those that have come."""
        try:
            return list(os.read(self._reader, 64))
        except BlockingIOError:
            return []
