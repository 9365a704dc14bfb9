"""What holds for all tests: where QUEUECTL_TESTS_NO_SKIPS is set, a test that is skipped has failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import cgroup_place, disks

NO_SKIPS = "QUEUECTL_TESTS_NO_SKIPS"


@pytest.fixture(scope="session")
def cgroups_here() -> Iterator[Callable[[], list[str]]]:
    """What lists the cgroups that these tests have made: they live in one of their own."""
    with cgroup_place.enclosed() as listed:
        yield listed


@pytest.fixture(autouse=True)
def leave_no_cgroup(cgroups_here: Callable[[], list[str]]) -> Iterator[None]:
    """A test after which a cgroup is left has failed."""
    before = set(cgroups_here())
    yield
    if left := [one for one in cgroups_here() if one not in before]:
        for one in left:
            cgroup_place.end(one)
        pytest.fail(f"these cgroups are left: {left}")


@pytest.fixture
def mount_small() -> Iterator[Callable[[Path, str], Path]]:
    """Mount a file system of a size such as `1m` somewhere, for the time of the test."""
    if why := disks.hindrance():
        pytest.skip(why)
    with ExitStack() as mounts:
        yield lambda place, size: mounts.enter_context(disks.small_disk(place, size))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    # An expected failure is reported as skipped too; that one is meant.
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get(NO_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and {NO_SKIPS} is set: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and os.environ.get(NO_SKIPS):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, and {NO_SKIPS} is set: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
