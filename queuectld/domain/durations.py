"""Spans of time as people write them: ``10s``, ``1h30m``, ``500ms``, ``PT5M``. Light: the command line imports it."""

from __future__ import annotations

import math
import re
from typing import Final

_UNITS: Final = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "w": 604800.0,
    "week": 604800.0,
}
# Compiled (and kept by `re`) when they are first used: at import they would cost each call of the command line 2 ms.
_PART: Final = r"(?a)\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*"
_NUMBER: Final = r"(?a)\s*\d+(?:\.\d+)?\s*"
_ISO: Final = (
    r"(?a)P(?=\d|T\d)(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?"
    r"(?:T(?=\d)(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?"
)
_ISO_SECONDS: Final = (604800.0, 86400.0, 3600.0, 60.0, 1.0)
# A century. More is a slip of the finger, and far less than what a float or a date can hold.
LONGEST: Final = 100 * 365.25 * 86400.0


def parse_duration(text: str | float) -> float:
    """Return seconds. A bare number is seconds. Raises `ValueError` with a message for people."""
    try:
        seconds = float(text) if isinstance(text, int | float) else _parse(text)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{text!r} is not a duration: it must be zero or more")
    if seconds > LONGEST:
        raise ValueError(f"{text!r} is longer than a century")
    return seconds


def _parse(text: str) -> float:
    if re.fullmatch(_NUMBER, text):
        return float(text)
    if text.lstrip()[:1] == "P" and (iso := re.fullmatch(_ISO, text.strip())):
        return sum(float(part) * unit for part, unit in zip(iso.groups(), _ISO_SECONDS, strict=True) if part)
    position, seconds, pattern = 0, 0.0, re.compile(_PART)
    while position < len(text) and (part := pattern.match(text, position)):
        seconds += float(part[1]) * _unit(part[2], text)
        position = part.end()
    if position == 0 or position < len(text):
        raise ValueError(f"{text!r} is not a duration; write 500ms, 10s, 5m, 1h30m, 2d, 1w or a number of seconds")
    return seconds


def _unit(name: str, text: str) -> float:
    # systemd reads M as month, others as minute; a guess could be wrong by a factor of 43,200.
    if name == "M":
        raise ValueError(f"{text!r}: 'M' could be month or minute; write 5m for minutes, 30d for a month")
    singular = name.lower().removesuffix("s") if name.lower() not in _UNITS else name.lower()
    if singular not in _UNITS:
        raise ValueError(f"{text!r}: {name!r} is not a unit of time; use ms, s, m, h, d or w")
    return _UNITS[singular]


def format_duration(seconds: float) -> str:
    """Two units at most, for people: ``850ms``, ``12s``, ``3m 20s``, ``2d 4h``."""
    # What rounds to 1000ms is a second.
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    rest, parts = max(1, int(seconds)), []
    for name, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2])


def enc_hook(value: object) -> float:
    """Encode, for `msgspec`, a number of a kind of its own, as a duration of a job or a request is."""
    if isinstance(value, float):
        return float(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
