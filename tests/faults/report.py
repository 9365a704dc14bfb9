"""Results that add up over several runs in one file, and the table that people read."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from queuectld.protocol.words import VERSION
from tests.faults.suite import KINDS, Suite, Tally

HEAD: Final = ("suite", "faults injected", "runs", *KINDS)
# Texts of what went wrong that are kept of one run.
_KEPT: Final = 50

Results = dict[str, dict[str, Any]]


def result(tally: Tally, *, seed: int, rounds: int, took: float) -> dict[str, Any]:
    """Return what is kept of one run of a suite."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "version": VERSION,
        "machine": machine(),
        "seed": seed,
        "rounds": rounds,
        "seconds": round(took, 1),
        "faults": dict(sorted(tally.faults.items())),
        "runs": tally.runs,
        **{kind: tally.count(kind) for kind in KINDS},
        "checks": dict(sorted(tally.checks.items())),
        "figures": tally.figures,
        "wrong": [str(wrong) for wrong in tally.wrong[:_KEPT]],
    }


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    kernel = platform.release().partition("-")[0]
    cores = len(os.sched_getaffinity(0))
    return f"{models[0] if models else platform.machine()}, {cores} cores, Linux {kernel}, Python " + (
        platform.python_version()
    )


def load(path: Path) -> Results:
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, results: Results) -> None:
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def failed(results: Results) -> list[str]:
    """Return the suites in which something was wrong."""
    return [name for name, one in results.items() if any(one[kind] for kind in KINDS)]


def _cells(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    return (name, f"{sum(one['faults'].values()):,}", f"{one['runs']:,}", *(f"{one[kind]:,}" for kind in KINDS))


def table(results: Results) -> str:
    """Return lines with aligned columns; below them what was measured, and what each kind of fault adds to the sum."""
    rows = [HEAD, *(_cells(name, one) for name, one in results.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in cells)
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
    for name, one in results.items():
        lines += [
            "",
            f"{name}: {_told(one['faults'])}",
            *(f"  {key}: {value}" for key, value in one["figures"].items()),
        ]
        lines += [f"  checked: {_told(one['checks'])}"]
        lines += [f"  WRONG: {text}" for text in one["wrong"]]
    return "\n".join(lines)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing"


def markdown(results: Results, suites: Mapping[str, Suite]) -> str:
    """Return the table for the README: the suites in their order, each with its line; below it where it comes from."""
    known = [(suites[name], results[name]) for name in suites if name in results]
    lines = [f"| {' | '.join(HEAD)} |", f"|---|{'---:|' * (len(HEAD) - 1)}"]
    for suite, one in known:
        name, *cells = _cells(suite.name, one)
        lines.append(f"| `{name}`: {suite.line} | {' | '.join(cells)} |")
    lines += ["", *_figures(known), *_sources(one for _, one in known)]
    return "\n".join(lines) + "\n"


def _figures(known: Iterable[tuple[Suite, Mapping[str, Any]]]) -> list[str]:
    told = [f"{key} {value}" for _, one in known for key, value in one["figures"].items()]
    return [f"Measured on the way: {'; '.join(told)}.", ""] if told else []


def _sources(results: Iterable[Mapping[str, Any]]) -> list[str]:
    told = sorted({f"on {one['date']} with version {one['version']}: {one['machine']}" for one in results})
    return [f"Run {'; '.join(told)}."]
