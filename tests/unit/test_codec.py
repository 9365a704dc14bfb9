from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain.spec import Duration
from queuectld.protocol.codec import TOO_LONG, LineBuffer, encode
from queuectld.protocol.worker_messages import Reason, Stop


def test_a_message_is_one_line():
    line = encode({"text": "two\nlines", "n": 1})

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"text": "two\nlines", "n": 1}


def test_a_duration_is_a_number():
    assert encode(Stop(token=1, reason=Reason.INTERRUPTED, grace=Duration(1.5), kill_after=Duration(2))) == encode(
        Stop(token=1, reason=Reason.INTERRUPTED, grace=1.5, kill_after=2.0)
    )


def test_what_has_no_place_on_the_wire_is_an_error():
    with pytest.raises(NotImplementedError):
        encode({"what": object()})


def test_lines_come_out_when_their_newline_comes_in():
    buffer = LineBuffer(100)

    assert buffer.feed(b'{"id"') == []
    assert buffer.feed(b":1}\n{}\n[") == [b'{"id":1}', b"{}"]
    assert buffer.feed(b"]\n") == [b"[]"]


def test_an_empty_line_is_a_line():
    assert LineBuffer(10).feed(b"\n\n") == [b"", b""]


def test_a_line_of_just_the_limit_passes_and_one_byte_more_does_not():
    assert LineBuffer(5).feed(b"12345\n123456\n") == [b"12345", TOO_LONG]


@pytest.mark.parametrize("size", [1, 3, 6, 7, 1000])
def test_a_line_that_is_too_long_is_told_once_and_skipped_to_its_end(size):
    stream = b"ok\n" + b"x" * 20 + b"\nafter\n"
    buffer = LineBuffer(5)

    lines = [line for start in range(0, len(stream), size) for line in buffer.feed(stream[start : start + size])]

    assert lines == [b"ok", TOO_LONG, b"after"]


def test_a_line_that_is_too_long_is_told_before_its_end_and_holds_no_memory():
    buffer = LineBuffer(5)

    assert buffer.feed(b"123456") == [TOO_LONG]
    assert buffer.feed(b"x" * 1_000_000) == []
    assert len(buffer._pending) == 0


pieces = st.lists(st.binary(max_size=20) | st.just(b"\n") | st.just(b"ab\ncd\n"), max_size=30)


@given(pieces)
def test_how_the_stream_is_cut_makes_no_difference(stream):
    whole, cut, bytewise = LineBuffer(8), LineBuffer(8), LineBuffer(8)
    data = b"".join(stream)

    at_once = whole.feed(data)

    assert [line for piece in stream for line in cut.feed(piece)] == at_once
    assert [line for byte in data for line in bytewise.feed(bytes((byte,)))] == at_once
    assert whole.feed(b"\n") == cut.feed(b"\n") == bytewise.feed(b"\n")


@given(pieces)
def test_every_line_is_either_delivered_unchanged_or_told_as_too_long(stream):
    data = b"".join(stream)
    *complete, rest = data.split(b"\n")
    expected = [line if len(line) <= 8 else TOO_LONG for line in complete]

    lines = LineBuffer(8).feed(data)

    assert lines == expected + ([TOO_LONG] if len(rest) > 8 else [])
