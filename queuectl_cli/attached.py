"""A job that a terminal waits for: its output comes here, and signals from here go to it."""

from __future__ import annotations

import errno
import select
import signal
import time

import click

from queuectl_cli.client import Client, Message, settle
from queuectl_cli.errors import CliError
from queuectl_cli.options import App
from queuectl_cli.outcome import GOES_ON
from queuectl_cli.reconnect import come_back, interrupted, stopped
from queuectl_cli.render import exit_of, signal_name
from queuectl_cli.signals import Signals
from queuectl_cli.tailing import Event, Places, content, missing, write_all

_DESCRIPTORS = {"stdout": 1, "stderr": 2}


class Attached:
    """One job, followed to its end across restarts of the daemon."""

    def __init__(
        self, app: App, client: Client, job: str, signals: Signals, *, lend: str | None, until: float | None
    ) -> None:
        self._app = app
        self._client = client
        self._job = job
        self._signals = signals
        self._until = until
        self._places = Places({"jobs": [job], "attempt": "all", "follow": True, "lend": lend})
        # The number of the request for output.
        self._logs = 0
        # The number of the next event to tell.
        self._next_event = 0
        # Requests that pass a signal on, by their numbers, and signals that wait for the daemon; a cancel has 0.
        self._passing: dict[int, int] = {}
        self._owed: list[int] = []
        self._away = False
        self._interrupts = 0
        self._deaf: set[int] = set()
        self._finished: Message | None = None

    def follow(self, *, tell_attempts: bool) -> Message:
        """Copy output until the job is over; return how it ended. Raises `CliError`, `click.exceptions.Exit`."""
        while True:
            try:
                return self._once(tell_attempts=tell_attempts)
            except CliError as error:
                if not interrupted(error):
                    raise
                lost = error
            self._leave_word()
            try:
                advice = (f"The job stays in its queue:  queuectl wait {self._job}",)
                self._client = come_back(
                    self._app, self._client, lost, pause=self._pause, advice=advice, start=self._finished is None
                )
            except CliError:
                if self._finished is None:
                    raise
                return self._finished
            self._away = False

    def _once(self, *, tell_attempts: bool) -> Message:
        if self._finished is not None:
            return self._seen(self._finished)
        self._logs = self._client.send("logs", **self._places.request())
        if tell_attempts:
            self._client.send("events", job=self._job, follow=True, start=self._next_event)
        self._pay()
        while True:
            message = self._next()
            if message.get("id") == self._logs and "event" in message:
                self._write(message["event"])
            elif message.get("id") == self._logs:
                return self._end(settle(message))
            elif "event" in message:
                self._next_event = message["event"]["number"] + 1
                self._tell(message["event"])
            else:
                self._answered(message)

    def _end(self, answer: Message) -> Message:
        if answer.get("stopped"):
            raise stopped()
        finished: Message = answer["jobs"][0]
        self._finished = finished
        return self._seen(finished)

    def _seen(self, finished: Message) -> Message:
        """Tell that a failure has been delivered to a person: it need not lie in the dead letter queue as news."""
        if finished["state"] == "dead":
            try:
                self._client.request("wait", select={"ids": [self._job]}, mark_seen=True, patience=5.0)
            except CliError as error:
                if interrupted(error):
                    raise
        return finished

    def _next(self) -> Message:
        while (message := self._client.take()) is None:
            if self._client in self._ready(None, self._client):
                self._client.fill()
        return message

    def _ready(self, seconds: float | None, *sources: Client) -> list[Client]:
        """Wait for news or signals, for at most so many seconds and at most as long as was asked for."""
        left = None if self._until is None else self._until - time.monotonic()
        if left is not None and left <= 0:
            self._detach(f"queuectl: {self._where()}", GOES_ON)
        bounds = [bound for bound in (seconds, left) if bound is not None]
        watched: list[Client | Signals] = [*sources, self._signals]
        ready, _, _ = select.select(watched, [], [], min(bounds, default=None))
        if self._signals in ready:
            for number in self._signals.take():
                self._pass(number)
        return [source for source in sources if source in ready]

    def _pause(self, seconds: float) -> None:
        """Wait for the daemon to come back; signals are kept for it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._ready(left)

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
                self._ask(signal.SIGPIPE)
        self._places.passed(event, len(data))

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
        if self._interrupts >= 3 or self._finished is not None:
            self._detach(f"queuectl: {self._where()}", 130)
        if number == signal.SIGINT and self._interrupts == 2:
            self._app.say(f"queuectl: cancelling job {self._job}{self._later()}; once more leaves it")
            self._ask(0)
            return
        self._ask(number)

    def _leave_word(self) -> None:
        """The daemon is away: what it has not answered has not arrived."""
        self._away = True
        self._owed[:0] = self._passing.values()
        self._passing.clear()
        for number in self._owed:
            self._promise(number)

    def _promise(self, number: int) -> None:
        if number:
            self._app.say(f"queuectl: {signal_name(number)} goes to job {self._job}{self._later()}")

    def _later(self) -> str:
        return ", as soon as queuectld is back" if self._away else ""

    def _where(self) -> str:
        if self._away:
            return f"queuectld is away; job {self._job} stays in its queue"
        return f"job {self._job} goes on"

    def _ask(self, number: int) -> None:
        """Ask for a signal, or with 0 for the end of the job; as soon as there is somebody to ask."""
        self._owed.append(int(number))
        if self._away:
            self._promise(number)
        else:
            self._pay()

    def _pay(self) -> None:
        while self._owed:
            number = self._owed[0]
            if number:
                request = self._client.send("signal", job=self._job, number=number)
            else:
                reason = "interrupted at the terminal"
                request = self._client.send("cancel", select={"ids": [self._job]}, reason=reason, no_wait=True)
            self._passing[request] = self._owed.pop(0)

    def _answered(self, message: Message) -> None:
        number = self._passing.pop(message.get("id", 0), None)
        if "error" not in message or number is None:
            return
        if number == 0:
            self._app.say(f"queuectl: cannot cancel job {self._job}: {message['error']['message']}")
        elif number in {signal.SIGINT, signal.SIGTERM}:
            # Nothing runs that could take the signal: the job itself is meant.
            self._app.say(f"queuectl: {signal_name(number)} while the job does not run: cancelling it")
            self._ask(0)

    def _detach(self, words: str, status: int) -> None:
        if self._finished is not None:
            # How it ended is known; that it was seen need not be waited for.
            raise stopped()
        self._app.say(words)
        raise click.exceptions.Exit(status)


def _due(event: Event) -> str:
    if not event.get("run_at"):
        return ""
    from queuectl_cli.times import distance, epoch  # noqa: PLC0415  (only for jobs that fail)

    return f"; the next {distance(epoch(event['run_at']) - time.time())}"
