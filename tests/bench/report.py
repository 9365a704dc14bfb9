"""Where it was measured, and the tables that people read."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from queuectld.protocol.words import VERSION


class Row(NamedTuple):
    what: str
    value: str
    compared: str = ""


def machine(place: Path) -> dict[str, Any]:
    """Return what a reader has to know to repeat it."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "version": VERSION,
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "filesystem": _filesystem(place.resolve()),
        "durability": "fsync before every acknowledgement (SQLite, synchronous=FULL)",
    }


def _filesystem(place: Path) -> str:
    mounts = [each for each in psutil.disk_partitions(all=True) if place.is_relative_to(each.mountpoint)]
    return max(mounts, key=lambda each: len(each.mountpoint)).fstype


def table(rows: Iterable[Row]) -> str:
    """Return lines with aligned columns."""
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{row.what:<{widths[0]}}  {row.value:>{widths[1]}}  {row.compared:<{widths[2]}}".rstrip() for row in rows
    )


def markdown(rows: Iterable[Row], where: Mapping[str, Any], workload: str) -> str:
    """Return the table for the README, and below it where it comes from."""
    lines = ["| | | |", "|---|---:|---|", *(f"| {row.what} | {row.value} | {row.compared} |" for row in rows)]
    kernel = where["kernel"].partition("-")[0]
    source = (
        f"Measured on {where['date']} with version {where['version']}: {where['cpu']}, {where['cores']} cores, "
        f"Linux {kernel}, Python {where['python']}, {where['filesystem']}, load {where['load']} before; "
        f"{where['durability']}. Drained: {workload}."
    )
    return "\n".join([*lines, "", source]) + "\n"
