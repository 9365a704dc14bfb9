"""All output together: however much jobs write, the disk holds no more than is allowed and what runs just now."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

MIB = 1024 * 1024
LIMIT = MIB
BOUND = 8 * MIB
WORKERS = 2


def disk(daemon: LiveDaemon) -> int:
    sizes = []
    for file in (daemon.state / "output").glob("*/*"):
        try:
            sizes.append(file.stat().st_blocks * 512)
        except FileNotFoundError:
            continue
    return sum(sizes)


def test_a_burst_of_jobs_that_all_write_as_much_as_they_may_is_bounded_all_the_time(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon(workers=WORKERS, output_limit=LIMIT, **{"retention.output": BOUND}).start()
    largest = 0
    with daemon.wire() as wire:
        jobs = [wire.enqueue("head -c 2000000 /dev/zero") for _ in range(60)]

        while wire.counts() != {"completed": len(jobs)}:
            largest = max(largest, disk(daemon))

        # What runs has its log and its ring; one result a worker may not be recorded yet; and a moment to remove files.
        assert largest <= BOUND + WORKERS * 4 * LIMIT
        wait_for(lambda: disk(daemon) <= BOUND, "the rest is within the bound")
        gone = [job for job in jobs if wire.history(job)[-1]["output_removed"]]
        assert gone
        assert jobs[-1] not in gone
        assert disk(daemon) > BOUND // 2

    logs, shown, last = (daemon.cli(*words) for words in (["logs", gone[0]], ["show", gone[0]], ["logs", jobs[-1]]))

    assert (logs.code, logs.out) == (0, "")
    assert "2,000,000 bytes of output were removed to make room" in logs.err
    assert "retention.output" in shown.out
    assert len(last.out) >= LIMIT
    assert daemon.stop() == 0


def test_a_smaller_bound_takes_effect_at_once_and_a_crash_forgets_nothing(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon(workers=WORKERS, output_limit=LIMIT).start()
    with daemon.wire() as wire:
        jobs = [wire.enqueue("head -c 1000000 /dev/zero") for _ in range(6)]
        wait_for(lambda: wire.counts() == {"completed": len(jobs)}, "all have run")
    daemon.again()

    with daemon.wire() as wire:
        wire.call("config_set", key="retention.output", value="3MiB")

        wait_for(lambda: disk(daemon) <= 3 * MIB, "the oldest are gone")
        kept = [job for job in jobs if not wire.history(job)[-1]["output_removed"]]

    assert len(kept) == 3


def test_what_a_killed_worker_left_is_counted_too(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(workers=WORKERS, output_limit=LIMIT, max_lost=1, **{"retention.output": 10 * 4096}).start()
    with daemon.wire() as wire:
        job = wire.enqueue("head -c 300000 /dev/zero; sleep 1000")
        wait_for(lambda: disk(daemon) >= 300_000, "it has written")
        os.kill(daemon.worker_of(job), signal.SIGKILL)
        daemon.wait_for_state(job, "dead")

        wait_for(lambda: disk(daemon) == 0, "its output is gone")
