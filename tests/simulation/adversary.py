"""Whatever may go wrong, and what people ask for at the worst moment; by the dice of the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from queuectld.domain.attempt import Outcome, Reason
from queuectld.service.control import ShutdownMode

if TYPE_CHECKING:
    from tests.simulation.host import Process
    from tests.simulation.workers import SimWorker
    from tests.simulation.world import World

_MODES: Final[tuple[ShutdownMode, ...]] = ("drain", "wait", "now", "leave", "leave")


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
        attacks: tuple[tuple[int, Callable[[], None]], ...] = (
            (30, self._submit),
            (14, self._change),
            (6, self._crash),
            (3, self._crash_soon),
            (3, self._stop_daemon),
            (2, self._replace_daemon),
            (3, self._hang_daemon),
            (1, self._reboot),
            (6, self._kill_worker),
            (1, self._kill_both),
            (4, self._freeze_worker),
            (3, self._terminate_worker),
            (8, self._cut),
            (6, self._kill_command),
            (3, self._signal),
            (2, self._set_clock),
            (2, self._fill_disk),
            (2, self._slow_disk),
            (1, self._break_disk),
            (3, self._configure),
            (3, self._lend),
            (2, self._interrupt_all),
            (4, self._late_report),
        )
        self._attacks = [attack for _, attack in attacks]
        self._weights = [weight for weight, _ in attacks]

    def start(self) -> None:
        for _ in range(self._dice.randint(1, 5)):
            self._world.scheduler.after(self._dice.random(), self._submit)
        self._again()

    def _again(self) -> None:
        self._world.scheduler.after(self._dice.expovariate(1 / self._pace), self._act)

    def _act(self) -> None:
        if self._world.calm:
            return
        [attack] = self._dice.choices(self._attacks, self._weights)
        if not (attack == self._submit and len(self._world.store._jobs) > 40):
            name = attack.__name__.strip("_").replace("_", " ")
            self._world.figures.attacks[name] += 1
            self._world.tell(f"! {name}")
            attack()
        self._again()

    def heal(self) -> None:
        """Let nothing go wrong any more."""
        world = self._world
        self._fuse = None
        world.disk.full = world.store.broken = False
        world.slow = 1.0
        world.configure(workers=3)
        for process in tuple(world.host.processes.values()):
            if process.still:
                self._thaw(process)
        if world.daemon is None:
            world.scheduler.after(1.0, world.start_daemon)
        else:
            world.daemon.ledger.slow = 1.0
            world.daemon.loop.within(world.daemon.supervisor.reconfigure)

    # People.

    def _submit(self) -> None:
        self._world.clients.submit()

    def _change(self) -> None:
        self._world.clients.change()

    def _live(self) -> list[int]:
        daemon = self._world.daemon
        if daemon is None or not daemon.ready:
            return []
        return [w.link.token for w in daemon.supervisor._crew if w.link.token is not None]

    def _signal(self) -> None:
        if live := self._live():
            daemon = self._world.daemon
            assert daemon is not None
            daemon.loop.within(daemon.supervisor.signal, self._dice.choice(live), self._dice.choice((9, 15)))

    def _lend(self) -> None:
        daemon = self._world.daemon
        if daemon is not None and (live := self._live()):
            release = daemon.loop.within(daemon.supervisor.lend, self._dice.choice(live))
            self._world.scheduler.after(self._dice.random() * 5, lambda: daemon.loop.within(release), daemon.process)

    def _interrupt_all(self) -> None:
        if self._live():
            daemon = self._world.daemon
            assert daemon is not None
            daemon.loop.within(daemon.supervisor.interrupt_all)

    def _configure(self) -> None:
        daemon = self._world.daemon
        self._world.configure(workers=self._dice.randint(0, 5))
        if daemon is not None and daemon.ready:
            daemon.loop.within(daemon.supervisor.reconfigure)

    # The daemon.

    def _start_later(self) -> None:
        within = self._dice.choice((0.01, 1.0, 10.0))
        self._world.scheduler.after(self._dice.random() * within, self._world.start_daemon)

    def _crash(self) -> None:
        if self._world.daemon is not None:
            self._world.crash_daemon()
            self._start_later()

    def _crash_soon(self) -> None:
        self._fuse = self._dice.randint(0, 4)

    def cuts_the_fuse(self) -> bool:
        """Whether the daemon has died just before it could say this."""
        if self._fuse is None:
            return False
        self._fuse -= 1
        if self._fuse >= 0:
            return False
        self._fuse = None
        self._crash()
        return True

    def _stop_daemon(self) -> None:
        daemon = self._world.daemon
        if daemon is not None:
            daemon.loop.within(daemon.supervisor.shutdown, self._dice.choice(_MODES))

    def _replace_daemon(self) -> None:
        daemon = self._world.daemon
        if daemon is not None and daemon.ready and not daemon.supervisor.draining:
            self.successor = True
            daemon.loop.within(daemon.supervisor.shutdown, "leave")

    def _hang_daemon(self) -> None:
        if self._world.daemon is not None:
            self._freeze(self._world.daemon.process, self._dice.choice((0.1, 3.0, 25.0)))

    def _freeze(self, process: Process, seconds: float) -> None:
        self._world.scheduler.stand_still(process)
        self._world.scheduler.after(seconds * self._dice.random(), lambda: self._thaw(process))

    def _thaw(self, process: Process) -> None:
        self._world.stopped.discard(process)
        if process.still:
            self._world.scheduler.go_on(process)

    # The host.

    def _reboot(self) -> None:
        world = self._world
        world.crash_daemon(power=True)
        world.host.power_off()
        world.disk.kept.clear()
        self._start_later()

    def _set_clock(self) -> None:
        world = self._world
        world.clock_base += self._dice.choice((-1, 1)) * self._dice.choice((0.5, 10.0, 60.0))
        if world.daemon is not None:
            for alarm in world.daemon.machine.alarms:
                alarm.clock_was_set()

    def _fill_disk(self) -> None:
        disk = self._world.disk
        disk.full = True

        def drain() -> None:
            disk.full = False

        self._world.scheduler.after(self._dice.random() * 10, drain)

    def _slow_disk(self) -> None:
        world = self._world
        world.slow = self._dice.choice((1.0, 10.0, 100.0, 500.0))
        if world.daemon is not None:
            world.daemon.ledger.slow = world.slow

    def _break_disk(self) -> None:
        self._world.store.broken = True

    def _late_report(self) -> None:
        """Somebody says once more how an attempt ended, and otherwise than is on record: by a message, or in a file."""
        over = [attempt.token for attempt in self._world.checker.attempts.values() if not attempt.live]
        if not over:
            return
        token = self._dice.choice(over)
        said = Outcome(reason=Reason.EXITED, ended_at=self._world.clock(), exit_code=0, message="late")
        daemon = self._world.daemon
        if daemon is None or not daemon.ready or self._dice.random() < 0.5:
            self._world.disk.outcomes[token] = said
        else:
            daemon.loop.within(daemon.supervisor._records.finish, token, said, self._world.checker.late_answer)

    # Workers and commands.

    def _some_worker(self) -> SimWorker | None:
        workers = list(self._world.workers.values())
        return self._dice.choice(workers) if workers else None

    def _kill_worker(self) -> None:
        """At any moment; preferably one that is about to say something."""
        busy = [one for one in self._world.workers.values() if one.holds is not None or one.command is not None]
        worker = self._dice.choice(busy) if busy and self._dice.random() < 0.7 else self._some_worker()
        if worker is not None:
            self._world.host.end(worker.process, signal=9)

    def _kill_both(self) -> None:
        worker = self._some_worker()
        self._crash()
        if worker is not None and worker.process.alive:
            self._world.host.end(worker.process, signal=9)

    def _freeze_worker(self) -> None:
        """By a signal, which can be seen, or for no reason that anybody could see."""
        worker = self._some_worker()
        if worker is not None:
            if self._dice.random() < 0.5:
                self._world.stopped.add(worker.process)
            self._freeze(worker.process, self._dice.choice((1.0, 10.0, 60.0)))

    def _terminate_worker(self) -> None:
        worker = self._some_worker()
        if worker is not None:
            self._world.scheduler.at(0.0, worker.terminate, worker.process)

    def _cut(self) -> None:
        worker = self._some_worker()
        if worker is not None and worker.connection is not None:
            worker.connection.cut()

    def _kill_command(self) -> None:
        commands = [p for p in self._world.host.processes.values() if p.role == "leader"]
        if commands:
            self._world.host.end(self._dice.choice(commands), signal=self._dice.choice((9, 11)))
