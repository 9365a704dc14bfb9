"""The alarm on the wall clock: it rings in time, when the clock is set, and not after its end."""

from __future__ import annotations

import asyncio
import errno
import os
import time

import pytest

from queuectld.host import alarm
from queuectld.host.alarm import Alarm


@pytest.fixture
def play():
    """Run a scenario with an alarm and an event that its ringing sets."""

    def run(scenario):
        async def whole():
            rung = asyncio.Event()
            one = Alarm(asyncio.get_running_loop(), rung.set)
            try:
                await asyncio.wait_for(scenario(one, rung), 10)
            finally:
                one.close()

        asyncio.run(whole())

    return run


def test_it_rings_when_the_time_has_come_and_not_before(play):
    async def scenario(one, rung):
        due = time.time() + 0.05
        one.set(due)

        await rung.wait()

        assert time.time() >= due
        assert one.when is None

    play(scenario)


def test_what_is_past_rings_at_once(play):
    async def scenario(one, rung):
        one.set(1.0)

        await rung.wait()

    play(scenario)


def test_it_keeps_the_earlier_of_two_times(play):
    async def scenario(one, _rung):
        one.set(time.time() + 100)
        one.no_later_than(later := time.time() + 50)
        one.no_later_than(time.time() + 200)

        assert one.when == later

    play(scenario)


def test_it_can_be_set_to_the_same_time_again_after_it_rang(play):
    async def scenario(one, rung):
        due = time.time() + 0.02
        one.set(due)
        await rung.wait()
        rung.clear()

        # As somebody does for whom the clock was set back meanwhile.
        one.no_later_than(due)

        await rung.wait()

    play(scenario)


def test_it_rings_when_somebody_sets_the_clock_and_still_keeps_its_time(play, monkeypatch):
    async def scenario(one, rung):
        real, due = os.read, time.time() + 0.2

        def cancelled(descriptor, size):
            monkeypatch.setattr(alarm.os, "read", real)
            raise OSError(errno.ECANCELED, "the clock was set")

        one.set(time.time() + 0.02)
        monkeypatch.setattr(alarm.os, "read", cancelled)
        await rung.wait()
        rung.clear()
        one.set(due)

        await rung.wait()

        assert time.time() >= due

    play(scenario)


def test_a_closed_alarm_touches_nothing_that_has_its_number_now(play):
    async def scenario(one, _rung):
        one.close()
        reader, writer = os.pipe()
        try:
            one.set(time.time() + 0.01)
            one.close()

            assert os.fstat(reader)
        finally:
            os.close(reader)
            os.close(writer)

    play(scenario)
