"""Parts of the README that are made by programs, each between two marks."""

from __future__ import annotations

from pathlib import Path
from typing import Final

README: Final = Path(__file__).parents[1] / "README.md"


def insert(text: str, mark: str, block: str) -> str:
    """Return a README with another block of that name. Raises `ValueError` if it has no place for it."""
    first, last = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise ValueError(f"no block between {first.strip()} and {last.strip()}")
    return f"{before}{begin}{block}{end}{after}"


def write(path: Path, mark: str, block: str) -> None:
    """Replace a block of the README. Raises `ValueError`."""
    path.write_text(insert(path.read_text(), mark, block))
