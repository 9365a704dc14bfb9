"""Where it was measured, and the table that people read."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from queuectld.protocol.words import VERSION


class Row(NamedTuple):
    what: str
    value: str
    compared: str = ""


def machine(place: Path) -> dict[str, Any]:
    """Return what a reader has to know to repeat it."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(place)], capture_output=True, text=True, check=True)
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "version": VERSION,
        "filesystem": f"{kind.stdout.strip()} ({place})",
        "durability": "synchronous=FULL: fsync before every acknowledgement",
    }


def table(rows: Iterable[Row]) -> str:
    """Return lines with aligned columns."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row.what:<{widths[0]}}  {row.value:>{widths[1]}}  {row.compared:<{widths[2]}}".rstrip() for row in rows
    )
