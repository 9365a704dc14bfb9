"""Asks a daemon for its figures, and a real Prometheus for what it makes of them."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode

import pytest

from tests.system.waiting import wait_for

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's package prometheus")

_SAMPLE: Final = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

Labels = frozenset[tuple[str, str]]


class Answer(NamedTuple):
    """What a request came to."""

    status: int
    text: str


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def get(port: int, path: str) -> Answer:
    """Ask over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode())
    finally:
        connection.close()


class Figures:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.samples: dict[tuple[str, Labels], float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                found = _SAMPLE.fullmatch(line)
                assert found is not None, line
                labels = frozenset(_LABEL.findall(found["labels"] or ""))
                self.samples[found["name"], labels] = float(found["value"])

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels; fail if there is none."""
        wanted = set(labels.items())
        found = [value for (one, has), value in self.samples.items() if one == f"queuectl_{name}" and wanted <= has]
        assert found, f"there is no queuectl_{name} with {labels}"
        return sum(found)


def figures(port: int) -> Figures:
    """Scrape."""
    answer = get(port, "/metrics")
    assert answer.status == 200, answer
    return Figures(answer.text)


class Prometheus:
    """A Prometheus of one's own on the loopback, which scrapes twice a second."""

    def __init__(self, place: Path, target: int, rules: Path) -> None:
        self.port = free_port()
        place.mkdir()
        self._log = place / "log"
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "200ms"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "queuectl", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
        }
        # JSON is YAML.
        (place / "prometheus.yml").write_text(json.dumps(config))
        argv = [
            "prometheus",
            f"--config.file={place / 'prometheus.yml'}",
            f"--storage.tsdb.path={place / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._is_ready, "Prometheus is ready", deadline=60)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        try:
            return get(self.port, "/-/ready").status == 200
        except OSError:
            return False

    def ask(self, path: str, **fields: str) -> Any:
        """Ask its API; return the data."""
        answer = get(self.port, f"/api/v1/{path}?{urlencode(fields)}")
        told = json.loads(answer.text)
        assert told["status"] == "success", f"{fields}: {told}"
        return told["data"]

    def query(self, expr: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the labels and the value of each series now."""
        result = self.ask("query", query=expr)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def value(self, expr: str) -> float | None:
        """Return the only value; None if there is none."""
        found = self.query(expr)
        assert len(found) <= 1, f"{expr}: {found}"
        return found[0][1] if found else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
