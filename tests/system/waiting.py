"""Tests wait for conditions, with a deadline, and never for time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_for(condition: Callable[[], Found], what: str = "", *, deadline: float = 20.0, every: float = 0.01) -> Found:
    """Return the first true value of `condition`; fail if there is none within `deadline` seconds."""
    limit = time.monotonic() + deadline
    while not (found := condition()):
        if time.monotonic() > limit:
            raise AssertionError(f"not within {deadline:g} s: {what or condition} (last: {found!r})")
        time.sleep(every)
    return found
