"""One run of the daemon: its parts in the order in which they may begin, and taken apart again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, Final, NamedTuple

import structlog

from queuectld import exits
from queuectld.errors import (
    BadConfigError,
    CheckFailedError,
    DrainingError,
    QueueCTLError,
    StoreDamagedError,
    StoreError,
)
from queuectld.host.children import Children, Command
from queuectld.host.handover import Handover
from queuectld.host.program import for_others
from queuectld.host.reload import Stages
from queuectld.host.renewal import check_successor, complaint
from queuectld.host.threads import ready_threads, threads_needed
from queuectld.host.unit import PATIENCE, Unit, job_of, our_unit
from queuectld.parts import Context, Parts, assemble
from queuectld.server.server import Inherited
from queuectld.upkeep.verdict import is_damaged

log = structlog.get_logger()

# What waits for disks and for /proc: readings of workers, rescues, inputs, removals.
_THREADS: Final = 6
_STOP: Final = (signal.SIGTERM, signal.SIGINT)
# Blocked from the end of one program until the next one in the same process can act on them.
_HELD: Final = (*_STOP, signal.SIGHUP, signal.SIGUSR1)


# What the service manager is asked for: seconds until the next time we ask, and for the very end.
_TO_THE_FIRST_BEAT: Final = 30.0
_TO_CLOSE: Final = 60.0
# Seconds without any progress after which the disk is not waited for at the end.
_PATIENCE: Final = 1.0
_STUCK: Final = (
    "the disk does not take what is to be stored: it is not waited for; what was acknowledged is stored, the next "
    "daemon takes up the rest"
)


class Successor(NamedTuple):
    """The program that is installed now has to take over: what it gets, and signals that came too late for us."""

    handover: Handover
    signals: tuple[int, ...]


class Daemon:
    """The parts and their order. Belongs to the loop that runs it."""

    def __init__(self, context: Context) -> None:
        """Raises `StoreError`, and `QueueCTLError` if the host has no threads for us."""
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._fatal: QueueCTLError | None = None
        # From the moment on at which we gave up for another program.
        self._given_up: Inherited | None = None
        self._late: list[int] = []
        self._ready = False
        self._children = Children()
        self._unit = our_unit(context.program.environ, os.getpid(), Path("/proc/self/cgroup").read_text())
        # How often we were told to end while we asked the service manager what that means.
        self._presses = 0
        # What goes on beside, and ends when we do.
        self._tasks: set[asyncio.Task[None]] = set()
        with threads_needed():
            self._loop.set_default_executor(ready_threads(_THREADS, "host"))
            self._parts: Parts = assemble(
                context,
                on_fatal=self._on_fatal,
                reexec=self._reexec,
                stages=Stages(self._reload_begun, self._reload_ended),
            )

    async def run(self) -> int | Successor:
        """Serve until the end; return the exit code, or what has to take over."""
        parts, state = self._parts, self._context.state
        log.info("Starting", event_name="daemon.starting", state_dir=str(state.path))
        self._watch_signals()
        try:
            await self._start()
            self._beside(parts.janitor.run())
            self._beside(parts.config_watch.run())
            self._beside(parts.spool.run())
            log.info("Ready", event_name="daemon.ready", path=self._context.address, workers=parts.supervisor.limit)
            self._ready = True
            self._tell_ready()
            parts.watchdog.start(parts.signs, ending=lambda: parts.supervisor.draining)
            await parts.supervisor.wait_until_stopped()
        finally:
            for task in tuple(self._tasks):
                task.cancel()
            parts.watchdog.stop()
            if not self._given_up:
                parts.notifier.stopping("closing the store", _TO_CLOSE)
            await parts.server.stop()
            await parts.monitoring.stop()
            await self._close_store()
            self._let_go_of_signals()
        return self._successor(self._given_up) if self._given_up and not self._fatal else self._exit_code()

    async def _close_store(self) -> None:
        # Another program comes after the last commit, however long it takes; whoever wants us to end does not wait.
        stored = await self._parts.ledger.close(patience=None if self._given_up else _PATIENCE)
        if not stored and self._fatal is None:
            self._fatal = StoreError(_STUCK)

    def _beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell_ready(self, problem: str | None = None) -> None:
        status = f"at {self._context.address}, workers: {self._parts.supervisor.limit}"
        self._parts.notifier.ready(
            status if problem is None else f"the configuration is not valid, the old one holds: {problem}"
        )

    async def _start(self) -> None:
        before = self._context.handover
        inherited = Inherited() if before is None else Inherited(before.unix, before.tcp)
        await self._parts.supervisor.start(asked=0 if before is None else before.asked)
        await self._parts.server.start(inherited, self._context.passed)
        await self._parts.monitoring.start()
        self._context.state.record_socket(self._context.address)

    def _exit_code(self) -> int:
        if self._fatal is None:
            log.info("Stopped", event_name="daemon.stopped")
            return exits.OK
        log.critical("Cannot go on", event_name="daemon.failed", error=self._fatal.message)
        if isinstance(self._fatal, StoreDamagedError) and not is_damaged(self._context.state.database):
            # The disk failed: begin again from the log.
            return exits.IO
        return exits.code_of(self._fatal)

    def _on_fatal(self, error: QueueCTLError) -> None:
        """The store cannot be trusted any more: leave the workers alone, end, and recover from the log."""
        self._fatal = error
        self._parts.supervisor.shutdown("leave")

    # Another program in our place.

    async def _reexec(self) -> None:
        """Give way to the program that is installed now. Raises `CheckFailedError`, `DrainingError`."""
        state, program = self._context.state, self._context.program
        check = self._beside(check_successor(state, program, self._children, self._parts.machine))
        with suppress(asyncio.CancelledError):
            await check
        if self._given_up is not None:
            return
        if check.cancelled() or self._parts.supervisor.draining:
            raise DrainingError
        self._rehearse()
        log.info("The program is replaced", event_name="daemon.replaced", path=self._context.program.argv[0])
        # No client sees us draining: what is not begun by now waits for the next program.
        self._parts.notifier.reloading("another program takes over")
        self._given_up = self._parts.server.hand_over()
        self._parts.supervisor.shutdown("leave")

    def _rehearse(self) -> None:
        """Listen where the configuration says now, as far as we do not yet: nobody else can tell while we do."""
        try:
            config = self._context.reload().config
            self._parts.server.rehearse(config, config.socket or self._context.socket)
        except QueueCTLError as error:
            raise CheckFailedError(complaint(error.message)) from None

    def _successor(self, listeners: Inherited) -> Successor:
        self._parts.files.restore()
        # The next program needs a moment for its first one.
        self._parts.notifier.alive()
        handover = Handover(
            lock=self._context.state.lock,
            unix=listeners.unix,
            tcp=listeners.tcp,
            family=tuple(self._parts.machine.family()),
            asked=self._parts.supervisor.asked,
            config=self._context.holder.loaded.sources(),
        )
        return Successor(handover, tuple(self._late))

    # Signals only queue: the loop calls these between two callbacks.

    def _watch_signals(self) -> None:
        for number in _STOP:
            self._loop.add_signal_handler(number, self._asked_to_stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._context.log.reopen)
        self._loop.add_signal_handler(signal.SIGCHLD, self._children.reap)
        # What came since the end of the program before comes now; of children that died meanwhile nobody tells.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        self._children.reap()

    def _let_go_of_signals(self) -> None:
        if self._given_up is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
            return
        # Whoever still asks for the end, at the very end, must not make it look like a failure.
        for number in _HELD:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _asked_to_stop(self, number: int) -> None:
        if self._given_up is not None:
            self._late.append(number)
            return
        self._parts.notifier.stopping("ending", _TO_THE_FIRST_BEAT)
        if self._unit is None or self._parts.supervisor.stopping:
            self._parts.supervisor.press()
            return
        self._presses += 1
        if self._presses == 1:
            # Jobs are not begun any more, nor ended yet.
            self._parts.supervisor.hold_back()
            self._beside(self._stop_as_meant(self._unit))

    async def _stop_as_meant(self, unit: Unit) -> None:
        """Leave the jobs to the next daemon if the service manager restarts us, else end them."""
        meant = await self._meaning(unit)
        log.info("Told to end", event_name="daemon.told_to_end", reason=meant or "signal")
        if meant == "restart":
            self._parts.supervisor.shutdown("leave")
            return
        for _ in range(self._presses):
            self._parts.supervisor.press()

    async def _meaning(self, unit: Unit) -> str | None:
        """Return which job of the service manager it is that ends us; None if that cannot be learnt."""
        asking = Command(unit.asking_for_jobs(), for_others(self._context.program.environ), "/")
        try:
            asked = await self._children.run(asking, self._parts.machine, within=PATIENCE)
        except OSError:
            return None
        return job_of(asked.said, unit) if asked.code == 0 else None

    def _asked_to_reload(self) -> None:
        self._beside(self._reload())

    async def _reload(self) -> None:
        # What is wrong is on record, and in the status.
        with suppress(BadConfigError):
            await self._parts.reloader.reload()

    def _reload_begun(self) -> None:
        if self._ready and not self._parts.supervisor.draining:
            self._parts.notifier.reloading("reading the configuration")

    def _reload_ended(self, problem: str | None) -> None:
        self._parts.counts.config_read(time(), valid=problem is None)
        # Said after a refusal too: the manager waits for it, and would end us in the end.
        if self._ready and not self._parts.supervisor.draining:
            self._tell_ready(problem)
