"""Both ends of the worker channel against each other, through any order of losses, deaths and restarts.

The real `Channel` and the real `WorkerLink`, joined by queues; store, disk, processes and the work of the supervisor
are as small as they can be. The simulation has more of the product in it, but in its worlds things take their usual
time; here any step may be the next one, however late that would be. So this meets in a second what is rare there: a
worker that comes back with an old outcome just while a claim for it is on its way.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol import worker_messages as wire
from queuectld.supervisor import actions as links
from queuectld.supervisor.link import Phase, WorkerLink
from queuectld.worker import actions as acts
from queuectld.worker.channel import LAST_RETRY, Channel, Identity

STORE = "5" * 32
SPEC = wire.RunSpec(job="a", argv=("true",), cwd="/", env=msgspec.Raw(b"{}"), output="/o", output_limit=1)
WORKERS = 3
JOBS = 6
STEPS = 250
# More than enough for everything to come to rest once nothing goes wrong any more.
PATIENCE = 3000


def outcome(reason: Reason, token: int) -> Outcome:
    return Outcome(reason=reason, ended_at=float(token), exit_code=0 if reason is Reason.EXITED else None)


class Store:
    """What is durable: jobs that wait, live attempts and their workers, outcomes."""

    def __init__(self) -> None:
        self.waiting = deque(range(JOBS))
        self.live: dict[int, tuple[int, int]] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.done: set[int] = set()
        # Who ran each attempt.
        self.owners: dict[int, int] = {}
        self.tokens = 0

    def claim(self, worker: int) -> int | None:
        if not self.waiting:
            return None
        self.tokens += 1
        self.live[self.tokens] = (self.waiting.popleft(), worker)
        self.owners[self.tokens] = worker
        assert [pid for _, pid in self.live.values()].count(worker) == 1, "two attempts of one worker"
        return self.tokens

    def finish(self, token: int, outcome: Outcome, offer: int | None) -> tuple[bool, int | None]:
        """Return whether this outcome is on record, and the next attempt of the worker on offer."""
        if token not in self.live:
            return self.outcomes.get(token) == outcome, None
        job, _ = self.live.pop(token)
        self.outcomes[token] = outcome
        if outcome.reason is Reason.EXITED:
            assert job not in self.done
            self.done.add(job)
        else:
            self.waiting.append(job)
        return True, self.claim(offer) if offer is not None else None


class Connection:
    """Two directions. What was sent can be read after the other end has closed; some of it may be cut off."""

    def __init__(self) -> None:
        self.down: deque[wire.ToWorker] = deque()
        self.up: deque[wire.FromWorker] = deque()
        # Whether each end has been told that it is over, or has hung up itself.
        self.over = False
        self.worker_left = False
        self.daemon_left = False

    def cut(self, dice: random.Random) -> None:
        """End it in the middle of what is on its way."""
        self.over = True
        for queue in (self.down, self.up):
            for _ in range(dice.randint(0, len(queue)) if dice.random() < 0.5 else 0):
                queue.pop()


class Worker:
    """A worker process with its channel; its command lives on when it dies."""

    def __init__(self, world: World, pid: int) -> None:
        self.world, self.pid = world, pid
        self.alive = True
        self.connection: Connection | None = None
        self.asked = False
        self.command: int | None = None
        self.channel = Channel(Identity(STORE, f"w{pid}", pid, pid), 60.0, world.now)

    def do(self, actions: list[acts.Action]) -> None:
        queue = deque(actions)
        while queue and self.alive:
            queue += self._act(queue.popleft())

    def _act(self, action: acts.Action) -> list[acts.Action]:  # noqa: C901 - one case an action
        match action:
            case acts.Connect():
                self.asked = True
            case acts.Disconnect():
                self._hang_up()
            case acts.Send(message=message):
                if self.connection and not self.connection.over:
                    self.connection.up.append(message)
            case acts.Spawn(token=token):
                self.world.begin(token)
                self.command = token
            case acts.Decline(token=token):
                return self.channel.ended(outcome(Reason.INTERRUPTED, token))
            case acts.EndTree():
                return self.end(Reason.INTERRUPTED)
            case acts.Save(token=token, outcome=result):
                done = self.world.calm or self.world.dice.random() < 0.7
                if done:
                    self.world.files[token] = result
                return self.channel.saved(token, self.world.now, done=done)
            case acts.Quit():
                assert self.command is None
                self.die()
        return []

    def _hang_up(self) -> None:
        if self.connection:
            self.connection.over = self.connection.worker_left = True
            self.connection.down.clear()
            self.connection = None

    def end(self, reason: Reason) -> list[acts.Action]:
        if self.command is None:
            return []
        token, self.command = self.command, None
        self.world.over(token)
        return self.channel.ended(outcome(reason, token))

    def die(self) -> None:
        self.alive = False
        if self.connection:
            self.connection.over = self.connection.worker_left = True
            self.connection = None

    def connect(self) -> None:
        self.asked = False
        if self.world.daemon is None:
            self.do(self.channel.lost(self.world.now))
            return
        self.connection = Connection()
        self.world.daemon.doors.append((self.pid, self.connection))
        self.do(self.channel.connected(self.world.now))

    def read(self) -> None:
        connection = self.connection
        assert connection
        if connection.down:
            self.do(self.channel.received(connection.down.popleft(), self.world.now))
        elif connection.over:
            connection.worker_left = True
            self.connection = None
            self.do(self.channel.lost(self.world.now))

    def state(self) -> wire.Idle | wire.Running | wire.Holding:
        """Return what it would say of itself to a new daemon. It is no good for anything else after that."""
        [said] = self.channel.connected(self.world.now)
        assert isinstance(said, acts.Send)
        assert isinstance(said.message, wire.Hello)
        return said.message.state

    def steps(self) -> list[Callable[[], None]]:
        if not self.alive:
            return []
        steps: list[Callable[[], None]] = []
        if self.asked:
            steps.append(self.connect)
        if self.connection and (self.connection.down or self.connection.over):
            steps.append(self.read)
        if self.command is not None:
            steps.append(lambda: self.do(self.end(Reason.EXITED)))
        if self.channel.due() < self.world.now:
            steps.append(lambda: self.do(self.channel.tick(self.world.now)))
        return steps


class Daemon:
    """One run of a daemon: links, what it asked the store, what the store answered. All of it dies with it."""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store
        self.links: dict[int, WorkerLink] = {}
        self.connections: dict[int, Connection] = {}
        # Connections whose `hello` is still to be read; commits asked for; answers; commands that are prepared.
        self.doors: deque[tuple[int, Connection]] = deque()
        self.asked: deque[Callable[[], Callable[[], None]]] = deque()
        self.answers: deque[Callable[[], None]] = deque()
        self.preparing: list[tuple[int, int]] = []
        self.rescues: list[tuple[int, int]] = []
        self._recover()

    def _recover(self) -> None:
        for token, filed in tuple(self.world.files.items()):
            self.store.finish(token, filed, None)
            del self.world.files[token]
        for token, (_, pid) in tuple(self.store.live.items()):
            self.links[pid] = WorkerLink(STORE, token=token)
        for pid, worker in self.world.workers.items():
            if worker.alive:
                self.links.setdefault(pid, WorkerLink(STORE))
        for pid in tuple(self.links):
            if not self.world.workers[pid].alive:
                self.act(pid, self.links[pid].died())

    def act(self, pid: int, actions: list[links.Action]) -> None:  # noqa: C901 - one case an action
        link = self.links[pid]
        for action in actions:
            match action:
                case links.Send(message=message):
                    self._say(pid, message)
                case links.Settle(token=token, outcome=result):
                    fit = pid in self.connections and not (link.retiring or link.dead)
                    self._finish(pid, token, result, offer=pid if fit else None)
                case links.Unfile(token=token):
                    assert token not in self.store.live
                    self.world.files.pop(token, None)
                case links.GiveBack(token=token, reason=reason):
                    self._finish(pid, token, outcome(reason, token), offer=None, back=True)
                case links.Rescue(token=token):
                    self.rescues.append((pid, token))
                case links.Available():
                    assert link.token is None
                    assert not link.dead
                case links.Remove():
                    assert all(owner != pid for _, owner in self.store.live.values()), "removed with a live attempt"
                    del self.links[pid]
                case links.Await():
                    pass
                case links.Refuse():
                    raise AssertionError("we speak one language")

    def _say(self, pid: int, message: wire.ToWorker) -> None:
        connection = self.connections.get(pid)
        if isinstance(message, wire.Run):
            assert message.token in self.store.live, "a command without a claim"
        if connection and not connection.over:
            connection.down.append(message)

    def _finish(self, pid: int, token: int, result: Outcome, *, offer: int | None, back: bool = False) -> None:
        def commit() -> Callable[[], None]:
            recorded, claimed = self.store.finish(token, result, offer)

            def answer() -> None:
                link = self.links[pid]
                self.act(pid, link.given_back() if back else link.settled(token, recorded=recorded, claimed=claimed))
                if claimed is not None:
                    self.preparing.append((pid, claimed))

            return answer

        self.asked.append(commit)

    def rescue(self) -> None:
        pid, token = self.rescues.pop(0)
        self.world.over(token)
        result = self.world.files.pop(token, None) or outcome(Reason.LOST, token)
        self._finish(pid, token, result, offer=None)

    def claim(self, pid: int) -> None:
        self.links[pid].offered()

        def commit() -> Callable[[], None]:
            token = self.store.claim(pid)

            def answer() -> None:
                if token is None:
                    self.act(pid, self.links[pid].unclaimed())
                else:
                    self.links[pid].claimed(token)
                    self.preparing.append((pid, token))

            return answer

        self.asked.append(commit)

    def prepared(self) -> None:
        pid, token = self.preparing.pop(0)
        link = self.links[pid]
        fails = not self.world.calm and self.world.dice.random() < 0.2
        self.act(pid, link.withdrawn(Reason.HOST_ERROR, "") if fails else link.ready(wire.Run(token, SPEC)))

    def greet(self) -> None:
        pid, connection = self.doors.popleft()
        if pid not in self.links or not self.world.workers[pid].alive or not connection.up:
            # The dead do not enter.
            connection.over = True
            return
        hello = connection.up.popleft()
        assert isinstance(hello, wire.Hello)
        if before := self.connections.get(pid):
            before.over = True
        self.connections[pid] = connection
        self.act(pid, self.links[pid].hello(hello))

    def read(self, pid: int) -> None:
        connection = self.connections[pid]
        if connection.up:
            message = connection.up.popleft()
            if isinstance(message, wire.Ended):
                self.act(pid, self.links[pid].ended(message))
            return
        del self.connections[pid]
        self.act(pid, self.links[pid].disconnected())

    def commit(self) -> None:
        self.answers.append(self.asked.popleft()())

    def answer(self) -> None:
        self.answers.popleft()()

    def steps(self) -> list[Callable[[], None]]:
        queues = [
            (self.doors, self.greet),
            (self.asked, self.commit),
            (self.answers, self.answer),
            (self.preparing, self.prepared),
            (self.rescues, self.rescue),
        ]
        steps = [step for queue, step in queues if queue]
        steps += [partial(self.read, pid) for pid, end in self.connections.items() if end.up or end.over]
        for pid, link in self.links.items():
            if not link.dead and not self.world.workers[pid].alive:
                steps.append(lambda pid=pid, link=link: self.act(pid, link.died()))
            fit = pid in self.connections and not (link.retiring or link.dead)
            if link.phase is Phase.IDLE and fit and self.store.waiting:
                steps.append(partial(self.claim, pid))
        if sum(not link.retiring for link in self.links.values()) < WORKERS:
            steps.append(self.spawn)
        return steps

    def spawn(self) -> None:
        pid = len(self.world.workers) + 1
        self.world.workers[pid] = Worker(self.world, pid)
        self.links[pid] = WorkerLink(STORE)

    def die(self) -> None:
        for connection in (*self.connections.values(), *(connection for _, connection in self.doors)):
            connection.cut(self.world.dice)


class World:
    """Everything; `calm` when nothing goes wrong any more."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.now = 0.0
        self.calm = False
        self.store = Store()
        self.files: dict[int, Outcome] = {}
        self.running: dict[int, int] = {}
        self.begun: set[int] = set()
        self.workers: dict[int, Worker] = {}
        self.daemon: Daemon | None = Daemon(self)

    def begin(self, token: int) -> None:
        assert token not in self.begun, "an attempt runs a second time"
        assert token in self.store.live, "an attempt runs that is over"
        self.begun.add(token)
        job = self.store.live[token][0]
        assert job not in self.running, "a job runs twice at once"
        self.running[job] = token

    def over(self, token: int) -> None:
        self.running = {job: other for job, other in self.running.items() if other != token}

    def start(self) -> None:
        self.daemon = Daemon(self)

    def steps(self) -> list[Callable[[], None]]:
        own = self.daemon.steps() if self.daemon else [self.start]
        return [*own, *(step for worker in tuple(self.workers.values()) for step in worker.steps())]

    def step(self) -> bool:
        self.now += 0.02
        steps = self.steps()
        if steps:
            self.dice.choice(steps)()
        return bool(steps)

    def go_wrong(self) -> None:
        """Do one thing that is nobody's plan: somebody dies, a connection ends, a person asks for something."""
        living = [worker for worker in self.workers.values() if worker.alive]
        if not living or self.daemon is None:
            return
        worker = self.dice.choice(living)
        link = self.daemon.links.get(worker.pid)
        kind = self.dice.choice(["daemon", "worker", "cut", "cut", "cut", "terminate", "retire", "stop", "stop"])
        if kind == "daemon":
            self.daemon.die()
            self.daemon = None
        elif kind == "worker":
            if worker.connection and self.dice.random() < 0.5:
                worker.connection.cut(self.dice)
            worker.die()
        elif kind == "cut" and worker.connection:
            worker.connection.cut(self.dice)
        elif kind == "terminate":
            worker.do(worker.channel.terminate())
        elif link and kind == "retire":
            self.daemon.act(worker.pid, link.retire())
        elif link and kind == "stop":
            self.daemon.act(worker.pid, link.stop(Reason.INTERRUPTED, grace=0.0, kill_after=None))

    def at_rest(self) -> bool:
        """Whether all is done, and nobody has anything to do now or within a moment; a beat is later than that."""
        if len(self.store.done) < JOBS or self.store.live or self.daemon is None or self.steps():
            return False
        return all(worker.channel.due() > self.now + LAST_RETRY for worker in self.workers.values() if worker.alive)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_dies_and_breaks_no_attempt_runs_twice_and_none_is_lost(seed: int) -> None:
    world = World(seed)

    for _ in range(STEPS):
        if world.dice.random() < 0.08:
            world.go_wrong()
        world.step()
    world.calm = True
    for _ in range(PATIENCE):
        if world.at_rest():
            break
        world.step()

    assert world.at_rest(), "nothing goes wrong any more, and yet something is not done"
    assert world.daemon is not None
    assert world.running == {}
    for pid, link in world.daemon.links.items():
        worker = world.workers[pid]
        assert (worker.alive, link.phase, link.token) == (True, Phase.IDLE, None)
        assert worker.state() == wire.Idle(), "it holds an outcome that nobody will confirm"
    # What the dead left on record and in a file as well, the next daemon removes.
    assert not any(world.workers[world.store.owners[token]].alive for token in world.files)
