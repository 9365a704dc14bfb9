"""Whatever may go wrong, and what people ask for at the worst moment; by the dice of the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from queuectld.service.control import ShutdownMode
from tests.simulation.figures import ATTACKS
from tests.simulation.late import Latecomers

if TYPE_CHECKING:
    from tests.simulation.host import Process
    from tests.simulation.workers import SimWorker
    from tests.simulation.world import SimDaemon, World

_MODES: Final[tuple[ShutdownMode, ...]] = ("drain", "wait", "now", "leave", "leave")
# More jobs than this make a world slower, and no worse.
_ENOUGH: Final = 40


class Adversary:
    """Acts every now and then until the world is calm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice
        # Whether the daemon that ends is replaced by another program in the same process.
        self.successor = False
        # At how many more messages to workers the daemon dies, in the middle of what it does.
        self._fuse: int | None = None
        # Some worlds are worse than others.
        self._pace = self._dice.choice((0.1, 0.3, 1.0))
        # What was begun, and may strike later.
        self._armed: set[str] = set()
        self._late = Latecomers(world)

    def start(self) -> None:
        for _ in range(self._dice.randint(1, 5)):
            self._world.scheduler.after(self._dice.random(), self._world.clients.submit)
        self._again()

    def _again(self) -> None:
        self._world.scheduler.after(self._dice.expovariate(1 / self._pace), self._act)

    def _act(self) -> None:
        if self._world.calm:
            return
        [name] = self._dice.choices(tuple(ATTACKS), tuple(ATTACKS.values()))
        self._world.tell(f"! {name}")
        attack: Callable[[], bool] = getattr(self, "_" + name.replace(" ", "_"))
        if attack():
            self._world.figures.hit(name)
        self._again()

    def _arm(self, name: str) -> bool:
        """Leave it open whether this hits anything: see `struck`."""
        self._armed.add(name)
        return False

    def struck(self, name: str) -> None:
        """What was begun before has done harm."""
        if name in self._armed:
            self._armed.discard(name)
            self._world.figures.hit(name)

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        world = self._world
        self._fuse = None
        world.disk.full = world.store.broken = False
        world.slow = 1.0
        world.configure(3)
        for process in tuple(world.host.processes.values()):
            if process.still:
                self._thaw(process)
        if world.daemon is None:
            world.scheduler.after(1.0, world.start_daemon)
        else:
            world.daemon.ledger.slow = 1.0
            world.daemon.loop.within(world.daemon.supervisor.reconfigure)
        world.clients.end_the_endless()

    # People. Each attack tells whether it has hit something.

    def _submit(self) -> bool:
        return len(self._world.store._jobs) <= _ENOUGH and self._world.clients.submit()

    def _change(self) -> bool:
        return self._world.clients.change()

    def _ready(self) -> SimDaemon | None:
        daemon = self._world.daemon
        return daemon if daemon is not None and daemon.ready else None

    def _live(self, daemon: SimDaemon | None) -> list[int]:
        return [] if daemon is None else [w.link.token for w in daemon.supervisor._crew if w.link.token is not None]

    def _signal(self) -> bool:
        daemon = self._ready()
        if daemon is None or not (live := self._live(daemon)):
            return False
        passed: bool = daemon.loop.within(daemon.supervisor.signal, self._dice.choice(live), self._dice.choice((9, 15)))
        return passed

    def _lend(self) -> bool:
        daemon, lent = self._ready(), self._world.lent
        if daemon is None or not (live := self._live(daemon)):
            return False
        token = self._dice.choice(live)
        lent[token] += 1
        release = daemon.loop.within(daemon.supervisor.lend, token)

        def take_back() -> None:
            lent[token] -= 1
            if not lent[token]:
                del lent[token]
            daemon.loop.within(release)

        self._world.scheduler.after(self._dice.random() * 5, take_back, daemon.process)
        return True

    def _interrupt_all(self) -> bool:
        daemon = self._ready()
        if daemon is None or not self._live(daemon):
            return False
        daemon.loop.within(daemon.supervisor.interrupt_all)
        return True

    def _configure(self) -> bool:
        self._world.configure(self._dice.randint(0, 5))
        daemon = self._ready()
        if daemon is not None:
            daemon.loop.within(daemon.supervisor.reconfigure)
        return daemon is not None

    # The daemon.

    def _start_later(self) -> None:
        within = self._dice.choice((0.01, 1.0, 10.0))
        self._world.scheduler.after(self._dice.random() * within, self._world.start_daemon)

    def _crash(self) -> bool:
        if self._world.daemon is None:
            return False
        self._world.crash_daemon()
        self._start_later()
        return True

    def _crash_soon(self) -> bool:
        self._fuse = self._dice.randint(0, 4)
        return self._arm("crash soon")

    def cuts_the_fuse(self) -> bool:
        """Whether the daemon has died just before it could say this."""
        if self._fuse is None:
            return False
        self._fuse -= 1
        if self._fuse >= 0:
            return False
        self._fuse = None
        self._crash()
        self.struck("crash soon")
        return True

    def _stop_daemon(self) -> bool:
        daemon = self._world.daemon
        if daemon is None:
            return False
        begun = daemon.supervisor.draining
        daemon.loop.within(daemon.supervisor.shutdown, self._dice.choice(_MODES))
        return not begun

    def _replace_daemon(self) -> bool:
        daemon = self._ready()
        if daemon is not None and not daemon.supervisor.draining:
            self.successor = True
            daemon.loop.within(daemon.supervisor.shutdown, "leave")
        return self._arm("replace daemon")

    def _hang_daemon(self) -> bool:
        daemon = self._world.daemon
        if daemon is None:
            return False
        if self._dice.random() < 0.5:
            # Meanwhile its workers connect again and again: it will find all of that at once.
            for worker in self._world.workers.values():
                self._cut_often(worker)
        return self._freeze(daemon.process, self._dice.choice((0.1, 3.0, 25.0)))

    def _cut_often(self, worker: SimWorker) -> None:
        def cut() -> None:
            if worker.connection is not None:
                worker.connection.cut()

        for _ in range(3):
            self._world.scheduler.after(self._dice.random() * 0.4, cut, worker.process)

    def _freeze(self, process: Process, seconds: float) -> bool:
        still = process.still
        self._world.scheduler.stand_still(process)
        self._world.scheduler.after(seconds * self._dice.random(), lambda: self._thaw(process))
        return not still

    def _thaw(self, process: Process) -> None:
        self._world.stopped.discard(process)
        if process.still:
            self._world.scheduler.go_on(process)

    # The host.

    def _reboot(self) -> bool:
        world = self._world
        alive = bool(world.host.processes)
        world.crash_daemon(power=True)
        world.host.power_off()
        self._start_later()
        return alive

    def _set_clock(self) -> bool:
        world = self._world
        world.clock_base += self._dice.choice((-1, 1)) * self._dice.choice((0.5, 10.0, 60.0))
        if world.daemon is None:
            return False
        for alarm in world.daemon.machine.alarms:
            alarm.clock_was_set()
        return True

    def _fill_disk(self) -> bool:
        disk = self._world.disk
        disk.full = True

        def drain() -> None:
            disk.full = False

        self._world.scheduler.after(self._dice.random() * 10, drain)
        return self._arm("fill disk")

    def _slow_disk(self) -> bool:
        world = self._world
        world.slow = self._dice.choice((1.0, 10.0, 100.0, 500.0))
        if world.daemon is not None:
            world.daemon.ledger.slow = world.slow
        return self._arm("slow disk")

    def _break_disk(self) -> bool:
        self._world.store.broken = True
        return self._arm("break disk")

    # What comes too late.

    def _late_report(self) -> bool:
        return self._late.report(self._ready())

    def _late_claim(self) -> bool:
        return self._late.claim(self._ready())

    # Workers and commands.

    def _some_worker(self) -> SimWorker | None:
        workers = list(self._world.workers.values())
        return self._dice.choice(workers) if workers else None

    def _kill_worker(self) -> bool:
        """At any moment; preferably one that is about to say something."""
        busy = [one for one in self._world.workers.values() if one.holds is not None or one.command is not None]
        worker = self._dice.choice(busy) if busy and self._dice.random() < 0.7 else self._some_worker()
        if worker is None:
            return False
        self._world.host.end(worker.process, signal=9)
        return True

    def _kill_both(self) -> bool:
        worker = self._some_worker()
        crashed = self._crash()
        if worker is None or not worker.process.alive:
            return False
        self._world.host.end(worker.process, signal=9)
        return crashed

    def _freeze_worker(self) -> bool:
        """By a signal, which can be seen, or for no reason that anybody could see."""
        worker = self._some_worker()
        if worker is None:
            return False
        if self._dice.random() < 0.5:
            self._world.stopped.add(worker.process)
        return self._freeze(worker.process, self._dice.choice((1.0, 10.0, 60.0)))

    def _terminate_worker(self) -> bool:
        worker = self._some_worker()
        if worker is None:
            return False
        self._world.scheduler.at(0.0, worker.terminate, worker.process)
        return True

    def _cut(self) -> bool:
        worker = self._some_worker()
        if worker is None or worker.connection is None:
            return False
        worker.connection.cut()
        if self._dice.random() < 0.5:
            # The next ones do not last either.
            self._cut_often(worker)
        return True

    def _kill_command(self) -> bool:
        commands = [p for p in self._world.host.processes.values() if p.role == "leader"]
        if not commands:
            return False
        self._world.host.end(self._dice.choice(commands), signal=self._dice.choice((9, 11)))
        return True
