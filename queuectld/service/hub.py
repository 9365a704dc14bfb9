"""Tells followers what was committed. Nothing is kept: who falls behind reads on from the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from queuectld.store.base import Entry

Listener = Callable[[Sequence[Entry]], None]


class Hub:
    """Passes committed entries on, in their order, to everybody who listens at that moment."""

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._next = 0

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each batch from now on; return what ends that (calling it twice is harmless)."""
        self._next += 1
        number = self._next
        self._listeners[number] = listener
        return lambda: self._listeners.pop(number, None) and None

    def publish(self, entries: Sequence[Entry]) -> None:
        """Tell everybody. A listener must not raise, and must return at once."""
        for listener in tuple(self._listeners.values()):
            listener(entries)
