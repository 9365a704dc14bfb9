"""What is printed: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO

from queuectl_cli.errors import UsageError
from queuectl_cli.options import App

Row = Mapping[str, Any]

COLOURS: Final = {
    "pending": "36",
    "processing": "34",
    "completed": "32",
    "failed": "33",
    "dead": "31",
    "cancelled": "90",
}
# What stands for values that are not for whoever asks.
HIDDEN: Final = "-"
# Compiled when it is first used, as all patterns here: at import each would cost half a millisecond.
_CONTROL: Final = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"


class Column(NamedTuple):
    """One column of a table."""

    title: str
    value: Callable[[Row], str]
    # Left out if every row has this value: it would carry no news. None: never left out.
    dull: str | None = None
    # Only in the wide form.
    wide: bool = False
    right: bool = False
    # Takes what room is left, and is cut there.
    stretches: bool = False
    # Left out if all rows have the same value.
    varies: bool = False


def colours(stream: TextIO) -> bool:
    """Whether a stream takes colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str | None, stream: TextIO | None = None) -> str:
    """Colour a text where that is wanted."""
    return f"\x1b[{code}m{text}\x1b[0m" if code and colours(stream or sys.stdout) else text


def clean(text: str) -> str:
    """Make a text one line that cannot steer a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_CONTROL, lambda found: {"\n": "↵", "\t": " "}.get(found[0], "\N{REPLACEMENT CHARACTER}"), text)


def width_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # noqa: PLC0415  (rarely needed)

    return sum(0 if combining(sign) else 2 if east_asian_width(sign) in "WF" else 1 for sign in text)


def cut(text: str, width: int) -> str:
    """Cut a text to a number of cells, with an ellipsis."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + "…" if width > 0 else ""


def table(rows: Sequence[Row], columns: Sequence[Column], *, width: int | None = None, wide: bool = False) -> list[str]:
    """Return the lines of a table; cut to `width` cells if that is given. Columns without news are left out."""
    shown, cells = [], []
    for column in columns:
        values = [clean(column.value(row)) for row in rows]
        dull = column.dull is not None and all(value in {column.dull, HIDDEN} for value in values)
        dull = dull or (column.varies and len(set(values)) == 1)
        if wide or not (column.wide or dull):
            shown.append(column)
            cells.append(values)
    widths = [max([len(column.title), *map(width_of, values)]) for column, values in zip(shown, cells, strict=True)]
    if width is not None and not wide:
        _shrink(shown, cells, widths, width)
    lines = [_line(shown, [column.title for column in shown], widths)]
    lines.extend(_line(shown, [values[number] for values in cells], widths) for number in range(len(rows)))
    return lines


def _shrink(columns: Sequence[Column], cells: list[list[str]], widths: list[int], width: int) -> None:
    over = sum(widths) + 2 * (len(widths) - 1) - width
    for place in reversed(range(len(columns))):
        if over > 0 and columns[place].stretches:
            kept = max(12, widths[place] - over)
            over -= widths[place] - kept
            cells[place] = [cut(value, kept) for value in cells[place]]
            widths[place] = kept


def _line(columns: Sequence[Column], values: Sequence[str], widths: Sequence[int]) -> str:
    parts = []
    for column, value, width in zip(columns, values, widths, strict=True):
        space = " " * (width - width_of(value))
        parts.append(space + value if column.right else paint(value, COLOURS.get(value)) + space)
    return "  ".join(parts).rstrip()


