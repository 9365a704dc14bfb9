"""Waiting for jobs: the same ones to the end, each told once, however often the daemon goes away and comes back."""

from __future__ import annotations

import math
import select
import time
from typing import Any, Final

import click

from queuectl_cli.client import Client, Message, settle
from queuectl_cli.errors import CliError
from queuectl_cli.options import App
from queuectl_cli.outcome import GOES_ON
from queuectl_cli.progress import Progress
from queuectl_cli.reconnect import come_back, interrupted, stopped
from queuectl_cli.selection import own, pages

# Conditions that hold for a job at one time and not at another.
_MOVING: Final = frozenset({"state", "exit_code", "ended_since", "seen"})
# So many jobs can be named in a request.
_NAMED: Final = 10_000


class Waiting:
    """One wait. `fields` are those of its request; after `until` (of the monotonic clock) it ends with exit code 75."""

    def __init__(self, app: App, fields: dict[str, Any], until: float | None, progress: Progress) -> None:
        self._app = app
        self._fields = fields
        self._until = until
        self._progress = progress
        # Which jobs are meant when it is asked again; None: that cannot be said.
        self._again: dict[str, Any] | None = None
        self._begun = False
        self._told: dict[str, Message] = {}

    def follow(self, client: Client) -> list[Message]:
        """Return how all jobs ended, or as many as are enough. Raises `CliError`, `click.exceptions.Exit`."""
        while True:
            try:
                return self._once(client)
            except CliError as error:
                self._progress.clear()
                if interrupted(error) and self._begun and self._again is None:
                    error.hints = (*error.hints, "So many jobs in a state cannot be told from those that came later.")
                    raise
                client = come_back(self._app, client, error, pause=self._pause)

    def _once(self, client: Client) -> list[Message]:
        if not self._begun:
            self._begin(client)
        elif self._again is not None:
            self._fields["select"] = self._again
        if self._again == {"ids": []}:
            return []
        return self._wait(client)

    def _begin(self, client: Client) -> None:
        which = self._fields["select"] = own(client, self._fields["select"])
        self._progress.total = client.request("count", select=which, patience=None)["total"]
        if _MOVING & which.keys():
            if self._progress.total <= _NAMED:
                self._again = self._fields["select"] = {"ids": [job["id"] for job in pages(client, which)]}
        elif which.get("ids"):
            self._again = which
        else:
            # Jobs that come later are not meant.
            self._again = {**which, "until": min(which.get("until", math.inf), time.time())}
        self._begun = True

    def _wait(self, client: Client) -> list[Message]:
        number = client.send("wait", **self._fields)
        while True:
            message = self._next(client)
            if message.get("id") != number:
                continue
            if "event" in message:
                job = message["event"]
                self._told.setdefault(job["id"], job)
                self._show(f", the last one {job['id']}")
                continue
            answer = settle(message)
            if answer.get("stopped"):
                raise stopped()
            # What was told first is what was waited for; the answer names only so many.
            return list({**{job["id"]: job for job in answer["jobs"]}, **self._told}.values())

    def _next(self, client: Client) -> Message:
        while (message := client.take()) is None:
            # Wakes for the bar, too.
            left = self._left()
            if select.select([client], [], [], 1.0 if left is None else min(left, 1.0))[0]:
                client.fill()
            self._show("")
        return message

    def _show(self, last: str) -> None:
        told = len(self._told)
        self._progress.show(f"{told:,} of {self._progress.total:,} over{last}", told)

    def _left(self) -> float | None:
        if self._until is None:
            return None
        left = self._until - time.monotonic()
        if left <= 0:
            self._progress.clear()
            self._app.say("queuectl: still not over")
            raise click.exceptions.Exit(GOES_ON)
        return left

    def _pause(self, seconds: float) -> None:
        left = self._left()
        time.sleep(seconds if left is None else min(seconds, left))
