"""How a long run ends when somebody asks for it: in order, with nothing left, and as a shell expects it."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final

ENDINGS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Somebody asks for the end: no error of what is tested, nor one that hypothesis tries again."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def code(self) -> int:
        """With what to exit."""
        return 128 + self.number

    def __str__(self) -> str:
        return f"Ended by {signal.Signals(self.number).name}"


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Leave nothing behind, whoever asks for the end: what is open closes on the way out, however often he asks."""
    for one in ENDINGS:
        signal.signal(one, signal.SIG_IGN)
    raise Interrupted(number)


def heed() -> None:
    """Raise `Interrupted` from now on when somebody asks for the end."""
    for number in ENDINGS:
        signal.signal(number, interrupt)
