"""The tables of `queuectl help logs`, made from the code: ``python -m tests.log_table`` puts them into the page."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from queuectld.log_events import CORE, EVENTS, FIELDS, MEANINGS

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "queuectl_cli" / "help" / "logs.md"
WIDTH: Final = 80
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
# Where the code has the name or the level from elsewhere.
ELSEWHERE: Final = {
    "job.finished": {"info", "warning"},
    "config.set": {"info"},
    "config.unset": {"info"},
    "config.hidden": {"warning"},
    "config.needs_restart": {"warning"},
    "library.warning": {"warning"},
    "library.message": {"info", "warning", "error", "critical"},
}


def logged() -> Iterator[tuple[str, str]]:
    """Find each name that the code logs, with its level."""
    for path in (ROOT / "queuectld").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                names = [keyword.value for keyword in node.keywords if keyword.arg == "event_name"]
                if names and isinstance(names[0], ast.Constant):
                    yield str(names[0].value), node.func.attr.replace("exception", "error")


def levels() -> dict[str, list[str]]:
    """Return the levels of each event that is logged, the least important first."""
    found: dict[str, set[str]] = {name: set(at) for name, at in ELSEWHERE.items()}
    for name, level in logged():
        found.setdefault(name, set()).add(level)
    return {name: sorted(found[name], key=LEVELS.index) for name in sorted(found)}


def _kind(rule: Mapping[str, object]) -> str:
    if rule.get("const") is True:
        return "true"
    return {"array": "list", "integer": "number", "number": "number"}.get(str(rule.get("type")), "text")


def _rows(rows: list[tuple[str, str, str]], first: int, second: int) -> str:
    """Lay rows out in columns of at least these widths; the last one is wrapped."""
    lines = []
    for name, kind, meaning in rows:
        head = f"    {name:<{first}} {kind:<{second}} "
        indent = " " * (first + second + 6)
        begin = head if len(head) == len(indent) else f"{head.rstrip()}\n{indent}"
        pieces = textwrap.wrap(meaning, WIDTH - len(indent))
        lines.append(begin + f"\n{indent}".join(pieces))
    return "\n".join(lines) + "\n"


def events() -> str:
    """Return the table of events."""
    return _rows([(name, " ".join(at), EVENTS[name]) for name, at in levels().items()], 20, 13)


def fields() -> str:
    """Return the table of fields."""
    return _rows([(name, _kind(rule), MEANINGS[name]) for name, rule in {**CORE, **FIELDS}.items()], 13, 6)


def page(text: str) -> str:
    """Return the page with its tables as they should be: what is indented right below the two headings."""
    for heading, table in (("Events", events()), ("Fields", fields())):
        text, found = re.subn(
            rf"(?<=^## {heading}\n\n)(?:    .*\n)*", lambda _, new=table: new, text, flags=re.MULTILINE
        )
        assert found == 1, heading
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
