"""One world: a host, a store, one daemon after the other, workers, clients; and an adversary, until it is calm."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter, deque
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import msgspec

from queuectld.config import Config, Holder, Loaded, policy
from queuectld.domain.job import FINAL, State
from queuectld.errors import DiskFullError, QueueCTLError, StoreError
from queuectld.protocol import worker_messages as wire
from queuectld.service.hub import Hub
from queuectld.supervisor import world as supervisor_world
from queuectld.supervisor.link import Phase
from queuectld.supervisor.machine import Reception
from queuectld.supervisor.records import Records
from queuectld.supervisor.supervisor import Supervisor
from tests.simulation.adversary import Adversary
from tests.simulation.checker import BrokenRuleError, Checker
from tests.simulation.client import Clients
from tests.simulation.figures import Figures
from tests.simulation.host import INIT, STORE, Disk, Host, Process
from tests.simulation.ledger import SimLedger, SimStore
from tests.simulation.machine import SimAccounts, SimFiles, SimMachine
from tests.simulation.scheduler import ActorLoop, Scheduler
from tests.simulation.sockets import Connection
from tests.simulation.workers import SimWorker

EPOCH: Final = 1_800_000_000.0
# How long the adversary is at work, in seconds of the world; and how long everything may take to come to rest then.
_TROUBLE: Final = (20.0, 90.0)
_PATIENCE: Final = 3000.0
_TRACE: Final = 60


class SimDaemon:
    """One run of a daemon: production parts on simulated ports."""

    def __init__(self, world: World, process: Process, known: Iterable[int] = ()) -> None:
        self.world, self.process, self.dice = world, process, world.dice
        self.loop = ActorLoop(world.scheduler, process, self._failed)
        self.reception: Reception | None = None
        self.connections: list[Connection] = []
        # Whether it has looked for outcome files; whether it has begun to give out work.
        self.looked = False
        self.ready = False
        self.fatal = False
        self.machine = SimMachine(self, known)
        self.loop.within(self._build)
        self.loop.within(self.loop.create_task, self._run())

    def _build(self) -> None:
        world = self.world
        hub = Hub()
        self.ledger = SimLedger(
            world.store,
            world.disk,
            scheduler=world.scheduler,
            dice=world.dice,
            process=self.process,
            loop=self.loop,
            publish=hub.publish,
            on_fatal=self._on_fatal,
            durable=world.checker.committed,
            bound=world.bound,
            set_bound=partial(setattr, world.checker, "bound"),
        )
        self.ledger.slow = world.slow
        self.ledger.hasty = world.hasty
        records = Records(
            self.ledger,  # type: ignore[arg-type]  # as one of them
            world.holder,
            boot_id=self.machine.boot_id,
            clock=world.clock,
            luck=world.dice.random,
        )
        around = supervisor_world.World(
            machine=self.machine,
            files=SimFiles(self),
            store=STORE,
            output="/output",
            accounts=SimAccounts(self),
            clock=world.clock,
        )
        self.supervisor = Supervisor(records, hub, world.holder, around)

    def _failed(self, error: BaseException) -> None:
        # What waits for a store that has failed hears of that; the daemon ends for it.
        if not (self.fatal and isinstance(error, StoreError)):
            self.world.fail(error)

    def _on_fatal(self, error: QueueCTLError) -> None:
        del error
        self.fatal = True
        self.supervisor.shutdown("leave")

    async def _run(self) -> None:
        try:
            await self.supervisor.start()
        except (StoreError, DiskFullError):
            # The store failed under it: it ends, and the next one begins from the log.
            self.world.daemon_over(self)
            return
        self.ready = True
        self.world.clients.daemon_ready()
        await self.supervisor.wait_until_stopped()
        # The rest of it ends too, and takes its time.
        await asyncio.sleep(self.dice.random() * 0.1)
        while not self.ledger.idle:  # noqa: ASYNC110 - what is simulated has no event for it
            await asyncio.sleep(0.001)
        self.world.daemon_over(self)


class World:
    """Everything of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.scheduler = Scheduler()
        self.host = Host(self.scheduler, self.dice, cgroups=self.dice.random() < 0.5)
        self.disk = Disk()
        self.store = SimStore(self.disk)
        self.store.uuid = STORE
        self.trace: deque[str] = deque(maxlen=_TRACE)
        self.figures = Figures()
        self.checker = Checker(self)
        self.store.on_claim = self.checker.claimed
        # Wall clock minus time of the world; and what runs by signals that stop.
        self.clock_base = EPOCH
        self.stopped: set[Process] = set()
        self.calm = False
        self.slow = 1.0
        self.hasty = False
        # What the daemons are told of how many attempts may run at once, and which of these do not count.
        self.most = self.dice.randint(1, 4)
        self.lent: Counter[int] = Counter()
        self.holder = Holder(self._loaded(Config(workers=self.most, max_lost=self.dice.choice((2, 3)), **_SHORT)))
        self.asked: dict[str, str] = {}
        self.workers: dict[Process, SimWorker] = {}
        self.daemon: SimDaemon | None = None
        self._failure: BaseException | None = None
        self.clients = Clients(self)
        self.adversary = Adversary(self)
        self.store.on_harm = self.adversary.struck

    @staticmethod
    def _loaded(config: Config) -> Loaded:
        return Loaded(config=config, environment={}, overrides={}, file={}, config_file=None)

    def configure(self, workers: int) -> None:
        self.most = workers
        self.holder.replace(self._loaded(msgspec.structs.replace(self.holder.config, workers=workers)))

    def bound(self) -> tuple[int, frozenset[int]]:
        return self.most, frozenset(self.lent)

    @property
    def policy(self) -> Any:
        return policy(self.holder.config)

    def clock(self) -> float:
        now = self.scheduler.now + self.clock_base
        self.checker.latest = max(self.checker.latest, now)
        return now

    def tell(self, what: str) -> None:
        line = f"{self.scheduler.now:9.3f}  {what}"
        self.trace.append(line)
        self.figures.trace = zlib.crc32(line.encode(), self.figures.trace)

    def fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    # The daemon.

    def start_daemon(self, known: Iterable[int] = (), pid: Process | None = None) -> None:
        if self.daemon is not None:
            return
        self.checker.nothing_lost()
        process = pid or self.host.fork(INIT, "daemon")
        self.tell(f"daemon {process.pid} starts")
        self.lent.clear()
        self.daemon = SimDaemon(self, process, known)

    def crash_daemon(self, *, power: bool = False) -> None:
        daemon = self.daemon
        if daemon is None:
            return
        self.tell(f"daemon {daemon.process.pid} crashes")
        self._note_crash(daemon)
        self.daemon = None
        self.host.end(daemon.process, signal=9)
        self.scheduler.after(0.0, daemon.loop.bury)
        daemon.ledger.crashed(power=power)
        self.store._written.clear()
        for connection in daemon.connections:
            connection.daemon_died()
        self.clients.daemon_gone()

    def daemon_over(self, daemon: SimDaemon) -> None:
        """A daemon has ended as it should."""
        if self.daemon is not daemon:
            return
        self.tell(f"daemon {daemon.process.pid} ends")
        self.daemon = None
        for connection in daemon.connections:
            connection.daemon_died()
        self.scheduler.after(0.0, daemon.loop.bury)
        successor = self.adversary.successor
        self.adversary.successor = False
        self.store._written.clear()
        self.clients.daemon_gone()
        if successor and not daemon.fatal:
            self.tell("another program takes over")
            self.adversary.struck("replace daemon")
            process = Process(daemon.process.pid, daemon.process.start, INIT, "daemon")
            daemon.process.alive = False
            self.host.processes[process.pid] = process
            family = [p for p in daemon.machine.known if p in self.host.processes]
            self.start_daemon(family, process)
            return
        self.host.end(daemon.process, code=0)
        self.scheduler.after(self.dice.random() * 5, self.start_daemon)

    def _note_crash(self, daemon: SimDaemon) -> None:
        if not daemon.ready:
            self.figures.point("inside recovery")
        if daemon.supervisor._dispatcher.claims_asked > daemon.supervisor._dispatcher.claims_answered:
            self.figures.point("before the claim's commit")
        for worker in self.workers.values():
            self._note_state(worker)
        for attempt in self.checker.attempts.values():
            if attempt.live and attempt.boot_id == self.host.boot_id:
                self._note_claim(attempt.token, attempt.worker_pid)

    def _note_claim(self, token: int, pid: int) -> None:
        worker = next((one for one in self.workers.values() if one.process.pid == pid), None)
        if worker is None or worker.connection is None or worker.channel.last_token >= token:
            return
        on_its_way = any(_runs(message) == token for message in worker.connection.down.queue)
        self.figures.point("`run` sent, unread" if on_its_way else "committed, `run` unsent")

    def _note_state(self, worker: SimWorker) -> None:
        if worker.command is not None and not worker.command.announced:
            self.figures.point("spawned, `started` unsaid")
        if (held := worker.holds) is None:
            return
        token = held[0]
        attempt = self.checker.attempts.get(token)
        if attempt is not None and not attempt.live:
            queue = worker.connection.down.queue if worker.connection else ()
            if not any(isinstance(m, wire.Recorded) and m.token == token for m in queue):
                self.figures.point("committed, `recorded` unsent")
        elif worker.connection is None:
            self.figures.point("ended, unreported")
        else:
            unread = any(isinstance(m, wire.Ended) and m.token == token for m in worker.connection.up.queue)
            self.figures.point("ended, unreported" if unread else "reported, uncommitted")

    # Workers.

    def add_worker(self, process: Process, name: str, orphan_timeout: float) -> None:
        self.workers[process] = SimWorker(self, process, name, orphan_timeout, STORE)

    def worker_died(self, worker: SimWorker) -> None:
        self.tell(f"worker {worker.name} ({worker.process.pid}) dies")
        held = worker.holds
        if held is not None and not worker.saved:
            attempt = self.checker.attempts.get(held[0])
            if attempt is not None and attempt.live:
                self.figures.point("the worker dies after its command ended, before reporting")
        del self.workers[worker.process]
        self.stopped.discard(worker.process)

    def connect(self, worker: SimWorker) -> Connection | None:
        daemon = self.daemon
        if daemon is None or daemon.reception is None:
            return None
        connection = Connection(
            self.scheduler, self.dice, daemon.loop, (worker.process, daemon.process), daemon.reception, worker.told
        )
        connection.said = self._said
        daemon.connections = [one for one in daemon.connections if one.worker.alive and not one.up.deserted]
        daemon.connections.append(connection)
        return connection

    def _said(self, connection: Connection, message: wire.ToWorker) -> bool:
        self.checker.said(message)
        self.tell(f"to {connection.worker.pid}: {_brief(message)}")
        return not self.adversary.cuts_the_fuse()

    def noticed_from(self, worker: SimWorker, message: wire.FromWorker) -> None:
        if not isinstance(message, wire.Beat):
            self.tell(f"from {worker.process.pid}: {_brief(message)}")

    def outcome_filed(self) -> None:
        if self.daemon is not None and self.daemon.looked:
            self.figures.point("outcome file written after it was looked for")

    # The run.

    def run(self) -> None:
        """Live through it. Raises what is wrong."""
        try:
            self._run()
        finally:
            if self.daemon is not None:
                self.daemon.process.alive = False
                self.daemon.loop.bury()

    def _run(self) -> None:
        self.start_daemon()
        self.adversary.start()
        until = self.dice.uniform(*_TROUBLE)
        self._go_on(lambda: self.scheduler.now >= until)
        self.tell("calm")
        self.calm = True
        self.adversary.heal()
        until = self.scheduler.now + _PATIENCE
        self._go_on(lambda: self.scheduler.now >= until or self._at_rest())
        if not self._at_rest():
            raise BrokenRuleError(f"nothing goes wrong any more, and yet not all comes to rest: {self._restless()}")
        self.checker.nothing_lost()
        self.figures.seeds, self.figures.steps = 1, self.scheduler.steps

    def _go_on(self, over: Any) -> None:
        while not over():
            for _ in range(50):
                self.scheduler.step()
                if self._failure is not None:
                    raise self._failure

    def _restless(self) -> list[str]:
        busy = [f"{job.id} is {job.state}" for job in self.store._jobs.values() if not _rests(job.state)]
        busy += [f"attempt {one.token} is live" for one in self.store._attempts.values() if one.live]
        host = self.host.processes.values()
        busy += [f"{p.role} {p.pid} of {p.token} lives" for p in host if p.token is not None and not _spared(p)]
        busy += [f"{one.name} holds {one.holds[0]}" for one in self.workers.values() if one.holds is not None]
        busy += [f"{one.name} has no connection" for one in self.workers.values() if one.connection is None]
        # What the dead left on record and in a file as well, the next daemon removes.
        busy += [
            f"an outcome of {token} is left in a file" for token in self.disk.outcomes if self._left_by_living(token)
        ]
        if self.daemon is None or not self.daemon.ready or not self.daemon.ledger.idle:
            busy.append("there is no daemon, or it is not ready")
        else:
            crew = self.daemon.supervisor._crew
            busy += [f"{one.name} is {one.link.phase}" for one in crew if one.link.phase is not Phase.IDLE]
            busy += [f"the daemon waits for a {token}" for token in self.clients.waiting()]
        return busy

    def _left_by_living(self, token: int) -> bool:
        attempt = self.checker.attempts[token]
        found = self.host.find(attempt.worker_pid, attempt.worker_start)
        return found is not None and found.role == "worker" and token not in self.disk.forged

    def _at_rest(self) -> bool:
        return not self._restless()


def _rests(state: State) -> bool:
    return state in FINAL or state is State.DELETED


def _spared(process: Process) -> bool:
    return process.kept or process.escaped


def _runs(message: Any) -> int | None:
    if isinstance(message, wire.Recorded):
        message = message.run
    return message.token if isinstance(message, wire.Run) else None


def _brief(message: Any) -> str:
    match message:
        case wire.Run(token=token):
            return f"run {token}"
        case wire.Recorded(token=token, run=run):
            return f"recorded {token}" + (f", run {run.token}" if run else "")
        case wire.Hello(state=state):
            return f"hello, {_brief(state)}"
        case wire.Ended(token=token, outcome=outcome) | wire.Holding(token=token, outcome=outcome):
            return f"ended {token}: {outcome.reason} {outcome.exit_code}"
        case _:
            return str(message)


# Times in which a world can live through much.
_SHORT: Final[dict[str, Any]] = {"backoff_max": 8.0, "shutdown_grace": 3.0, "max_kill_after": 3.0, "worker_idle": 20.0}