class Output:
    """Prints answers in the form that was asked for."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.format = app.format
        self.now = time.time()
        self._fields = [field for field in (app.fields or "").split(",") if field]

    @property
    def person(self) -> bool:
        """Whether a person sees stdout."""
        return self.format in {"table", "wide"} and sys.stdout.isatty()

    def rows(self, rows: Iterable[Row], columns: Sequence[Column], *, name: str = "id", empty: str = "") -> int:
        """Print rows of one kind; return how many. JSON streams, a table has to see all of them."""
        if self.format in {"json", "jsonl"}:
            return self._json_rows(rows)
        if self.format == "name":
            return self._names(rows, name)
        found = list(rows)
        if self._fields:
            columns = [Column(field.upper(), _plain(field, found)) for field in self._fields]
        if found:
            self.lines(table(found, columns, width=self._width(), wide=self.format == "wide"))
        elif self.person and empty:
            self.app.say(empty)
        return len(found)

    def _json_rows(self, rows: Iterable[Row]) -> int:
        count = 0
        lines = self.format == "jsonl"
        for count, row in enumerate(rows, 1):
            before = "" if lines else "[" if count == 1 else ",\n "
            sys.stdout.write(before + self._dumps(self.pick(row)) + ("\n" if lines else ""))
        if not lines:
            sys.stdout.write("]\n" if count else "[]\n")
        return count

    def _names(self, rows: Iterable[Row], name: str) -> int:
        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007  (it is the result)
            sys.stdout.write(f"{row[name]}\n")
        return count

    def pick(self, row: Row) -> Row:
        """Return only the fields that were asked for. Raises `UsageError` for those that there are not."""
        if not self._fields:
            return row
        _known(self._fields, row)
        return {field: row[field] for field in self._fields}

    def document(self, value: Any) -> None:
        """Print one JSON value."""
        sys.stdout.write(self._dumps(self.pick(value) if isinstance(value, dict) else value) + "\n")

    def _dumps(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=not _unicode(sys.stdout))

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines."""
        for line in lines:
            sys.stdout.write(line + "\n")

    def _width(self) -> int | None:
        if not sys.stdout.isatty():
            return None
        try:
            return os.get_terminal_size(sys.stdout.fileno()).columns or 80
        except OSError:
            return 80

    def when(self, text: str | None) -> str:
        """Return an instant for a table: its age, or with ``--utc`` itself."""
        if not text or self.app.utc:
            return text or ""
        from queuectl_cli.times import age  # noqa: PLC0415  (JSON does without it)

        return age(text, self.now)


def _unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


def _known(fields: Sequence[str], row: Row) -> None:
    for field in fields:
        if field not in row:
            raise UsageError(f"there is no field {field!r}; there are {', '.join(row)}")


def _plain(field: str, rows: Sequence[Row]) -> Callable[[Row], str]:
    for row in rows[:1]:
        _known([field], row)
    return lambda row: plain(row[field])


def plain(value: Any) -> str:
    """Return a value of JSON as a word for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str | int):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def spanned(seconds: float) -> str:
    """Return a span of time as people write it, and exactly so: ``5m``, ``0.25s``."""
    from queuectld.domain.durations import format_duration, parse_duration  # noqa: PLC0415  (JSON does without it)

    text = format_duration(seconds)
    return text if parse_duration(text) == seconds else f"{seconds!r}s".replace(".0s", "s")


def sized(count: int) -> str:
    """Return an amount of bytes as people write it, and exactly so: ``64 MiB``, ``1000001``."""
    from queuectld.domain.sizes import format_size, parse_size  # noqa: PLC0415  (JSON does without it)

    text = format_size(count)
    return text if parse_size(text) == count else str(count)


def command_of(job: Row) -> str:
    """Return what a job runs, as one would type it."""
    if job.get("hidden"):
        return "(not yours)"
    if job.get("command") is not None:
        return str(job["command"])
    if not job.get("argv"):
        return "(script)"
    from shlex import join  # noqa: PLC0415  (JSON, and most commands, do without it)

    return join(job["argv"])


def plural(count: int, word: str = "job") -> str:
    """Return a number with its noun."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def exit_of(job: Row) -> str:
    """Return how a command ended: ``1``, or ``SIGKILL``."""
    if job.get("signal") is not None:
        return signal_name(job["signal"])
    return "" if job.get("exit_code") is None else str(job["exit_code"])


def signal_name(number: int) -> str:
    """Return the name of a signal."""
    import signal  # noqa: PLC0415  (only for jobs that one ended)

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
