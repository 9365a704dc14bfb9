"""What was found when one thing was looked at."""

from __future__ import annotations

from typing import Final, NamedTuple

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"


class Finding(NamedTuple):
    """`state` is ok, warn (it works, and could be better) or fail; `hint` says what to do."""

    check: str
    state: str
    message: str
    hint: str | None = None
