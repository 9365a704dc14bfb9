"""What a worker keeps of a command's output, compared byte for byte with what the contract says."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectld.protocol.output import GAP, RECORD_SIZE, STDERR, STDOUT, Chunk, head_size, ring_size, unpack
from queuectld.worker.output import Output


def read(base):
    """Return the log's bytes and the index's chunks."""
    return base.with_suffix(".log").read_bytes(), unpack(base.with_suffix(".idx").read_bytes())


def streams(base, size):
    """Return the stream of each logical byte, as the index tells it."""
    _, chunks = read(base)
    ends = [chunk.offset for chunk in chunks[1:]] + [size]
    return b"".join(bytes([chunk.stream]) * (end - chunk.offset) for chunk, end in zip(chunks, ends, strict=True))


def full(descriptor, data, position, real=os.pwrite):
    """A disk that has room for the small records of an index and nothing else."""
    if len(data) != RECORD_SIZE:
        raise OSError(28, "No space left on device")
    return real(descriptor, data, position)


def test_no_output_makes_no_file(tmp_path):
    output = Output(str(tmp_path / "o"), 100)

    output.finish(1.0)

    assert list(tmp_path.iterdir()) == []
    assert (output.size, output.missing, output.message) == (0, 0, None)


def test_stretches_are_told_apart(tmp_path):
    output = Output(str(tmp_path / "o"), 100)

    output.take(b"out", STDOUT, 1.0)
    output.take(b"put", STDOUT, 1.1)
    output.take(b"err", STDERR, 1.2)
    output.finish(2.0)

    assert read(tmp_path / "o") == (b"outputerr", [Chunk(0, 1.0, STDOUT), Chunk(6, 1.2, STDERR)])


def test_the_time_is_noted_again_after_a_second(tmp_path):
    output = Output(str(tmp_path / "o"), 100)

    output.take(b"a", STDOUT, 1.0)
    output.take(b"b", STDOUT, 2.0)
    output.finish(3.0)

    assert read(tmp_path / "o")[1] == [Chunk(0, 1.0, STDOUT), Chunk(1, 2.0, STDOUT)]


def test_a_fast_command_does_not_go_round_the_ring_unnoticed(tmp_path):
    output = Output(str(tmp_path / "o"), 1 << 20)

    for _ in range(256):
        output.take(b"x" * (16 << 10), STDOUT, 1.0)

    offsets = [chunk.offset for chunk in unpack((tmp_path / "o.idx").read_bytes())]
    assert max(later - offset for offset, later in itertools.pairwise(offsets[1:])) <= ring_size(1 << 20) // 4
    assert output.size - offsets[-1] <= ring_size(1 << 20) // 4


def test_the_directory_is_made(tmp_path):
    output = Output(str(tmp_path / "1" / "1001.1"), 100)

    output.take(b"a", STDOUT, 1.0)
    output.finish(2.0)

    assert (tmp_path / "1" / "1001.1.log").read_bytes() == b"a"


def test_before_the_end_the_newest_bytes_are_in_the_ring(tmp_path):
    output = Output(str(tmp_path / "o"), 10)
    data = b"0123456789abcdefghi"

    output.take(data, STDOUT, 1.0)

    ring = (tmp_path / "o.ring").read_bytes()
    for offset in range(len(data) - 5, len(data)):
        assert ring[(offset - 5) % 5] == data[offset]
    assert (tmp_path / "o.log").read_bytes() == data[:5]


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(0, 40),
    pieces=st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.sampled_from([STDOUT, STDERR])), max_size=12),
)
def test_the_limit_is_kept_exactly(tmp_path_factory, limit, pieces):
    base = tmp_path_factory.mktemp("o") / "o"
    output = Output(str(base), limit)

    for number, (data, stream) in enumerate(pieces):
        output.take(data, stream, float(number))
    output.finish(99.0)

    everything = b"".join(data for data, _ in pieces)
    sources = b"".join(bytes([stream]) * len(data) for data, stream in pieces)
    size, head = len(everything), head_size(limit)
    missing = max(size - limit, 0)
    assert (output.size, output.missing) == (size, missing)
    assert not base.with_suffix(".ring").exists()
    if pieces:
        kept_from = head + missing if missing else head
        assert read(base)[0] == everything[:head] + everything[kept_from:]
        assert streams(base, size) == sources[:head] + bytes([GAP]) * missing + sources[kept_from:]
        assert [c.offset for c in read(base)[1]] == sorted({c.offset for c in read(base)[1]})
        assert ring_size(limit) + head == limit


def test_a_full_disk_costs_output_and_is_said(tmp_path, monkeypatch):
    output = Output(str(tmp_path / "o"), 1000)
    output.take(b"before", STDOUT, 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        output.take(b"x" * 100, STDERR, 1.5)
    output.take(b"after\n", STDERR, 2.0)
    output.finish(3.0)

    log, chunks = read(tmp_path / "o")
    assert log == b"before"
    assert chunks[-1] == Chunk(6, 1.5, GAP)
    assert (output.size, output.missing) == (112, 106)
    assert output.message.startswith("output is incomplete: No space left on device; ")


def test_a_disk_that_fills_up_in_the_ring_leaves_the_head(tmp_path, monkeypatch):
    output = Output(str(tmp_path / "o"), 10)
    for number in range(10):
        output.take(b"ab", number % 2 + 1, 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        output.take(b"cd", STDOUT, 2.0)
    output.finish(3.0)

    assert read(tmp_path / "o")[0] == b"ababa"
    assert streams(tmp_path / "o", 22)[:5] == bytes([1, 1, 2, 2, 1])
    assert streams(tmp_path / "o", 22)[5:] == bytes([GAP]) * 17
    assert output.missing == 17


def test_deleted_files_harm_nobody(tmp_path):
    output = Output(str(tmp_path / "o"), 10)
    output.take(b"x" * 30, STDOUT, 1.0)
    for path in tmp_path.iterdir():
        path.unlink()

    output.take(b"y" * 30, STDOUT, 3.0)
    output.finish(4.0)

    assert (output.size, output.missing) == (60, 50)


def test_an_index_does_not_outgrow_the_output(tmp_path):
    output = Output(str(tmp_path / "o"), 1000)

    for number in range(20_000):
        output.take(b"x", number % 2 + 1, 1.0)

    assert (tmp_path / "o.idx").stat().st_size < 1000 + 65536 + 2000
    output.finish(2.0)
    assert output.missing == 19_000


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (b"first\nlast\n", "last"),
        (b"first\n\n  \n", "first"),
        (b"half", "half"),
        (b"\x1b[31mred\x1b[0m\x07\n", "[31mred [0m"),
        (b"\xff\xfe\n", "\ufffd\ufffd"),
        (b"a\tb\r\n", "a b"),
        (b"\n", None),
    ],
)
def test_the_last_line_on_stderr_is_remembered(tmp_path, written, line):
    output = Output(str(tmp_path / "o"), 100)

    output.take(written, STDERR, 1.0)
    output.take(b"not this\n", STDOUT, 1.0)

    assert output.message == line
    output.finish(2.0)


def test_a_long_line_is_cut(tmp_path):
    output = Output(str(tmp_path / "o"), 100)

    for _ in range(10):
        output.take(b"x" * 1000, STDERR, 1.0)

    assert len(output.message) == 300
    output.finish(2.0)
