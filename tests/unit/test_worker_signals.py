"""What a child does about signals before it is somebody else's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from queuectld.worker import signals


def in_a_child(act: Callable[[], None]) -> dict[str, int]:
    """Return the masks of signals of a forked child that has done that."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            act()
            status = Path("/proc/self/status").read_text()
            os.write(writer, "\n".join(line for line in status.splitlines() if line.startswith("Sig")).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        found = dict(line.split(":\t") for line in said.read().splitlines() if ":\t" in line)
    os.waitpid(pid, 0)
    return {name: int(mask, 16) for name, mask in found.items() if not name.startswith("SigQ")}


def bit(number: int) -> int:
    return 1 << (number - 1)


def held_for_a_moment() -> None:
    signals.block()
    signals.unblock()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_all_signals_can_be_held_back_and_let_through_again() -> None:
    assert in_a_child(signals.block)["SigBlk"] & bit(signal.SIGSEGV)
    assert in_a_child(signals.block)["SigBlk"] & bit(signal.SIGTERM)
    assert in_a_child(held_for_a_moment)["SigBlk"] == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_what_python_ignores_or_handles_is_as_in_any_program() -> None:
    told = in_a_child(lambda: signals.make_default((signal.SIGPIPE, signal.SIGINT)))

    assert not told["SigIgn"] & bit(signal.SIGPIPE)
    assert not told["SigCgt"] & bit(signal.SIGINT)
