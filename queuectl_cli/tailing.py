"""Output and events on their way to the terminal: as they were, each once, however often the connection is lost."""

from __future__ import annotations

import os
from binascii import a2b_base64
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from queuectl_cli.client import Client
from queuectl_cli.options import App
from queuectl_cli.reconnect import resumed, stopped

Event = Mapping[str, Any]


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


class Places:
    """Up to where the output of jobs was read, so that it can be read on: each byte once."""

    def __init__(self, usual: Mapping[str, Any]) -> None:
        """`usual` are the fields of the first request."""
        self._usual = usual
        self._read: dict[str, tuple[int, int]] = {}

    def passed(self, event: Event, size: int) -> None:
        """Note a piece of so many bytes that has been written, or a mark."""
        self._read[event["job"]] = (event["attempt"], event["offset"] + size)

    def request(self) -> dict[str, Any]:
        """Return the fields of a request for all that was not read yet."""
        if not self._usual.get("follow"):
            return dict(self._usual)
        places = [{"job": job, "attempt": attempt, "offset": offset} for job, (attempt, offset) in self._read.items()]
        return {**self._usual, "jobs": self._jobs(), "marks": True, "places": places or None}

    def _jobs(self) -> list[str]:
        """Return the jobs by their whole ids, as far as they are known: what was short enough need not be any more."""
        return [name if name in self._read else self._whole(name) for name in self._usual["jobs"]]

    def _whole(self, name: str) -> str:
        return next((job for job in self._read if job.startswith(name)), name)


def is_mark(event: Event) -> bool:
    """Whether an event tells a place and nothing else."""
    return not {"data", "b64", "missing"} & event.keys()


def missing(event: Event) -> str | None:
    """Say that a part of the output was not kept, or is gone since."""
    if event.get("removed"):
        why = "to make room for newer ones (retention.output)"
        return f"queuectl: {event['missing']:,} bytes of output were removed {why}"
    return f"queuectl: {event['missing']:,} bytes of output are missing here" if event.get("missing") else None


def follow_events(app: App, client: Client, start: int, *, limit: int | None = None, **fields: Any) -> Iterator[Event]:
    """Yield events from a number on, and those to come: across restarts of the daemon, each once. Raises `CliError`."""
    left = limit

    def following(client: Client) -> Generator[Event, None, None]:
        nonlocal start, left
        stream = client.stream("events", follow=True, start=start, limit=left, **fields)
        while left != 0:
            try:
                event = next(stream)
            except StopIteration as end:
                if end.value.get("stopped"):
                    raise stopped() from None
                return
            start = event["number"] + 1
            left = None if left is None else left - 1
            yield event

    return resumed(app, client, following)


def next_event(client: Client) -> int:
    """Return the number that the next event will have."""
    return int(client.request("events")["next"])
