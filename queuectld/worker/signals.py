"""Signals in a child that has just been forked, by the C library itself.

What Python makes of their numbers costs such a child 50 page faults, which is a tenth of its start.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterable
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
# As large as the C library's own type.
_Set: Final = ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))
_ALL: Final = _Set()
_NONE: Final = _Set()
_libc.sigfillset(_ALL)
_SET_MASK: Final = int(signal.SIG_SETMASK)


def block() -> None:
    """Let all signals wait that can."""
    _libc.pthread_sigmask(_SET_MASK, _ALL, None)


def unblock() -> None:
    """Let none wait any more."""
    _libc.pthread_sigmask(_SET_MASK, _NONE, None)


def make_default(numbers: Iterable[int]) -> None:
    """Have these do what they do to any program. Python does not notice, so it must not be asked about them."""
    for number in numbers:
        _libc.signal(number, None)
