"""What the tests of an installed service have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.installed import Service, nothing_is_left


@pytest.fixture
def service(installed: Service) -> Iterator[Service]:
    """Give the service that a module has installed, as after its installation; see that a test leaves nothing."""
    installed.restore()
    yield installed
    nothing_is_left(installed)
