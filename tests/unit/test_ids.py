from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from queuectld.domain.ids import job_id
from queuectld.domain.spec import NAME

seqs = st.integers(0, 2**40 - 1)


@given(seqs)
def test_an_id_has_eight_characters_and_is_a_valid_name(seq):
    assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{8}", job_id(seq))
    assert re.fullmatch(NAME, job_id(seq))


@given(seqs, seqs)
def test_different_numbers_have_different_ids(one, other):
    assert (job_id(one) == job_id(other)) == (one == other)


def test_the_first_hundred_thousand_are_unique():
    assert len({job_id(seq) for seq in range(100_000)}) == 100_000


def test_four_characters_tell_neighbours_apart():
    prefixes = {job_id(seq)[:4] for seq in range(1, 201)}

    assert len(prefixes) >= 190


def test_ids_are_the_same_in_every_version():
    # Stored ids would clash with new ones if this ever changed.
    assert [job_id(seq) for seq in (1, 2, 1_000_000)] == ["d28n9xcc", "m6717x6p", "541s0ww9"]
