"""What a program hands to the one that takes its place in the same process: descriptors, and what only memory knew."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final

import msgspec

from queuectld.config import Sources
from queuectld.errors import BadConfigError

VARIABLE: Final = "QUEUECTL_HANDOVER"
# The kernel takes 128 KiB for one variable, which is a few thousand workers.
_LONGEST: Final = 100_000
_FILE: Final = "file "
# The first descriptor that a service manager passes.
_FIRST_PASSED: Final = 3


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A socket that listens. `where` is the path or the address that was configured for it."""

    descriptor: int
    where: str
    # Of the file, where it is a Unix socket.
    inode: int = 0


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """Read by a newer program than the one that wrote it: a new field needs a default, and none ever changes."""

    # Held all the time, so that no other daemon slips in.
    lock: int
    unix: Listener | None = None
    tcp: Listener | None = None
    # Children that did not flee to us from a dead worker, as (pid, start in clock ticks since boot).
    family: tuple[tuple[int, int], ...] = ()
    # So many workers are kept, whether jobs need them or not.
    asked: int = 0
    # The configuration in force, for the case that its files have been spoilt since the check.
    config: Sources | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that have to stay open."""
        return (self.lock, *(listener.descriptor for listener in (self.unix, self.tcp) if listener is not None))

    def encode(self) -> str:
        """Return what `take` reads: all of it, or, where that is too long, the descriptor of a file that has it."""
        data = msgspec.json.encode(self)
        if len(data) <= _LONGEST:
            return data.decode()
        file = os.memfd_create("handover", 0)
        os.write(file, data)
        return f"{_FILE}{file}"


def take(environ: MutableMapping[str, str]) -> Handover | None:
    """Take what was handed over out of the environment, if this process was another program before.

    From now on no program that is started inherits the descriptors, nor those that a service manager passed. Raises
    `BadConfigError`.
    """
    for descriptor in passed_descriptors(environ):
        with suppress(OSError):
            os.set_inheritable(descriptor, False)
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        handover = msgspec.json.decode(_contents(text), type=Handover)
        for descriptor in handover.descriptors:
            os.set_inheritable(descriptor, False)
    except (msgspec.MsgspecError, OSError, OverflowError, ValueError) as error:
        raise BadConfigError(
            f"{VARIABLE} is not what one daemon hands to the next ({error}); it is set by `queuectl daemon reexec` "
            "alone: unset it and start again"
        ) from None
    return handover


def _contents(text: str) -> str | bytes:
    if not text.startswith(_FILE):
        return text
    with open(int(text.removeprefix(_FILE)), "rb") as file:  # noqa: PTH123  (of a descriptor)
        file.seek(0)
        return file.read()


def passed_descriptors(environ: Mapping[str, str]) -> range:
    """Return the descriptors that the service manager passed to this process."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return range(0)
    return range(_FIRST_PASSED, _FIRST_PASSED + min(int(count), 64))
