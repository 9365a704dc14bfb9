"""Many jobs, several workers: each runs exactly once, and its output is all there."""

from __future__ import annotations

import json

from tests.system.livedaemon import LiveDaemon
from tests.system.witness import Witness

JOBS = 1000


def test_a_thousand_jobs_on_four_workers_run_exactly_once_with_all_their_output(new_daemon, witness: Witness) -> None:
    daemon: LiveDaemon = new_daemon(workers=4).start()
    body = 'seq -f "$QUEUECTL_JOB_ID line %g" 1 20; echo $QUEUECTL_JOB_ID over >&2'
    lines = "".join(json.dumps({"id": f"n{i}", "command": witness.command(body)}) + "\n" for i in range(JOBS))

    added = daemon.cli("enqueue", "-", stdin=lines)
    daemon.wait_for_counts(completed=JOBS, deadline=100)

    assert added.code == 0, added
    assert added.out.split() == [f"n{i}" for i in range(JOBS)]
    assert witness.runs() == {f"n{i}": ["1 start", "1 end"] for i in range(JOBS)}
    with daemon.wire() as wire:
        for i in range(JOBS):
            said = "".join(f"n{i} line {k}\n" for k in range(1, 21)).encode()
            assert wire.output(f"n{i}", stream="stdout") == said
            assert wire.output(f"n{i}", stream="stderr") == f"n{i} over\n".encode()


def test_no_more_jobs_run_at_once_than_there_are_workers(new_daemon, witness: Witness) -> None:
    daemon: LiveDaemon = new_daemon(workers=3).start()
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"command": witness.command("sleep 0.02")} for _ in range(60)])

    daemon.wait_for_counts(completed=60)

    running, most = 0, 0
    for line in witness.lines():
        running += 1 if line.what == "start" else -1
        most = max(most, running)
    assert most == 3


def test_jobs_of_one_priority_start_in_the_order_they_came(new_daemon, witness: Witness) -> None:
    daemon: LiveDaemon = new_daemon(workers=1).start()
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"id": f"n{i}", "command": witness.command()} for i in range(30)])

    daemon.wait_for_counts(completed=30)

    assert [line.job for line in witness.lines() if line.what == "start"] == [f"n{i}" for i in range(30)]


def test_a_higher_priority_overtakes(new_daemon, witness: Witness, gate) -> None:
    daemon: LiveDaemon = new_daemon(workers=1).start()
    with daemon.wire() as wire:
        wire.enqueue(gate.wait(), id="first")
        daemon.wait_for_state("first", "processing")
        for priority in (0, 1, -1, 2):
            wire.enqueue(witness.command(), id=f"p{priority}", priority=priority)

    gate.open()
    daemon.wait_for_counts(completed=5)

    assert [line.job for line in witness.lines() if line.what == "start"] == ["p2", "p1", "p0", "p-1"]
