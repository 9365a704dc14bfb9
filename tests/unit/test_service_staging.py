from __future__ import annotations

import msgspec
import pytest

from queuectld.errors import BadRequestError
from queuectld.protocol.messages import Stage
from queuectld.service import staging
from queuectld.service.staging import Staging


def test_jobs_gather_under_their_key_in_order():
    store = Staging()

    store.put(Stage(id=1, key="a", jobs=(msgspec.Raw(b"1"), msgspec.Raw(b"2"))))
    store.put(Stage(id=2, key="a", jobs=(msgspec.Raw(b"3"),)))

    assert [bytes(job) for job in store.jobs("a")] == [b"1", b"2", b"3"]


def test_inputs_grow_piece_by_piece():
    store = Staging()

    store.put(Stage(id=1, key="a", data="é"))
    staged = store.put(Stage(id=2, key="a", b64=b"\xff"))

    assert store.inputs() == {"a": b"\xc3\xa9\xff"}
    assert staged.bytes == 3


def test_too_many_jobs_are_refused_and_nothing_of_them_kept(monkeypatch):
    monkeypatch.setattr(staging, "_STAGED_JOBS_LIMIT", 500)
    store = Staging()
    store.put(Stage(id=1, key="a", jobs=(msgspec.Raw(b"1"),)))

    with pytest.raises(BadRequestError) as error:
        store.put(Stage(id=2, key="a", jobs=(msgspec.Raw(b"2" * 500),)))

    assert error.value.path == "$.jobs"
    assert len(store.jobs("a")) == 1


def test_too_much_input_is_refused(monkeypatch):
    monkeypatch.setattr(staging, "INPUT_LIMIT", 100)
    store = Staging()

    for _ in range(66):
        store.put(Stage(id=1, key="a", data="x" * 900))

    with pytest.raises(BadRequestError):
        store.put(Stage(id=1, key="a", data="x" * 5000))

    assert len(store.inputs()["a"]) == 66 * 900


def test_what_was_cleared_is_gone():
    store = Staging()
    store.put(Stage(id=1, key="a", jobs=(msgspec.Raw(b"1"),)))

    store.clear()

    with pytest.raises(BadRequestError):
        store.jobs("a")
