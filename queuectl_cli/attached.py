"""A job that a terminal waits for: its output comes here, and signals from here go to it."""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import click

from queuectl_cli.client import Client, Message, settle
from queuectl_cli.errors import CliError, LostError, RefusedError, UnreachableError
from queuectl_cli.options import App
from queuectl_cli.outcome import GOES_ON
from queuectl_cli.render import exit_of, signal_name
from queuectl_cli.tailing import Event, Place, come_back, content, interrupted, missing, write_all

_DESCRIPTORS = {"stdout": 1, "stderr": 2}


class Signals:
    """Signals become bytes in a pipe: handlers only queue."""

    def __init__(self, *numbers: int) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Return the end to wait on."""
        return self._reader

    def take(self) -> list[int]:
        """Return those that have come."""
        try:
            return list(os.read(self._reader, 64))
        except BlockingIOError:
            return []


class Attached:
    """One job, followed to its end across restarts of the daemon."""

    def __init__(
        self, app: App, client: Client, job: str, signals: Signals, *, lend: str | None, until: float | None
    ) -> None:
        self._app = app
        self._client = client
        self._job = job
        self._signals = signals
        self._usual: dict[str, Any] = {"jobs": [job], "attempt": "all", "follow": True, "lend": lend}
        self._until = until
        self._place = Place()
        self._logs = self._events = 0
        # Requests that pass a signal on, by their numbers; a cancel has 0.
        self._passing: dict[int, int] = {}
        self._interrupts = 0
        self._deaf: set[int] = set()

    def follow(self, *, tell_attempts: bool) -> Message:
        """Copy output until the job is over; return how it ended. Raises `CliError`, `click.exceptions.Exit`."""
        while True:
            try:
                return self._once(tell_attempts=tell_attempts)
            except (LostError, RefusedError) as error:
                if not interrupted(error):
                    raise
                self._client = come_back(self._app, self._client, self._still_there(error), self._pause)

    def _once(self, *, tell_attempts: bool) -> Message:
        self._passing.clear()
        self._logs = self._client.send("logs", **self._place.request(self._usual))
        self._events = self._client.send("events", job=self._job, follow=True) if tell_attempts else 0
        while True:
            message = self._next()
            if message.get("id") == self._logs and "event" in message:
                self._write(message["event"])
            elif message.get("id") == self._logs:
                return self._end(settle(message))
            elif "event" in message:
                self._tell(message["event"])
            else:
                self._answered(message)

    def _end(self, answer: Message) -> Message:
        if answer.get("stopped"):
            raise LostError("the daemon ended the stream", code="connection_lost")
        finished: Message = answer["jobs"][0]
        if finished["state"] == "dead":
            # Its failure has been delivered to a person: it need not lie in the dead letter queue as news.
            with suppress(CliError):
                self._client.request("wait", select={"ids": [self._job]}, mark_seen=True, patience=5.0)
        return finished

    def _next(self) -> Message:
        while (message := self._client.take()) is None:
            left = None if self._until is None else self._until - time.monotonic()
            if left is not None and left <= 0:
                self._detach(f"queuectl: job {self._job} goes on", GOES_ON)
            ready, _, _ = select.select([self._client.fileno(), self._signals.fileno()], [], [], left)
            if self._signals.fileno() in ready:
                for number in self._signals.take():
                    self._pass(number)
            if self._client.fileno() in ready:
                self._client.fill()
        return message

    def _write(self, event: Event) -> None:
        if note := missing(event):
            self._app.say(note)
        data = content(event)
        descriptor = _DESCRIPTORS.get(event["stream"], 1)
        if descriptor not in self._deaf:
            try:
                write_all(descriptor, data)
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                # As in a pipeline of the shell: the command whose reader is gone gets SIGPIPE.
                self._deaf.add(descriptor)
                self._request_signal(signal.SIGPIPE)
        self._place.passed(event, len(data))

    def _tell(self, event: Event) -> None:
        attempt = event.get("attempt")
        if event.get("state") == "processing" and (attempt or 0) > 1:
            self._app.say(f"queuectl: attempt {attempt} of job {self._job}")
        elif event.get("state") == "failed" and event.get("was") == "processing":
            how = exit_of(event)
            self._app.say(f"queuectl: attempt {attempt} failed ({how or event.get('reason')}){_due(event)}")

    def _pass(self, number: int) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
        if self._interrupts >= 3:
            self._detach(f"queuectl: job {self._job} goes on", 130)
        if number == signal.SIGINT and self._interrupts == 2:
            self._app.say(f"queuectl: cancelling job {self._job}; once more leaves it")
            self._cancel()
        else:
            self._request_signal(number)

    def _request_signal(self, number: int) -> None:
        self._passing[self._client.send("signal", job=self._job, number=int(number))] = number

    def _cancel(self) -> None:
        reason = "interrupted at the terminal"
        self._passing[self._client.send("cancel", select={"ids": [self._job]}, reason=reason, no_wait=True)] = 0

    def _answered(self, message: Message) -> None:
        number = self._passing.pop(message.get("id", 0), None)
        if "error" not in message or number is None:
            return
        if number == 0:
            self._app.say(f"queuectl: cannot cancel job {self._job}: {message['error']['message']}")
        elif number in {signal.SIGINT, signal.SIGTERM}:
            # Nothing runs that could take the signal: the job itself is meant.
            self._app.say(f"queuectl: {signal_name(number)} while the job does not run: cancelling it")
            self._cancel()

    def _pause(self, seconds: float) -> None:
        select.select([self._signals.fileno()], [], [], seconds)
        if self._signals.take():
            self._detach(f"queuectl: queuectld is away; job {self._job} is in its queue", 130)
        if self._until is not None and time.monotonic() > self._until:
            self._detach(f"queuectl: queuectld is away; job {self._job} is in its queue", GOES_ON)

    def _detach(self, words: str, status: int) -> None:
        self._app.say(words)
        raise click.exceptions.Exit(status)

    def _still_there(self, error: CliError) -> UnreachableError:
        return UnreachableError(
            error.message,
            f"The job is in its queue:  queuectl wait {self._job}",
            code="connection_lost",
        )


def _due(event: Event) -> str:
    if not event.get("run_at"):
        return ""
    from queuectl_cli.times import distance, epoch  # noqa: PLC0415  (only for jobs that fail)

    return f"; the next {distance(epoch(event['run_at']) - time.time())}"
