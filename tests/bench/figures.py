"""What else is measured of a running daemon: how fast it takes jobs in, how soon it starts them, what it costs."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil

from tests.bench.contenders import BATCH, WORKERS, queue, warm
from tests.system.livedaemon import CLI, PROGRAMS, LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire

# Requests of one connection that are under way at once.
PIPELINE = 8
CONNECTIONS = 32


def percentile(values: list[float], share: float) -> float:
    """Return the value below which so large a share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Asker(asyncio.Protocol):
    """Sends requests, so many ahead of the answers, and reads while it sends.

    It has to: the daemon reads nothing from a client that does not read its answers.
    """

    def __init__(self, request: bytes, count: int, ahead: int) -> None:
        self._request, self._unsent, self._unanswered, self._ahead = request, count, count, ahead
        loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def begin(self) -> None:
        self._send(self._ahead)

    def _send(self, count: int) -> None:
        count = min(count, self._unsent)
        self._unsent -= count
        self._transport.write(self._request * count)

    def data_received(self, data: bytes) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)
            return
        if b'"error":' in data or b'"refused":[{' in data:
            self.over.set_exception(RuntimeError(data[:1000].decode()))
            self._transport.close()
            return
        answers = data.count(b"\n")
        self._unanswered -= answers
        self._send(answers)
        if not self._unanswered:
            self._transport.close()
            self.over.set_result(None)


async def _ask(socket: Path, connections: int, size: int, requests: int, ahead: int) -> float:
    """Return the seconds in which all connections together get their answers; `size` jobs a request."""
    loop = asyncio.get_running_loop()
    request = _enqueue(size)
    made = [
        await loop.create_unix_connection(lambda: _Asker(request, requests, ahead), str(socket))
        for _ in range(connections)
    ]
    askers = [asker for _, asker in made]
    await asyncio.gather(*(asker.greeted for asker in askers))
    begin = time.perf_counter()
    for asker in askers:
        asker.begin()
    await asyncio.gather(*(asker.over for asker in askers))
    return time.perf_counter() - begin


def _enqueue(size: int) -> bytes:
    return json.dumps({"id": 1, "op": "enqueue", "jobs": [{"command": "true"}] * size}).encode() + b"\n"


def bulk_rate(place: Path, count: int) -> float:
    """Return jobs a second that one client stores, a thousand a request; no worker takes any."""
    with queue(place, workers=0) as daemon:
        requests = count // BATCH
        return requests * BATCH / asyncio.run(_ask(daemon.socket, 1, BATCH, requests, PIPELINE))


def single_rate(place: Path, count: int) -> float:
    """Return jobs a second that 32 clients store, each one at a time, waiting for the answer before the next."""
    with queue(place, workers=0) as daemon:
        each = max(1, count // CONNECTIONS)
        return each * CONNECTIONS / asyncio.run(_ask(daemon.socket, CONNECTIONS, 1, each, 1))


def latencies(place: Path, count: int) -> tuple[list[float], list[float]]:
    """Return seconds from the request to the start of the command, and to the end of the job, on an idle daemon.

    The start is the attempt's `started_at`, which the worker notes when it has started the command; no process of ours
    stands between the clock and the request.
    """
    starts: list[float] = []
    ends: list[float] = []
    with queue(place, workers=1) as daemon, daemon.wire() as wire:
        warm(wire, 1)
        for _ in range(count):
            asked = time.time()
            name = wire.enqueue("true")
            wire.call("wait", select={"ids": [name]})
            ends.append(time.time() - asked)
            starts.append(_seconds(wire.history(name)[0]["started_at"]) - asked)
    return starts, ends


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


def command_line(place: Path, count: int) -> tuple[float, float]:
    """Return the median seconds of `queuectl enqueue` and of a Python that imports click and does nothing."""
    installed = PROGRAMS / "queuectl"
    program = [str(installed)] if installed.exists() else list(CLI)
    ours: list[float] = []
    theirs: list[float] = []
    with queue(place, workers=0) as daemon:
        for _ in range(count):
            ours.append(_run(daemon, [*program, "enqueue", "true"]))
            theirs.append(_run(daemon, [sys.executable, "-P", "-c", "import click"]))
    return statistics.median(ours), statistics.median(theirs)


def _run(daemon: LiveDaemon, argv: list[str]) -> float:
    begin = time.perf_counter()
    # Both streams are pipes, as for a program that calls it; a note that there are no workers is not for this terminal.
    subprocess.run(argv, env=daemon.env, cwd=daemon.home, capture_output=True, check=True)
    return time.perf_counter() - begin


def memory(place: Path, count: int) -> dict[str, float]:
    """Return mebibytes of the daemon and of its largest worker after `count` jobs have run, with as many waiting."""
    with queue(place, workers=WORKERS) as daemon, daemon.wire() as wire:
        warm(wire, WORKERS)
        for delay in (0, 3600):
            for first in range(0, count, BATCH):
                jobs = [{"command": "true", "delay": delay}] * min(BATCH, count - first)
                wire.call("enqueue", jobs=jobs)
        wait_for(lambda: wire.counts().get("completed") == count, "half of the jobs are over", deadline=600, every=0.1)
        workers = [_memory(worker["pid"]) for worker in wire.call("worker_list")["workers"]]
        rss, pss = _memory(daemon.pid)
        return {
            "daemon_rss": rss,
            "daemon_pss": pss,
            "worker_rss": max(worker[0] for worker in workers),
            "worker_pss": max(worker[1] for worker in workers),
        }


def _memory(pid: int) -> tuple[float, float]:
    info = psutil.Process(pid).memory_full_info()
    return info.rss / 2**20, info.pss / 2**20


def rescue(place: Path, count: int) -> list[float]:
    """Return the seconds from a worker's SIGKILL to the next start of its job, with all workers busy."""
    took: list[float] = []
    with queue(place, workers=2, max_lost=1000) as daemon, daemon.wire() as wire:
        warm(wire, 2)
        names = [wire.enqueue("sleep 1000") for _ in range(2)]
        for round_ in range(1, count + 1):
            worker = daemon.worker_of(names[0])
            killed = time.time()
            os.kill(worker, 9)
            wait_for(lambda n=round_: len(_starts(wire, names[0])) > n, "the job runs again", every=0.005)
            took.append(_starts(wire, names[0])[-1] - killed)
    return took


def _starts(wire: Wire, name: str) -> list[float]:
    return [_seconds(one["started_at"]) for one in wire.history(name) if one["started_at"]]


def idle(place: Path, seconds: float) -> float:
    """Return the share of a core that an idle daemon and its idle workers use together."""
    with queue(place, workers=2) as daemon, daemon.wire() as wire:
        warm(wire, 2)
        everybody = [daemon.pid, *(worker["pid"] for worker in wire.call("worker_list")["workers"])]
        before = sum(_cpu(pid) for pid in everybody)
        time.sleep(seconds)
        return (sum(_cpu(pid) for pid in everybody) - before) / seconds


def _cpu(pid: int) -> float:
    # `schedstat` counts nanoseconds, for each thread; `stat` would count ticks of 10 ms.
    total = sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
    return total / 1e9
