from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.protocol.output import GAP, STDERR, STDOUT
from queuectld.service.output_files import OutputFiles
from queuectld.service.utf8 import incomplete_tail, missing_bytes
from queuectld.worker.output import Output

LIMIT = 1000


@given(st.text(), st.integers(0, 3))
def test_only_a_torn_character_is_an_incomplete_tail(text, cut):
    whole = text.encode()
    data = whole[: len(whole) - cut] if cut else whole

    tail = incomplete_tail(data)

    data[: len(data) - tail].decode()
    assert tail == 0 or len(whole) > len(data)
    assert missing_bytes(data) == 0 or 0 < missing_bytes(data) <= 3


@pytest.mark.parametrize("data", [b"", b"abc", "€".encode(), b"\x80\x80\x80\x80", b"\xc3\xa9"])
def test_what_is_whole_or_never_will_be_has_no_tail(data):
    assert incomplete_tail(data) == 0


def read_all(base, **how):
    """Return (offset, stream, bytes) of everything that can be read, gaps with their length."""
    with OutputFiles(base, **{"live": False, "limit": LIMIT} | how) as files:
        offset, parts = 0, []
        while (stretch := files.stretch(offset)) is not None:
            size = stretch.end - offset
            parts.append((offset, stretch.stream, size if stretch.stream == GAP else files.read(offset, size)))
            offset = stretch.end
        assert offset == files.end
        return parts


def joined(parts):
    return b"".join(data for _, stream, data in parts if stream != GAP)


def write(base, data, *, step=90, finish=True):
    output = Output(str(base), LIMIT)
    for start in range(0, len(data), step):
        output.take(data[start : start + step], STDERR if start // step % 3 == 2 else STDOUT, float(start))
    if finish:
        output.finish(float(len(data)))
    return output


def numbered(size):
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


@pytest.mark.parametrize("size", [1, 90, 499, 500, 501, 998])
def test_everything_within_the_limit_is_read_back_while_it_runs_and_afterwards(tmp_path, size):
    data = numbered(size)

    output = write(tmp_path / "1.1", data, finish=False)
    running = joined(read_all(tmp_path / "1.1", live=True))
    output.finish(0.0)

    assert running == data

    assert joined(read_all(tmp_path / "1.1")) == data


@pytest.mark.parametrize("size", [1001, 1500, 1501, 2345, 10_000])
def test_past_the_limit_the_halves_and_the_gap_are_read(tmp_path, size):
    data = numbered(size)
    output = write(tmp_path / "1.1", data)

    parts = read_all(tmp_path / "1.1", missing=output.missing)

    assert joined(parts) == data[:500] + data[-500:]
    assert [(offset, length) for offset, stream, length in parts if stream == GAP] == [(500, size - 1000)]
    assert all(data[offset : offset + len(part)] == part for offset, stream, part in parts if stream != GAP)


@pytest.mark.parametrize("size", [999, 1000, 1001, 1500, 2345, 10_000])
def test_while_it_runs_past_the_limit_only_true_bytes_are_read(tmp_path, size):
    data = numbered(size)
    write(tmp_path / "1.1", data, finish=False)

    parts = read_all(tmp_path / "1.1", live=True)

    assert joined(parts)[:500] == data[:500]
    assert all(data[offset : offset + len(part)] == part for offset, stream, part in parts if stream != GAP)


@pytest.mark.parametrize("size", [700, 1200, 2345])
def test_bytes_that_the_worker_has_written_over_meanwhile_are_not_read(tmp_path, size):
    data = numbered(size + 2000)
    output = write(tmp_path / "1.1", data[:size], finish=False)

    with OutputFiles(tmp_path / "1.1", live=True, limit=LIMIT) as files:
        offset = max(500, files.end - 100)
        before = files.read(offset, 8)
        for start in range(size, size + 2000, 90):
            output.take(data[start : start + 90], STDOUT, float(start))
        after = files.read(offset, 8)

    assert before == data[offset : offset + 8]
    assert after == b""


def test_a_changed_limit_does_not_matter_once_it_is_over(tmp_path):
    data = numbered(5000)
    output = write(tmp_path / "1.1", data)

    parts = read_all(tmp_path / "1.1", limit=64, missing=output.missing)

    assert joined(parts) == data[:500] + data[-500:]


def test_a_changed_limit_costs_a_follower_time_and_never_truth(tmp_path):
    data = numbered(5000)
    write(tmp_path / "1.1", data, finish=False)

    parts = read_all(tmp_path / "1.1", live=True, limit=64)

    assert data.startswith(joined(parts))


def test_what_a_killed_worker_left_in_the_ring_is_read(tmp_path):
    data = numbered(800)
    write(tmp_path / "1.1", data, finish=False)

    assert joined(read_all(tmp_path / "1.1")) == data


def test_no_files_are_no_output(tmp_path):
    assert read_all(tmp_path / "1.1") == []


def test_descriptors_are_closed(tmp_path):
    write(tmp_path / "1.1", numbered(2000), finish=False)
    before = len(list(Path("/proc/self/fd").iterdir()))

    read_all(tmp_path / "1.1", live=True)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
