"""Beats while the daemon gets on: feeds the watchdog of the service manager, and prints the stacks of a hang."""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from queuectld.host.notify import Notifier
from queuectld.host.pulse import Pulse, Signs
from queuectld.protocol.replies import LoopView

log = structlog.get_logger()

# Seconds without a move after which something is called stuck, and without a beat after which the stacks are printed,
# where no service manager says how patient it is.
_PATIENCE: Final = 15.0
_STACKS_AFTER: Final = 10.0
_STDERR: Final = 2


class Watchdog:
    """Has a timer of its own only if a service manager watches; else it beats when the health check comes by."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._interval = None if notifier.watchdog is None else notifier.watchdog / 3
        self._pulse = Pulse(notifier.watchdog or _PATIENCE)
        self._loop = asyncio.get_running_loop()
        self._signs: Callable[[], Signs] | None = None
        self._ending: Callable[[], bool] = lambda: False
        self._timer: asyncio.TimerHandle | None = None

    def start(self, signs: Callable[[], Signs], *, ending: Callable[[], bool]) -> None:
        """Begin; `signs` tells at each beat what has moved, `ending` whether we take our time to end."""
        self._signs, self._ending = signs, ending
        if self._interval is not None:
            self._tick(self._loop.time())

    def stop(self) -> None:
        """Beat no more."""
        self._signs = None
        faulthandler.cancel_dump_traceback_later()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def stuck(self) -> bool:
        """Whether something does not move."""
        return bool(self._pulse.stuck)

    def loop(self) -> LoopView:
        """Return how the loop gets on."""
        pulse = self._pulse
        return LoopView(lag=round(pulse.lag, 3), max_lag=round(pulse.max_lag, 3), stalls=pulse.stalls)

    def problems(self) -> Sequence[str]:
        """Return sentences about what does not get on."""
        return self._pulse.problems(self._loop.time())

    def beat(self, due: float, interval: float) -> None:
        """The health check is there, which was `due` then and comes again after `interval` seconds."""
        if self._interval is None:
            self._beat(due, max(_STACKS_AFTER, 2 * interval))
            self._extend(interval)

    def _tick(self, due: float) -> None:
        if self._interval is not None:
            following = self._loop.time() + self._interval
            self._timer = self._loop.call_at(following, self._tick, following)
            self._beat(due, 2 * self._interval)
            self._extend(self._interval)

    def _beat(self, due: float, stacks_after: float) -> None:
        if self._signs is None:
            return
        # Prints from a thread that needs nothing of Python's, if the next beat does not come. Where the host has no
        # thread left, a hang will go without its picture.
        with suppress(RuntimeError):
            faulthandler.dump_traceback_later(stacks_after, file=_STDERR)
        for what in self._pulse.beat(self._signs(), now=self._loop.time(), due=due):
            log.error("The daemon does not get on", event_name="daemon.stalled", reason=what)
            faulthandler.dump_traceback(file=_STDERR)
        if not self.stuck:
            self._notifier.alive()

    def _extend(self, interval: float) -> None:
        if self._signs is not None and self._ending():
            self._notifier.stopping("ending", 3 * interval)
