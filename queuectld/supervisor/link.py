"""The daemon's end of the channel to one worker: what is known of it, and what to do next.

Pure: facts in (a message came, the connection is gone, the process is dead, a commit is done), actions out. It keeps
the rules of the channel: a lost connection is not a death; nothing is said of a commit before it is one; a worker's
end counts only when its process is gone and its connection has been read to the end.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol.worker_messages import (
    CHANNEL_VERSION,
    OLDEST_WORKER,
    Ended,
    Exit,
    Hello,
    Holding,
    Idle,
    Recorded,
    Run,
    Running,
    Signal,
    Stale,
    Stop,
    ToWorker,
    Welcome,
)
from queuectld.supervisor.actions import (
    Action,
    Available,
    Await,
    GiveBack,
    Refuse,
    Remove,
    Rescue,
    Send,
    Settle,
    Unfile,
)


class Phase(StrEnum):
    """What the daemon believes of a worker."""

    # Started, and not heard of yet.
    STARTING = "starting"
    IDLE = "idle"
    # On offer to the store: a claim for it is on its way.
    CLAIMING = "claiming"
    # A job is its own, durably, and what it takes to run it is being put together.
    PREPARING = "preparing"
    RUNNING = "running"
    # It reported an end, which is not recorded yet.
    SETTLING = "settling"
    # Gone for good: nothing is expected of it any more.
    GONE = "gone"


# As long as one of these lasts, something is on its way to a worker, and its end has to wait for that.
_ON_ITS_WAY: Final = frozenset({Phase.CLAIMING, Phase.PREPARING, Phase.SETTLING})

_NEVER_STARTED: Final = "its command was never started"


class WorkerLink:
    """One worker, from its start, or its adoption, to its end."""

    def __init__(self, store: str, *, token: int | None = None) -> None:
        """`token` names the attempt that the store gives to a worker of an earlier daemon."""
        self._store = store
        self.phase = Phase.STARTING if token is None else Phase.RUNNING
        self.token = token
        self.connected = False
        self.dead = False
        # It ends after what it is doing.
        self.retiring = False
        # What it was told about ending its attempt, to be told again to whoever takes up the connection.
        self._stop: Stop | None = None
        # Signals for its command that came while it was out of touch; as with the kernel's, two of a kind are one.
        self._signals: list[int] = []
        # The attempt before, whose end is on record and is to be confirmed along with the next command, or without one.
        self._unconfirmed: int | None = None
        # The last attempt that it came back with as ended: it may have left the outcome in a file too.
        self._filed: int | None = None

    @property
    def busy(self) -> bool:
        """Whether it has work, or the store may just be giving it some."""
        return self.token is not None or self.phase in _ON_ITS_WAY

    @property
    def stopping(self) -> bool:
        """Whether its attempt was told to end."""
        return self._stop is not None

    # What the worker says.

    def hello(self, hello: Hello) -> list[Action]:
        """A connection was made, for the first time or again."""
        if not OLDEST_WORKER <= hello.protocol <= CHANNEL_VERSION:
            self.connected = False
            return [Refuse()]
        self.connected = True
        if hello.protocol < CHANNEL_VERSION:
            # It would ignore what it does not know of a command.
            self.retiring = True
        welcome: list[Action] = [Send(Welcome(protocol=min(hello.protocol, CHANNEL_VERSION), store=self._store))]
        match hello.state:
            case Idle():
                return welcome + self._hello_idle()
            case Running(token=token):
                return welcome + self._hello_running(hello.store, token)
            case Holding(token=token, outcome=outcome):
                return welcome + self._hello_holding(hello.store, token, outcome)

    def _hello_idle(self) -> list[Action]:
        return [] if self.phase in _ON_ITS_WAY else self._rest()

    def _hello_running(self, store: str, token: int) -> list[Action]:
        if store != self._store or token != self.token or self.phase is Phase.SETTLING:
            # It has to end what it runs first, and nobody waits for that: it is sent away instead of being given work.
            self.retiring = True
            return [Send(Stale(token)), *self._hello_idle()]
        self.phase = Phase.RUNNING
        signals, self._signals = self._signals, []
        return self._say(*((self._stop,) if self._stop else ()), *(Signal(token, number) for number in signals))

    def _hello_holding(self, store: str, token: int, outcome: Outcome) -> list[Action]:
        if store != self._store:
            return [Send(Stale(token)), *self._hello_idle()]
        self._filed = token
        if self.phase in _ON_ITS_WAY:
            # Its first report is on its way to the disk, or there already; the answer goes to this connection, at the
            # latest with the next command.
            self._unconfirmed = token
            return []
        # Also if it is not the attempt that we know of: it may be recorded already, and the store tells.
        self.phase = Phase.SETTLING
        return [Settle(token, outcome)]

    def ended(self, message: Ended) -> list[Action]:
        """Its attempt is over."""
        if message.last:
            self.retiring = True
        if self.phase in _ON_ITS_WAY:
            return []
        self.phase = Phase.SETTLING
        return [Settle(message.token, message.outcome)]

    # What the store says.

    def offered(self) -> None:
        """It is part of a claim that is on its way."""
        self.phase = Phase.CLAIMING

    def unclaimed(self) -> list[Action]:
        """There was no job for it."""
        return self._rest()

    def claimed(self, token: int) -> None:
        """A job is its own now, durably; `ready` or `withdrawn` follows."""
        self.token = token
        self._stop = None
        self._signals = []
        self.phase = Phase.PREPARING

    def settled(self, token: int, *, recorded: bool, claimed: int | None = None) -> list[Action]:
        """The end of an attempt is on record, or turned out to be of the past.

        With `claimed`, the next job is its own too, and `ready` or `withdrawn` follows.
        """
        if token == self.token:
            self.token = None
            self._stop = None
        self._unconfirmed = None
        unfiled = self._unfile(token)
        if claimed is not None:
            self.claimed(claimed)
            self._unconfirmed = token
            return unfiled
        if self.dead and not self.connected:
            # Nobody reads what would be sent.
            return [*unfiled, *self._bury()]
        return [*unfiled, Send(Recorded(token) if recorded else Stale(token)), *self._rest()]

    def ready(self, run: Run) -> list[Action]:
        """Its next command can be sent; unless its end was asked for meanwhile, or it has died."""
        if self._stop is not None:
            return self.withdrawn(self._stop.reason, "it was stopped before it began")
        if self.dead:
            return self.withdrawn(Reason.INTERRUPTED, _NEVER_STARTED)
        self.phase = Phase.RUNNING
        before, self._unconfirmed = self._unconfirmed, None
        if before is None:
            return self._say(run)
        return [*self._unfile(before), *self._say(Recorded(before, run))]

    def withdrawn(self, reason: Reason, why: str) -> list[Action]:
        """The job that is its own, durably, cannot or must not be started."""
        return [*self._confirm(), *self._give_back(reason, why)]

    def given_back(self) -> list[Action]:
        """The attempt that never started is on record as such."""
        self.token = None
        self._stop = None
        return self._rest()

    # What happens to it.

    def stop(self, reason: Reason, *, grace: float, kill_after: float | None) -> list[Action]:
        """End its attempt. A later stop may shorten the time that an earlier one allowed, never lengthen it."""
        if self.token is None or self.phase not in {Phase.RUNNING, Phase.PREPARING}:
            return []
        first = self._stop
        if first is None:
            self._stop = Stop(token=self.token, reason=reason, grace=grace, kill_after=kill_after)
        else:
            # Whoever came first gives the reason, unless a person wants it cancelled: that must not be forgotten.
            why = reason if reason is Reason.CANCELLED else first.reason
            shorter = min((s for s in (first.kill_after, kill_after) if s is not None), default=None)
            self._stop = Stop(token=self.token, reason=why, grace=min(first.grace, grace), kill_after=shorter)
        return [Send(self._stop)] if self.connected and self.phase is Phase.RUNNING else []

    def signal(self, number: int) -> list[Action] | None:
        """Pass a signal on to its command; out of touch, as soon as it is back. None: it runs no command."""
        if self.token is None or self.phase is not Phase.RUNNING:
            return None
        if self.connected:
            return [Send(Signal(self.token, number))]
        if number not in self._signals:
            self._signals.append(number)
        return []

    def retire(self) -> list[Action]:
        """Let it end, after its job if it has one, or is about to get one."""
        self.retiring = True
        return self._say() if self.phase in {Phase.IDLE, Phase.RUNNING} else []

    def disconnected(self) -> list[Action]:
        """Its connection has been read to the end."""
        self.connected = False
        if self.dead:
            return [] if self.phase in _ON_ITS_WAY else self._bury()
        return [Await()]

    def died(self) -> list[Action]:
        """Its process is gone. What it had said is still to be read, if it is connected."""
        self.dead = True
        return [] if self.connected or self.phase in _ON_ITS_WAY else self._bury()

    def _bury(self) -> list[Action]:
        if self.token is not None:
            self.phase = Phase.SETTLING
            return [Rescue(self.token)]
        self.phase = Phase.GONE
        return [Remove()]

    def _rest(self) -> list[Action]:
        if self.dead and not self.connected:
            return self._bury()
        if self.token is not None:
            # Its claim was committed, and its `run` never arrived.
            return self._give_back(Reason.INTERRUPTED, _NEVER_STARTED)
        self.phase = Phase.IDLE
        confirmed = self._confirm()
        if self.retiring:
            return [*confirmed, *self._say()]
        return [*confirmed, Available()] if self.connected and not self.dead else confirmed

    def _confirm(self) -> list[Action]:
        """Let go of the attempt before; out of touch, its worker brings it up again when it comes back."""
        before, self._unconfirmed = self._unconfirmed, None
        return [] if before is None else [*self._unfile(before), Send(Recorded(before))]

    def _unfile(self, token: int) -> list[Action]:
        if token != self._filed:
            return []
        self._filed = None
        return [Unfile(token)]

    def _say(self, *messages: ToWorker) -> list[Action]:
        """Say this, and that it may go if it retires: never before a job that is already its own."""
        farewell = (Exit(),) if self.retiring else ()
        return [Send(message) for message in (*messages, *farewell)] if self.connected else []

    def _give_back(self, reason: Reason, why: str) -> list[Action]:
        if self.token is None:
            raise AssertionError("nothing to give back")
        self.phase = Phase.SETTLING
        return [GiveBack(self.token, reason, why)]
