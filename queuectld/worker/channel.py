"""The worker's end of the channel, as a pure state machine: facts and messages in, actions out.

It owns no socket, no process and no clock; `now` is monotonic time. The loop of the worker feeds it and does what it
says, and so does the simulation. What it holds to are the rules of the worker channel, in short: a lost connection is
not a death; an outcome is kept until it is recorded, and nothing is run before; a worker never ends with an outcome
that is neither recorded nor on disk; a token that is not the present one changes nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple, assert_never

from queuectld.protocol.worker_messages import (
    CHANNEL_VERSION,
    Beat,
    Ended,
    Exit,
    Follow,
    FromWorker,
    Hello,
    Holding,
    Idle,
    Outcome,
    OutputGrown,
    Reason,
    Recorded,
    Run,
    Running,
    Signal,
    Stale,
    Started,
    Stop,
    ToWorker,
    Welcome,
)
from queuectld.worker.actions import (
    Action,
    Connect,
    Decline,
    Disconnect,
    EndTree,
    PassSignal,
    Quit,
    Save,
    Send,
    Spawn,
)

BEAT_INTERVAL: Final = 5.0
# Between two tries to connect: the first, and what it grows to, by half each time.
FIRST_RETRY: Final = 0.05
LAST_RETRY: Final = 1.0
# Between two tries to store an outcome, on a full disk say.
SAVE_RETRY: Final = 1.0
# Followers hear of growing output at most this often.
GROWTH_INTERVAL: Final = 0.02


class Identity(NamedTuple):
    """Who this worker is; `store` is the store that its attempts belong to."""

    store: str
    name: str
    pid: int
    pid_start: int


class Contact(Enum):
    """The state of the connection."""

    DOWN = "down"
    TRYING = "trying"
    UP = "up"
    # Never again: the daemon speaks another language, or we are leaving.
    CLOSED = "closed"


class _Attempt:
    """What is run, or was and is not yet recorded."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.pid: int | None = None
        self.pid_start: int | None = None
        self.stopping = False
        # Nobody wants its outcome.
        self.dropped = False
        self.outcome: Outcome | None = None
        self.saved = False
        self.followed = False
        self.seen = 0
        self.told = 0
        self.told_at = float("-inf")


