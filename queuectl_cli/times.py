"""Times as people write and read them. The clock is an argument."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from queuectld.domain.durations import format_duration, parse_duration

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = r"(\d{1,2}):(\d{2})(?::(\d{2}))?"
_FORMS: Final = "write 2026-12-01 09:00, 09:00, tomorrow 09:00, mon 09:00, +5m or @EPOCH"


def zone(name: str | None) -> tzinfo | None:
    """Return a time zone; None is the local one. Raises `ValueError`."""
    if name is None:
        return None
    from zoneinfo import ZoneInfo  # noqa: PLC0415  (costs 10 ms, and is rarely needed)

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; write one such as Europe/Berlin") from None


def parse_instant(text: str, now: float, tz: tzinfo | None = None, *, past: bool = False) -> float:
    """Return seconds since the epoch; `past` means the last such time instead of the next. Raises `ValueError`."""
    word = text.strip()
    if word.lower() == "now":
        return now
    if word.startswith("@"):
        return _epoch(word)
    if word.startswith("+"):
        return now + parse_duration(word[1:])
    if past and (ago := _ago(word)) is not None:
        return now - ago
    try:
        return _calendar(word, datetime.fromtimestamp(now, tz), past=past)
    except (OverflowError, OSError):
        raise ValueError(f"{text!r} is out of range") from None


def _epoch(word: str) -> float:
    try:
        return datetime.fromtimestamp(float(word[1:]), UTC).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{word!r} is not a number of seconds since 1970") from None


def _ago(word: str) -> float | None:
    # A bare number of digits could be a date without signs; it must look like a span.
    if not re.search(r"[A-Za-z]$|^\d{1,7}$", word) or word.lower() in (*_DAYS, "today", "yesterday", "tomorrow"):
        return None
    try:
        return parse_duration(word)
    except ValueError:
        return None


def _calendar(word: str, now: datetime, *, past: bool) -> float:
    day, _, clock = word.lower().partition(" ")
    if time := re.fullmatch(_CLOCK, day):
        moment = _at(now, time)
        behind = moment.timestamp() <= now.timestamp()
        if behind != past and moment.timestamp() != now.timestamp():
            moment = _at(now + timedelta(days=-1 if past else 1), time)
        elif moment.timestamp() == now.timestamp() and not past:
            moment = _at(now + timedelta(days=1), time)
        return moment.timestamp()
    shift = {"today": 0, "tomorrow": 1, "yesterday": -1}.get(day)
    if shift is None and day[:3] in _DAYS and _is_day(day):
        shift = (_DAYS.index(day[:3]) - now.weekday()) % 7
        return _weekday(now, shift, clock, past=past)
    if shift is not None:
        return _at(now + timedelta(days=shift), _clock(clock, word)).timestamp()
    return _iso(word, now.tzinfo)


def _is_day(word: str) -> bool:
    full = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    return any(name.startswith(word) for name in full)


def _weekday(now: datetime, shift: int, clock: str, *, past: bool) -> float:
    time = _clock(clock, clock)
    moment = _at(now + timedelta(days=shift), time)
    if past and moment.timestamp() > now.timestamp():
        moment = _at(now + timedelta(days=shift - 7), time)
    elif not past and moment.timestamp() <= now.timestamp():
        moment = _at(now + timedelta(days=shift + 7), time)
    return moment.timestamp()


def _clock(text: str, whole: str) -> re.Match[str]:
    found = re.fullmatch(_CLOCK, text.strip() or "00:00")
    if found is None:
        raise ValueError(f"{whole!r} is not a time; {_FORMS}")
    return found


def _at(day: datetime, time: re.Match[str]) -> datetime:
    hour, minute, second = int(time[1]), int(time[2]), int(time[3] or 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"{time[0]!r} is not a time of day")
    return day.replace(hour=hour, minute=minute, second=second, microsecond=0, fold=0)


def _iso(word: str, tz: tzinfo | None) -> float:
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError(f"{word!r} is not a time; {_FORMS}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=tz)).timestamp()


def epoch(text: str) -> float:
    """Return seconds since the epoch of an instant as the daemon writes it."""
    return datetime.fromisoformat(text).timestamp()


def local(text: str) -> str:
    """Return an instant of the daemon by the clock on the wall: ``2026-12-01 10:00:00.250``."""
    return datetime.fromtimestamp(epoch(text)).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def iso(seconds: float) -> str:
    """Return an instant as the daemon reads it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def spoken(seconds: float, now: float, tz: tzinfo | None = None) -> str:
    """Return an instant in words: ``Tue 2026-12-01 09:00 CET (in 6d 18h)``."""
    moment = datetime.fromtimestamp(seconds, tz).astimezone(tz)
    form = "%a %Y-%m-%d %H:%M %Z" if moment.second == 0 else "%a %Y-%m-%d %H:%M:%S %Z"
    return f"{moment.strftime(form)} ({distance(seconds - now)})"


def distance(seconds: float) -> str:
    """Return how far away something is: ``in 5m``, ``3m ago``, ``now``."""
    if abs(seconds) < 0.5:
        return "now"
    span = format_duration(max(1.0, round(abs(seconds))))
    return f"in {span}" if seconds > 0 else f"{span} ago"


def age(text: str | None, now: float) -> str:
    """Return the age of an instant for a table: ``3m``; a time to come reads ``in 3m``."""
    if not text:
        return ""
    seconds = now - epoch(text)
    if seconds < -0.5:
        return f"in {format_duration(max(1.0, -seconds))}"
    return format_duration(max(0.0, seconds)).split(" ")[0] if seconds >= 1 else "now"
