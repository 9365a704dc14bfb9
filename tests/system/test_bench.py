"""The program that measures works; whether its figures are good is judged elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_prints_a_table_and_writes_the_same_as_json(home: Path) -> None:
    place = home / "figures.json"

    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--tiny", "--json", str(place), "--dir", str(home)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(place.read_text())
    assert set(told["figures"]) == {"drain", "enqueue", "latency", "command_line", "rescue", "costs"}
    assert {"queuectl", "xargs -P8"} <= set(told["figures"]["drain"]["median"])
    for name, median in told["figures"]["drain"]["median"].items():
        assert f"drain: {name}" in done.stdout
        assert median > 0
    assert told["machine"]["durability"] in done.stdout
