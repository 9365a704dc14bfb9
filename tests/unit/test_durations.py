from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain.durations import LONGEST, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("10s", 10),
        ("5m", 300),
        ("5min", 300),
        ("5 minutes", None),
        ("2 hours", 7200),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 2d ", 172800),
        ("1.5h", 5400),
        ("1w", 604800),
        ("2weeks", 1209600),
        ("10S", 10),
        ("PT5M", 300),
        ("P1DT12H", 129600),
        ("P1W", 604800),
        ("PT0.5S", 0.5),
        (90, 90),
        (0.25, 0.25),
    ],
)
def test_spans_are_read_as_people_write_them(text, seconds):
    if seconds is None:
        with pytest.raises(ValueError, match="not a unit of time"):
            parse_duration(text)
    else:
        assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "5x",
        "5 parsecs",
        "-1",
        "-5s",
        "1h-5m",
        "5M",
        "P",
        "PT",
        "P1M",
        "1e9999",
        "nan",
        "inf",
        "5s!",
        "٣s",
    ],
)
def test_what_is_no_span_is_refused_with_a_reason(text):
    with pytest.raises(ValueError, match=r".{10}"):
        parse_duration(text)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1, -0.001, LONGEST * 1.01, 10**400])
def test_numbers_that_are_no_span_are_refused(number):
    with pytest.raises(ValueError, match=r"duration|century"):
        parse_duration(number)


def test_a_capital_m_is_refused_because_it_could_mean_two_things():
    with pytest.raises(ValueError, match="month or minute"):
        parse_duration("5M")


@given(st.integers(0, int(LONGEST)))
def test_what_is_shown_is_read_back_to_two_units(seconds):
    shown = format_duration(seconds)

    assert len(shown.split()) <= 2
    lost = seconds - parse_duration(shown)
    assert 0 <= lost < max(60, seconds / 24)


@given(st.floats(0, 1, exclude_max=True))
def test_less_than_a_second_is_shown_in_milliseconds(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=0.000501)


@given(st.text())
def test_any_text_is_a_span_or_an_error_for_people(text):
    try:
        seconds = parse_duration(text)
    except ValueError:
        return

    assert 0 <= seconds <= LONGEST
