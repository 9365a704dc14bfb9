"""Output of jobs on its way to the terminal: bytes as they were, and where to go on after a lost connection."""

from __future__ import annotations

import os
import time
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from queuectl_cli.client import Client
from queuectl_cli.errors import CliError, LostError, RefusedError, UnreachableError
from queuectl_cli.options import App

Event = Mapping[str, Any]
# How long a daemon may take to come back.
RESTART_PATIENCE: Final = 300.0
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


def content(event: Event) -> bytes:
    """Return the bytes of a piece of output."""
    if event.get("b64") is not None:
        return a2b_base64(event["b64"])
    return str(event.get("data") or "").encode()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, past every buffer. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Place:
    """Where in a job's output one is."""

    def __init__(self) -> None:
        self.attempt: int | None = None
        self.offset = 0

    def passed(self, event: Event, size: int) -> None:
        """Note a piece that has been written."""
        self.attempt = event["attempt"]
        self.offset = event["offset"] + size

    def request(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a request for what comes after it; `usual` if nothing has come."""
        if self.attempt is None:
            return dict(usual)
        rest = {name: value for name, value in usual.items() if name not in {"lines", "since"}}
        return {**rest, "attempt": self.attempt, "offset": self.offset}


def missing(event: Event) -> str | None:
    """Say that a part of the output was not kept."""
    return f"queuectl: {event['missing']:,} bytes of output are missing here" if event.get("missing") else None


def interrupted(error: CliError) -> bool:
    """Whether an error means that the daemon is being restarted, so that one waits for it."""
    return isinstance(error, LostError) or (isinstance(error, RefusedError) and error.code == "draining")


def come_back(app: App, client: Client, lost: CliError, pause: Callable[[float], None] = time.sleep) -> Client:
    """Connect again as soon as the daemon is back. Raises `lost` if it stays away."""
    client.close()
    target = app.target()
    until = time.monotonic() + RESTART_PATIENCE
    told = False
    for length in _pauses():
        try:
            return app.open(target)
        except UnreachableError as error:
            if error.code == "protocol" or time.monotonic() > until:
                raise lost from None
        if length >= _LONGEST_PAUSE and not told:
            told = True
            app.say(f"queuectl: waiting for queuectld at {target.name} to come back")
        pause(length)
        target = app.target()
    raise lost


def follow_events(app: App, client: Client, start: int, *, limit: int | None = None, **fields: Any) -> Iterator[Event]:
    """Yield events from a number on, and those to come: across restarts of the daemon, each once. Raises `CliError`."""
    left = limit
    while True:
        try:
            for event in _following(client, start=start, limit=left, **fields):
                yield event
                start = event["number"] + 1
                left = None if left is None else left - 1
        except CliError as error:
            if not interrupted(error):
                raise
            client = come_back(app, client, error)
        else:
            return


def _following(client: Client, **fields: Any) -> Iterator[Event]:
    answer = yield from client.stream("events", follow=True, **fields)
    if answer.get("stopped"):
        raise LostError("the daemon ended the stream", code="connection_lost")


def next_event(client: Client) -> int:
    """Return the number that the next event will have."""
    return int(client.request("events")["next"])


def _pauses() -> Iterator[float]:
    length = _FIRST_PAUSE
    while True:
        yield length
        length = min(_LONGEST_PAUSE, length * 1.5)
