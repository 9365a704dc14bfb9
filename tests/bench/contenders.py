"""Who drains how fast: QueueCTL, and what else runs many commands on one machine, each with the same commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire

WORKERS = 8
# A request may have a mebibyte; a thousand jobs `true` take a thirtieth of it.
BATCH = 1000


class Contender(NamedTuple):
    name: str
    # What is stored before anybody is told that it is, and what of the output is kept.
    promise: str
    # Runs so many commands and returns the seconds that it took.
    drain: Callable[[int], float]


@contextmanager
def queue(place: Path, **config: Any) -> Iterator[LiveDaemon]:
    """Run a daemon in a new directory below `place`."""
    home = Path(tempfile.mkdtemp(prefix="queuectl-bench-", dir=place))
    try:
        with LiveDaemon(home, **config) as daemon:
            yield daemon.start()
    finally:
        shutil.rmtree(home)


def warm(wire: Wire, count: int) -> None:
    """Start so many workers, and wait until all of them are idle."""
    wire.call("worker_start", count=count)
    wait_for(lambda: [one["phase"] for one in wire.call("worker_list")["workers"]] == ["idle"] * count, "idle workers")


def drain_queue(place: Path, count: int, **fields: str) -> float:
    """Return the seconds from the first request to the end of the last job. The workers run already.

    `fields` are what the jobs say besides their command.
    """
    with queue(place, workers=WORKERS) as daemon, daemon.wire() as wire:
        warm(wire, WORKERS)
        begin = time.perf_counter()
        for first in range(0, count, BATCH):
            wire.call("enqueue", jobs=[{"command": "true"} | fields] * min(BATCH, count - first))
        # 20 ms between two looks: a hundredth of what is measured, and no load worth speaking of.
        wait_for(lambda: wire.counts() == {"completed": count}, "all jobs are over", deadline=600, every=0.02)
        return time.perf_counter() - begin


def drain_pipe(place: Path, count: int, *argv: str) -> float:
    """Return the seconds that a program takes which reads one argument a line."""
    with tempfile.TemporaryDirectory(dir=place) as home, (Path(home) / "output").open("wb") as output:
        lines = "".join(f"{number}\n" for number in range(count)).encode()
        begin = time.perf_counter()
        subprocess.run(argv, input=lines, stdout=output, stderr=output, check=True, env=os.environ | {"HOME": home})
        return time.perf_counter() - begin


def drain_spooler(place: Path, count: int) -> float:
    """Return the seconds from the first `tsp` to the end of the last job."""
    # Seven others may still be running when the last job is over, and leave their output after we have looked.
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as home:
        env = os.environ | {"TS_SOCKET": f"{home}/socket", "TMPDIR": home, "TS_SLOTS": str(WORKERS)}
        submit = f"i=0; while [ $i -lt {count} ]; do tsp sh -c true >/dev/null; i=$((i + 1)); done; tsp -w"
        begin = time.perf_counter()
        try:
            subprocess.run(["sh", "-c", submit], env=env, check=True)
            return time.perf_counter() - begin
        finally:
            subprocess.run(["tsp", "-K"], env=env, check=True)


def contenders(place: Path) -> list[Contender]:
    """Return QueueCTL and those of the others that are installed."""
    found = [
        Contender("queuectl", "fsync before every acknowledgement, output to files", lambda n: drain_queue(place, n)),
        Contender(
            f"xargs -P{WORKERS}",
            "nothing stored, output mixed in one file",
            lambda n: drain_pipe(place, n, "xargs", f"-P{WORKERS}", "-n1", "sh", "-c", "true"),
        ),
    ]
    if os.geteuid() == 0:
        promise = "as before, each job as another user than the daemon's"
        found.append(Contender("queuectl, for others", promise, lambda n: drain_queue(place, n, **{"as": "nobody"})))
    if _is_gnu_parallel():
        found.append(
            Contender(
                f"GNU parallel -j{WORKERS}",
                "nothing stored, output kept apart",
                lambda n: drain_pipe(place, n, "parallel", "--will-cite", f"-j{WORKERS}", "true"),
            )
        )
    if shutil.which("tsp"):
        found.append(Contender("task-spooler", "in memory, output to files", lambda n: drain_spooler(place, n)))
    return found


def _is_gnu_parallel() -> bool:
    # moreutils has another program of that name.
    if not shutil.which("parallel"):
        return False
    said = subprocess.run(["parallel", "--version"], capture_output=True, text=True, check=False)
    return "GNU parallel" in said.stdout
