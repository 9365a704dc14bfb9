"""An alarm on the wall clock: one timer of the kernel, which also rings after a jump of the clock or a suspend."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Final

_CLOCK_REALTIME: Final = 0
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_TIMER_ABSTIME: Final = 1
# Makes the timer readable (with ECANCELED) when somebody sets the clock.
_TFD_TIMER_CANCEL_ON_SET: Final = 2


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


# Far enough to be never, near enough for every kernel.
_NEVER: Final = 4_000_000_000.0


class Alarm:
    """Calls back once when the wall clock reaches a time, and whenever the clock was set.

    `os.timerfd_create` came with Python 3.13; this is the same by ctypes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        """`ring` is called on the loop; it decides what is due and sets the alarm again."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._loop = loop
        self._ring = ring
        self._when: float | None = None
        self._fd = self._libc.timerfd_create(_CLOCK_REALTIME, _TFD_CLOEXEC | _TFD_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._readable)
        self._arm(_NEVER)

    @property
    def when(self) -> float | None:
        """When it rings, in seconds since the epoch."""
        return self._when

    def set(self, when: float | None) -> None:
        """Ring at `when` (at once if that is past), or not at all."""
        if when == self._when:
            return
        self._when = when
        self._arm(_NEVER if when is None else min(when, _NEVER))

    def no_later_than(self, when: float) -> None:
        """Ring at `when`, unless it rings before anyway."""
        if self._when is None or when < self._when:
            self.set(when)

    def close(self) -> None:
        """Ring no more, whatever is set."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _arm(self, when: float) -> None:
        if self._fd < 0:
            return
        # A value of zero would disarm the timer; the past rings at once.
        nanoseconds = max(1, int(when * 1e9))
        spec = _Itimerspec(value=_Timespec(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if self._libc.timerfd_settime(self._fd, flags, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _readable(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        except OSError:
            # ECANCELED: the clock was set. The timer has to be armed again, and what is due may have changed.
            self._arm(self._when or _NEVER)
            self._ring()
            return
        # It has rung, and rings no more, even if the clock was set back at this very moment.
        self._when = None
        self._ring()
