from __future__ import annotations

import pytest

from queuectld.store.memory import MemoryStore
from queuectld.store.sqlite import open_store
from tests.store.driving import Driver, draft


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path):
    made = MemoryStore() if request.param == "memory" else open_store(tmp_path / "queue.db")
    yield made
    made.close()


@pytest.fixture
def drive(store):
    return Driver(store)


@pytest.fixture
def numbered(drive):
    """Ten jobs j0 … j9 in the default queue."""
    return drive.add(*(draft(f"j{index}") for index in range(10)))
