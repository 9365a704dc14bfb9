"""What becomes of memory that was needed for a while."""

from __future__ import annotations

import ctypes
from typing import Final

# Of <malloc.h>: how much free memory the C library keeps at the end of its heap, and which blocks stand outside of it,
# and are given back one by one.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# Reading from a socket takes a block of 256 KiB each time, which must cost no call to the system.
_BLOCK: Final = 512 * 1024
_TRIM: Final = 4 * 1024 * 1024


def give_memory_back() -> None:
    """Have the C library return what is freed to the system, also after large blocks.

    By itself glibc keeps more once large blocks have come and gone, see mallopt(3): after a minute of large requests
    that were 80 MiB. Setting a threshold ends that. Elsewhere nothing is done.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, _BLOCK)
        adjust(_M_TRIM_THRESHOLD, _TRIM)
