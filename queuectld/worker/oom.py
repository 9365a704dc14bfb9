"""Whether it was the kernel that killed a process for want of memory: to its parent that looks like a kill -9."""

from __future__ import annotations

import os
from typing import Final

# What the initial namespace of processes is called, whose numbers are those of the kernel's log.
_INITIAL: Final = "pid:[4026531836]"
_KILLED: Final = b"Killed process "
_RECORD: Final = 8192


def kills() -> int | None:
    """Return how many processes of this host the kernel has killed so; None where it does not count them."""
    try:
        with open("/proc/vmstat", "rb", buffering=0) as file:
            _, found, rest = file.read().partition(b"\noom_kill ")
    except OSError:
        return None
    return int(rest.split(None, 1)[0]) if found else None


def killed(pid: int, before: int | None) -> bool:
    """Whether the kernel, and not a person, has killed that process, which was alive when `kills` gave `before`.

    Where its log can be read, it says so. Else a kill of the kernel's at the time of this one is taken for this one.
    """
    now = kills()
    if before is None or now is None or now <= before:
        return False
    named = logged()
    return named is None or pid in named[before - now :]


def logged() -> list[int] | None:
    """Return the processes that the kernel's log names as killed, oldest first; None if it is not for us to read."""
    try:
        if os.readlink("/proc/self/ns/pid") != _INITIAL:
            return None
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _victims(descriptor)
    finally:
        os.close(descriptor)


def _victims(descriptor: int) -> list[int]:
    found: list[int] = []
    while True:
        try:
            record = os.read(descriptor, _RECORD)
        except BlockingIOError:
            return found
        except BrokenPipeError:
            # What was next has been overwritten meanwhile; it goes on with what is there.
            continue
        except OSError:
            return found
        # Anybody who may write to the log could say so; the kernel's own messages have facility 0.
        priority = record.partition(b",")[0]
        _, marked, rest = record.partition(_KILLED)
        if marked and priority.isdigit() and int(priority) < 8 and (number := rest.split(b" ", 1)[0]).isdigit():
            found.append(int(number))