class Channel:
    """One worker. Call a method with what happened, then do what it returns, in order."""

    def __init__(self, identity: Identity, orphan_timeout: float, now: float) -> None:
        self._identity = identity
        self._orphan_timeout = orphan_timeout
        self._contact = Contact.DOWN
        self._connections = 0
        self._away_since = now
        self._retry_at = now
        self._retry_delay = FIRST_RETRY
        self._beat_at = float("inf")
        self._save_at = float("inf")
        self._attempt: _Attempt | None = None
        self._last_token = -1
        self._leaving = False
        self._quit = False

    # Facts.

    def connected(self, now: float) -> list[Action]:
        """Note that the connection stands."""
        self._contact = Contact.UP
        self._connections += 1
        self._beat_at = now + BEAT_INTERVAL
        who = self._identity
        hello = Hello(
            protocol=CHANNEL_VERSION,
            store=who.store,
            name=who.name,
            pid=who.pid,
            pid_start=who.pid_start,
            state=self._state(),
            connection=self._connections,
        )
        return [Send(hello)]

    def lost(self, now: float) -> list[Action]:
        """Note that there is no connection, and that everything that came over the last one has been handed in."""
        if self._contact is Contact.UP:
            self._away_since = now
        if self._contact is not Contact.CLOSED:
            self._contact = Contact.DOWN
            self._retry_at = now + self._retry_delay
            self._retry_delay = min(self._retry_delay * 1.5, LAST_RETRY)
        if self._attempt:
            self._attempt.followed = False
        return self._settle()

    def received(self, message: ToWorker, now: float) -> list[Action]:
        """Take what the daemon said."""
        match message:
            case Welcome():
                return self._welcomed(message)
            case Run():
                return self._run(message, now)
            case Recorded():
                return self._recorded(message, now)
            case Stale():
                return self._stale(message.token)
            case Exit():
                self._leaving = True
                return self._settle()
            case Stop() | Signal() | Follow():
                return self._about_the_command(message, now)
            case _:
                assert_never(message)

    def started(self, pid: int, pid_start: int) -> list[Action]:
        """Note that the command runs."""
        attempt = self._present()
        attempt.pid, attempt.pid_start = pid, pid_start
        return self._tell(Started(attempt.token, pid, pid_start))

    def grown(self, size: int, now: float) -> list[Action]:
        """Note how many bytes of output have been seen."""
        attempt = self._present()
        attempt.seen = size
        return self._growth(attempt, now)

    @property
    def last_token(self) -> int:
        """Which attempt is run, or was run last."""
        return self._last_token

    def ended(self, outcome: Outcome, *, last: bool = False) -> list[Action]:
        """Note that the command is over and nothing of its tree is left, unless it is kept; or that it never ran.

        `last`: the worker is not to run any more, and ends once this is recorded.
        """
        attempt = self._present()
        self._leaving = self._leaving or last
        if attempt.dropped:
            self._attempt = None
            return [*self._tell(Beat(None)), *self._settle()]
        attempt.outcome = outcome
        rest = [OutputGrown(attempt.token, attempt.seen)] if attempt.followed and attempt.seen > attempt.told else []
        return [*self._tell(*rest, Ended(attempt.token, outcome, last)), *self._settle()]

    def saved(self, token: int, now: float, *, done: bool) -> list[Action]:
        """Note that the outcome is on disk, or could not be stored."""
        attempt = self._attempt
        if attempt and attempt.token == token and attempt.outcome:
            attempt.saved = done
            self._save_at = float("inf") if done else now + SAVE_RETRY
        return self._settle()

    def terminate(self) -> list[Action]:
        """Note that somebody asks the worker to end: after its attempt, that is."""
        self._leaving = True
        return self._settle()

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        if self._contact is Contact.DOWN and now >= self._retry_at and not self._quit:
            self._contact = Contact.TRYING
            actions.append(Connect())
        if now >= self._beat_at and self._contact is Contact.UP:
            self._beat_at = now + BEAT_INTERVAL
            actions.append(Send(Beat(self._attempt.token if self._attempt else None)))
        if self._attempt:
            actions += self._growth(self._attempt, now)
        if now >= self._save_at:
            self._save_at = float("inf")
            actions += self._settle()
        if self._orphaned(now):
            self._leaving = True
            actions += self._settle()
        return actions

    def due(self) -> float:
        """When `tick` has something to do; infinity if that depends on other things than time."""
        due = self._save_at
        if self._contact is Contact.UP:
            due = min(due, self._beat_at)
        elif self._contact is Contact.DOWN:
            due = min(due, self._retry_at)
        if self._contact in {Contact.DOWN, Contact.TRYING} and self._safe():
            due = min(due, self._away_since + self._orphan_timeout)
        attempt = self._attempt
        if attempt and attempt.followed and not attempt.outcome and attempt.seen > attempt.told:
            due = min(due, attempt.told_at + GROWTH_INTERVAL)
        return due

    # Messages.

    def _welcomed(self, welcome: Welcome) -> list[Action]:
        self._retry_delay = FIRST_RETRY
        if welcome.store != self._identity.store:
            # Our attempt belongs to a store that is no longer there.
            self._leaving = True
            return self._stale(self._attempt.token) if self._attempt else self._settle()
        if welcome.protocol != CHANNEL_VERSION:
            # It waits for our outcome file instead.
            self._leaving = True
            return [*self._close(), *self._settle()]
        return []

    def _run(self, run: Run, now: float) -> list[Action]:
        if self._attempt and self._attempt.token == run.token:
            return []
        if self._attempt or run.token <= self._last_token:
            # What it believes of us is wrong. The next hello puts that right.
            return [Disconnect(), *self.lost(now)]
        self._attempt = _Attempt(run.token)
        self._last_token = run.token
        if self._leaving:
            # Not to be run any more, nor to be taken for lost: the file says that it never began.
            return [*self._close(), Decline(run.token)]
        return [Spawn(run.token, run.spec)]

    def _recorded(self, recorded: Recorded, now: float) -> list[Action]:
        if self._attempt and self._attempt.outcome and self._attempt.token == recorded.token:
            self._forget()
        if recorded.run:
            return self._run(recorded.run, now)
        return self._settle()

    def _stale(self, token: int) -> list[Action]:
        attempt = self._attempt
        if attempt is None or attempt.token != token:
            return []
        if attempt.outcome:
            self._forget()
            return self._settle()
        attempt.dropped = attempt.stopping = True
        return [EndTree(Reason.LOST, 0.0, 0.0)]

    def _about_the_command(self, message: Stop | Signal | Follow, now: float) -> list[Action]:
        attempt = self._attempt
        if attempt is None or attempt.token != message.token or attempt.outcome:
            return []
        match message:
            case Stop():
                attempt.stopping = True
                return [EndTree(message.reason, message.grace, message.kill_after)]
            case Signal():
                return [PassSignal(message.number)]
            case Follow():
                attempt.followed = message.on
                attempt.told = 0
                return self._growth(attempt, now)
            case _:
                assert_never(message)

    # Inside.

    def _present(self) -> _Attempt:
        if self._attempt is None or self._attempt.outcome:
            raise AssertionError("a command that nobody asked for")
        return self._attempt

    def _state(self) -> Idle | Running | Holding:
        attempt = self._attempt
        if attempt is None:
            return Idle()
        if attempt.outcome:
            return Holding(attempt.token, attempt.outcome)
        return Running(attempt.token, attempt.pid, attempt.pid_start, attempt.stopping)

    def _tell(self, *messages: FromWorker) -> list[Action]:
        return [Send(message) for message in messages] if self._contact is Contact.UP else []

    def _growth(self, attempt: _Attempt, now: float) -> list[Action]:
        if not attempt.followed or attempt.outcome or attempt.seen <= attempt.told:
            return []
        if now < attempt.told_at + GROWTH_INTERVAL:
            return []
        attempt.told, attempt.told_at = attempt.seen, now
        return self._tell(OutputGrown(attempt.token, attempt.seen))

    def _forget(self) -> None:
        self._attempt = None
        self._save_at = float("inf")

    def _close(self) -> list[Action]:
        open_ = self._contact is Contact.UP
        self._contact = Contact.CLOSED
        return [Disconnect()] if open_ else []

    def _safe(self) -> bool:
        # Nothing would be lost if the worker ended.
        return self._attempt is None or self._attempt.saved

    def _orphaned(self, now: float) -> bool:
        away = self._contact in {Contact.DOWN, Contact.TRYING} and now >= self._away_since + self._orphan_timeout
        return away and self._safe() and not self._quit

    def _settle(self) -> list[Action]:
        attempt = self._attempt
        if attempt and attempt.outcome and not attempt.saved and self._contact is not Contact.UP:
            return [Save(attempt.token, attempt.outcome)] if self._save_at == float("inf") else []
        # A saved outcome may still be recorded by a living daemon, which tells us so.
        if (
            self._leaving
            and not self._quit
            and (attempt is None or (attempt.saved and self._contact is not Contact.UP))
        ):
            self._quit = True
            return [Quit()]
        return []
