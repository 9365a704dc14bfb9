from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain.sizes import LARGEST, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("64K", 65536),
        ("64k", 65536),
        ("64KB", 65536),
        ("64MiB", 64 << 20),
        ("64 M", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("1T", 1 << 40),
    ],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "M", "64X", "-1", "1e3", "64MiBs", "1 2", "2000T", "0x10"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"size|pebibyte"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        ((1 << 20) - 1, "1 MiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_sizes_are_shown_in_the_unit_that_fits(count, text):
    assert format_size(count) == text


@given(st.integers(0, LARGEST))
def test_what_is_shown_is_read_back_to_a_tenth_of_its_unit(count):
    assert parse_size(format_size(count)) == pytest.approx(count, rel=0.05)


@given(st.text())
def test_any_text_is_a_size_or_an_error_for_people(text):
    try:
        count = parse_size(text)
    except ValueError:
        return

    assert 0 <= count <= LARGEST
