"""One run of the daemon: everything put together, in the order in which it may begin, and taken apart again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from queuectld.config import Holder, Loaded
from queuectld.errors import BadConfigError, QueueCTLError
from queuectld.host.file_limit import FileLimit, raise_file_limit
from queuectld.host.ledger import Ledger
from queuectld.host.state_dir import StateDir
from queuectld.log import Log
from queuectld.server.desk import Desk, Facts
from queuectld.server.server import Server
from queuectld.service.hub import Hub
from queuectld.service.run_spec import Account, account
from queuectld.store.sqlite import open_store
from queuectld.supervisor.files import StateFiles
from queuectld.supervisor.janitor import Janitor
from queuectld.supervisor.linux import LinuxMachine
from queuectld.supervisor.records import Records
from queuectld.supervisor.supervisor import Supervisor
from queuectld.supervisor.world import World

log = structlog.get_logger()

EXIT_OK: Final = 0
EXIT_IO: Final = 74
_STOP: Final = (signal.SIGTERM, signal.SIGINT)


class Context(NamedTuple):
    """What a run of the daemon is given. `reload` reads the configuration again and raises `BadConfigError`."""

    state: StateDir
    holder: Holder
    # Where to listen if nothing else is configured.
    socket: str
    environ: Mapping[str, str]
    log: Log
    reload: Callable[[], Loaded]


class Daemon:
    """The parts and their order. Belongs to the loop that runs it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._fatal: QueueCTLError | None = None
        self._hub = Hub()
        context.holder.listen(lambda config: context.log.set_level(config.log_level))
        self._ledger = Ledger(
            open_store(context.state.database),
            publish=self._hub.publish,
            on_fatal=self._on_fatal,
            path=context.state.database,
        )
        self._socket = context.holder.config.socket or context.socket
        me = account(os.geteuid(), context.environ)
        files = raise_file_limit()
        world = self._world(me, files)
        records = Records(self._ledger, context.holder, boot_id=world.machine.boot_id, clock=time.time)
        self._supervisor = Supervisor(records, self._hub, context.holder, world)
        self._janitor = Janitor(self._ledger, context.holder, context.state.output, clock=time.time)
        self._server = Server(self._desk(me), clients=files.clients)

    def _world(self, me: Account, files: FileLimit) -> World:
        state, store = self._context.state, self._ledger.uuid
        # Ours, or those of a job that started us, are not for the jobs that we run.
        environ = {name: value for name, value in self._context.environ.items() if not name.startswith("QUEUECTL")}
        return World(
            machine=LinuxMachine(state, store, environ=environ, files=files),
            files=StateFiles(state, store),
            store=store,
            output=str(state.output),
            account=me,
            clock=time.time,
        )

    def _desk(self, me: Account) -> Desk:
        return Desk(
            ledger=self._ledger,
            control=self._supervisor,
            hub=self._hub,
            holder=self._context.holder,
            clock=time.time,
            luck=random.random,
            facts=Facts(
                pid=os.getpid(),
                uid=os.geteuid(),
                user=me.name,
                started_at=time.time(),
                socket=self._socket,
                state_dir=str(self._context.state.path),
                store=self._ledger.uuid,
            ),
        )

    async def run(self) -> int:
        """Serve until the end; return the exit code."""
        log.info("Starting", event_name="daemon.starting", state_dir=str(self._context.state.path))
        self._watch_signals()
        janitor: asyncio.Task[None] | None = None
        try:
            await self._supervisor.start()
            await self._server.start()
            self._context.state.record_socket(self._socket)
            janitor = self._loop.create_task(self._janitor.run())
            log.info("Ready", event_name="daemon.ready", path=self._socket, workers=self._supervisor.limit)
            await self._supervisor.wait_until_stopped()
        finally:
            if janitor is not None:
                janitor.cancel()
            await self._server.stop()
            await self._ledger.close()
            self._ignore_signals()
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._fatal is None:
            log.info("Stopped", event_name="daemon.stopped")
            return EXIT_OK
        log.critical("Cannot go on", event_name="daemon.failed", error=self._fatal.message)
        return EXIT_IO

    def _on_fatal(self, error: QueueCTLError) -> None:
        """The store cannot be trusted any more: leave the workers alone, end, and recover from the log."""
        self._fatal = error
        self._supervisor.shutdown("leave")

    # Signals only queue: the loop calls these between two callbacks.

    def _watch_signals(self) -> None:
        for number in _STOP:
            self._loop.add_signal_handler(number, self._asked_to_stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)
        self._loop.add_signal_handler(signal.SIGCHLD, reap)

    def _ignore_signals(self) -> None:
        """Whoever still asks for the end, at the very end, must not make it look like a failure."""
        for number in (*_STOP, signal.SIGHUP):
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _asked_to_stop(self) -> None:
        self._supervisor.shutdown("now" if self._supervisor.draining else "drain")

    def _asked_to_reload(self) -> None:
        try:
            loaded = self._context.reload()
        except BadConfigError as error:
            log.error("Configuration rejected", event_name="config.rejected", error=error.message)  # noqa: TRY400  (it tells all)
            return
        waiting = self._context.holder.replace(loaded)
        self._supervisor.reconfigure()
        log.info("Configuration read", event_name="config.loaded", path=loaded.config_file)
        _tell("Keys wait for the next start", "config.needs_restart", waiting)
        _tell("Values in the file have no effect", "config.hidden", loaded.hidden())


def _tell(message: str, event: str, keys: Sequence[str]) -> None:
    if keys:
        log.warning(message, event_name=event, keys=list(keys))


def reap() -> None:
    """Take leave of dead children: workers, and what fled from them to us."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return
