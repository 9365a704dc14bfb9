"""What requests are answered from: the store, the pool, the configuration, and the facts about this daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from queuectld.config import Holder, policy
from queuectld.domain.policy import Policy
from queuectld.figures.counts import Counts
from queuectld.host.reload import Prepare, TakeUp
from queuectld.host.state_dir import OUTPUT, OVERRIDES
from queuectld.keys import Config
from queuectld.protocol.replies import Isolation, LoopView, Reloaded
from queuectld.service.control import Control
from queuectld.service.hub import Hub
from queuectld.service.sight import Sight
from queuectld.service.submit import Ahead
from queuectld.service.views import Lens
from queuectld.store.base import Reader, Store
from queuectld.store.turns import FIRST, Turn

T = TypeVar("T")


class Ledger(Protocol):
    """The store, as the loop sees it: work is carried out elsewhere, in order, and answered once it is durable."""

    def submit(
        self,
        work: Callable[[Store], T],
        done: Callable[[T | Exception], None],
        *,
        sheds: bool = False,
        turn: Turn = FIRST,
    ) -> None:
        """Run `work` in a transaction; call `done` on the loop. `sheds`: it may be refused on a full disk."""

    async def write(self, work: Callable[[Store], T], *, sheds: bool = False, turn: Turn = FIRST) -> T:
        """Run `work` in a transaction; return its result or raise its error."""

    async def read(self, work: Callable[[Reader], T]) -> T:
        """Run `work` on a read-only connection."""

    @property
    def full(self) -> bool:
        """Whether new jobs are refused because the disk is full."""

    def problems(self) -> Sequence[str]:
        """Return sentences about what is wrong with the store."""


class Vigil(Protocol):
    """Watches whether the daemon gets on."""

    @property
    def stuck(self) -> bool:
        """Whether something does not move, the store for one."""

    def loop(self) -> LoopView:
        """Return how its loop gets on."""

    def problems(self) -> Sequence[str]:
        """Return sentences about what does not move."""


class Reloading(Protocol):
    """Reads the configuration again."""

    # Held by whoever changes the configuration: each change begins from the one before.
    changing: asyncio.Lock

    async def reload(self) -> Reloaded:
        """Take up what the files say now. Raises `BadConfigError`; then nothing has changed."""

    def ask(self, part: Prepare) -> None:
        """Have a part of the daemon agree to each configuration that is read from now on."""

    def consult(self, config: Config) -> Sequence[TakeUp]:
        """Have all parts agree; return what takes it up. Raises `BadConfigError`. Reads files: not for the loop."""

    def problems(self) -> Sequence[str]:
        """Return sentences about what is wrong with the configuration."""


class Facts(NamedTuple):
    """About this daemon, for `status` and the greeting. ``started_at``: wall clock, seconds."""

    pid: int
    uid: int
    user: str
    started_at: float
    socket: str
    state_dir: str
    store: str
    isolation: Isolation
    # Who keeps this daemon up: `systemd`, `supervisord`, or nobody that we know of.
    service_manager: str | None = None

    @property
    def only(self) -> str | None:
        """The user as whom all jobs run; None: each runs as its owner."""
        return self.user if self.uid else None


@dataclass(eq=False)
class Desk:
    """The collaborators of every handler. Belongs to the loop's thread."""

    ledger: Ledger
    control: Control
    hub: Hub
    holder: Holder
    clock: Callable[[], float]
    luck: Callable[[], float]
    facts: Facts
    # Has the program that is installed now take over from this one. Raises `CheckFailedError`.
    reexec: Callable[[], Awaitable[None]]
    vigil: Vigil
    reloader: Reloading
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.ahead = Ahead()
        # Open connections, for `status`.
        self.connections = 0
        # Who else may have something to complain of.
        self.complaints: list[Callable[[], Sequence[str]]] = []
        self._policy_of: tuple[Config, Policy] | None = None

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.holder.config

    def problems(self, *, whole: bool = True) -> tuple[str, ...]:
        """Return sentences about what is wrong now, for `status`; unless `whole`, nothing of what jobs run."""
        parts = (self.vigil.problems, self.ledger.problems, self.reloader.problems, *self.complaints)
        others = (problem for complain in parts for problem in complain())
        return (*self.control.problems(whole=whole), *others)

    @property
    def policy(self) -> Policy:
        """What the configuration says where a job says nothing."""
        if self._policy_of is None or self._policy_of[0] is not self.config:
            self._policy_of = (self.config, policy(self.config))
        return self._policy_of[1]

    @property
    def output_dir(self) -> Path:
        """Where the output of attempts lies."""
        return Path(self.facts.state_dir, OUTPUT)

    @property
    def overrides_file(self) -> Path:
        """Where `config_set` keeps what it is told."""
        return Path(self.facts.state_dir, OVERRIDES)

    def lens(self, sight: Sight) -> Lens:
        """Return what views of jobs need besides them, for somebody with this sight."""
        return Lens(self.policy, self.control.limit, self.clock(), sight)
