"""Amounts of bytes as people write them: ``64MiB``, ``64M``, ``1.5G``, ``4096``. Units are powers of 1,024."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?\s*", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LARGEST: Final = 1 << 50


def parse_size(text: str) -> int:
    """Return bytes. Raises `ValueError` with a message for people."""
    size = _SIZE.fullmatch(text)
    if size is None:
        raise ValueError(f"{text!r} is not a size; write 4096, 64K, 64MiB or 1.5G")
    count = round(float(size[1]) * _UNITS[(size[2] or "").lower()])
    if count > LARGEST:
        raise ValueError(f"{text!r} is more than a pebibyte")
    return count


def format_size(count: int) -> str:
    """For people: ``512 B``, ``1.5 KiB``, ``64 MiB``."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        # What rounds to 1024 belongs to the next unit.
        if size < 1023.95 or unit == "TiB":
            break
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"
