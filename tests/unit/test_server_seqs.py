from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from queuectld.server.seqs import Seqs

POSITIONS = st.integers(0, 5000)


@given(st.lists(st.tuples(st.booleans(), POSITIONS)))
def test_it_is_a_set(steps):
    seqs, model = Seqs(), set()
    for adds, seq in steps:
        if adds:
            seqs.add(seq)
            model.add(seq)
        else:
            seqs.discard(seq)
            model.discard(seq)

    assert bool(seqs) == bool(model)
    assert {seq for seq in range(5001) if seq in seqs} == model


def test_a_million_positions_take_less_than_a_megabyte():
    tracemalloc.start()
    seqs = Seqs()
    for seq in range(1_000_000):
        seqs.add(seq)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < 1_000_000
