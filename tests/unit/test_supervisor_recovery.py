"""What a new daemon makes of what an old one left."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.protocol.codec import encode
from queuectld.protocol.worker_messages import Ended
from queuectld.supervisor.recovery import Fate, fate, filed_outcomes, read_outcome, remove_outcome

STORE = "5" * 32
OUTCOME = Outcome(reason=Reason.EXITED, exit_code=3, ended_at=1.0)
ATTEMPT = Attempt(
    token=4, job=1, number=1, worker="w1", worker_pid=7, worker_start=70, boot_id="b", queued_at=0.0, claimed_at=0.0
)


@pytest.mark.parametrize(
    ("boot", "start", "expected"),
    [
        ("b", 70, Fate.AWAITED),
        ("b", None, Fate.WIDOWED),
        # The number belongs to another process by now.
        ("b", 71, Fate.WIDOWED),
        ("other", 70, Fate.REBOOTED),
        ("other", None, Fate.REBOOTED),
    ],
)
def test_an_attempt_is_judged_by_boot_and_by_its_workers_process(boot, start, expected):
    assert fate(ATTEMPT, boot_id=boot, start_time=lambda pid: start if pid == 7 else None) is expected


def test_filed_outcomes_are_found_and_those_of_other_stores_left(tmp_path):
    (tmp_path / f"{STORE}.4").write_bytes(encode(Ended(4, OUTCOME)))
    (tmp_path / f"{'6' * 32}.9").write_bytes(encode(Ended(9, OUTCOME)))
    (tmp_path / f"{STORE}.5.tmp").write_bytes(b"half")

    assert [(one.token, one.outcome) for one in filed_outcomes(tmp_path, STORE)] == [(4, OUTCOME)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", encode(Ended(5, OUTCOME))])
def test_a_file_that_is_no_outcome_of_that_attempt_counts_as_none(tmp_path, content):
    (tmp_path / f"{STORE}.4").write_bytes(content)

    assert read_outcome(tmp_path, STORE, 4) is None
    assert list(filed_outcomes(tmp_path, STORE)) == []


def test_a_recorded_outcome_is_removed_and_removing_it_twice_is_harmless(tmp_path):
    (tmp_path / f"{STORE}.4").write_bytes(encode(Ended(4, OUTCOME)))

    remove_outcome(tmp_path, STORE, 4)
    remove_outcome(tmp_path, STORE, 4)

    assert read_outcome(tmp_path, STORE, 4) is None


def _make_fifo(path):
    os.mkfifo(path)


def _make_link(path):
    (path.parent / "elsewhere").write_bytes(encode(Ended(4, OUTCOME)))
    path.symlink_to(path.parent / "elsewhere")


def _make_endless(path):
    with path.open("wb") as file:
        file.write(encode(Ended(4, OUTCOME)))
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [_make_fifo, Path.mkdir, _make_link, _make_endless])
def test_what_is_no_file_of_a_worker_blocks_nobody_and_counts_as_none(tmp_path, make):
    make(tmp_path / f"{STORE}.4")

    # Whoever opens a FIFO for reading waits for a writer, and there is none.
    found = ThreadPoolExecutor().submit(lambda: (read_outcome(tmp_path, STORE, 4), [*filed_outcomes(tmp_path, STORE)]))

    try:
        assert found.result(timeout=10) == (None, [])
    except TimeoutError:
        os.close(os.open(tmp_path / f"{STORE}.4", os.O_WRONLY | os.O_NONBLOCK))
        raise


@pytest.mark.parametrize("make", [_make_fifo, Path.mkdir])
def test_what_is_no_file_of_a_worker_is_in_nobodys_way_when_its_end_is_recorded(tmp_path, make):
    make(tmp_path / f"{STORE}.4")

    remove_outcome(tmp_path, STORE, 4)


def test_what_a_killed_worker_had_not_finished_goes_with_its_outcome(tmp_path):
    (tmp_path / f".{STORE}.4").write_text('{"msg":"end')

    remove_outcome(tmp_path, STORE, 4)

    assert list(tmp_path.iterdir()) == []
