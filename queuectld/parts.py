"""The parts of a daemon, put together."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from queuectld.check import check_named, check_next_log
from queuectld.config import Holder, Loaded
from queuectld.errors import QueueCTLError
from queuectld.figures.counts import Counts
from queuectld.host.file_limit import FileLimit, raise_file_limit
from queuectld.host.handover import Handover
from queuectld.host.ledger import Ledger
from queuectld.host.memory import give_memory_back
from queuectld.host.notify import Notifier, service_manager
from queuectld.host.passed import PassedSockets
from queuectld.host.program import Program
from queuectld.host.pulse import Signs
from queuectld.host.reload import ConfigWatch, Reloader, Stages
from queuectld.host.reserve import Reserve
from queuectld.host.spool_dir import SpoolDir, open_spool
from queuectld.host.state_dir import StateDir
from queuectld.host.watch import Observers
from queuectld.host.watchdog import Watchdog
from queuectld.log import Log
from queuectld.server.desk import Desk, Facts
from queuectld.server.monitor import Monitor
from queuectld.server.monitoring import Monitoring
from queuectld.server.server import Server
from queuectld.server.spool import Spool
from queuectld.service.account import Account, own_account
from queuectld.service.environment import of_service
from queuectld.service.hub import Hub
from queuectld.store.sqlite import open_store
from queuectld.supervisor.accounts import accounts_for
from queuectld.supervisor.files import StateFiles
from queuectld.supervisor.janitor import Janitor
from queuectld.supervisor.linux import LinuxMachine
from queuectld.supervisor.machine import Process
from queuectld.supervisor.records import Records
from queuectld.supervisor.supervisor import Supervisor
from queuectld.supervisor.world import World
from queuectld.values import group_id


class Context(NamedTuple):
    """What a run of the daemon is given. `reload` reads the configuration again and raises `BadConfigError`."""

    state: StateDir
    holder: Holder
    # Where to listen if nothing else is configured.
    socket: str
    log: Log
    # Where files with jobs are dropped unless it says otherwise.
    spool: Path
    # The configuration file, whether it is there or not.
    config_file: Path
    reload: Callable[[], Loaded]
    # What is wrong with it, where the configuration of the program before us is in force instead.
    rejected: str | None
    # How we were started, the environment included.
    program: Program
    # From the program that this process was before.
    handover: Handover | None
    # What the service manager listens on for us.
    passed: PassedSockets

    @property
    def address(self) -> str:
        """The Unix socket that clients connect to."""
        if self.passed.control is not None:
            return self.passed.control.where
        return self.holder.config.socket or self.socket


class Parts(NamedTuple):
    """All that has to be started and ended."""

    ledger: Ledger
    supervisor: Supervisor
    janitor: Janitor
    reloader: Reloader
    config_watch: ConfigWatch
    spool: Spool
    server: Server
    machine: LinuxMachine
    notifier: Notifier
    watchdog: Watchdog
    monitoring: Monitoring
    counts: Counts
    # What was allowed before we took all that we may have.
    files: FileLimit

    def signs(self) -> Signs:
        """Return what has moved."""
        asked, answered = self.ledger.progress
        claims, claimed, neglected = self.supervisor.claims()
        return Signs(asked, answered, claims, claimed, neglected)


def assemble(
    context: Context,
    *,
    on_fatal: Callable[[QueueCTLError], None],
    reexec: Callable[[], Awaitable[None]],
    stages: Stages,
) -> Parts:
    """Open the store and put everything on it; nothing happens yet. Raises `StoreError`.

    `on_fatal` is told that the store cannot be trusted any more, `reexec` is what the request of that name does,
    and `stages` are those of a reload.
    """
    hub, holder, counts = Hub(), context.holder, Counts()
    counts.config_read(time.time(), valid=context.rejected is None)
    hub.subscribe(counts.committed)
    database = context.state.database
    holder.listen(lambda config: context.log.set_level(config.log_level))
    reserve = Reserve(context.state.reserve)
    # A log that is not there yet may be all that does not fit on the disk.
    store = reserve.lend_to(lambda: open_store(database, committed=counts.commits.observe))
    ledger = Ledger(store, publish=hub.publish, on_fatal=on_fatal, path=database, reserve=reserve)
    me = own_account(os.geteuid(), context.program.environ)
    files = raise_file_limit()
    give_memory_back()
    machine = _machine(context, ledger.uuid, files)
    records = Records(ledger, holder, boot_id=machine.boot_id, clock=time.time, counts=counts)
    notifier = Notifier(context.program.environ)
    watchdog = Watchdog(notifier)
    world = _world(context, ledger.uuid, machine, me, counts)
    supervisor = Supervisor(records, hub, holder, world, beat=watchdog.beat)
    janitor = Janitor(ledger, holder, context.state.output, clock=time.time)
    hub.subscribe(janitor.committed)
    reloader = Reloader(
        context.reload,
        holder,
        file=context.config_file,
        stages=stages,
        reconfigure=supervisor.reconfigure,
        rejected=context.rejected,
    )
    reloader.ask(check_named)
    reloader.ask(partial(check_next_log, holder.config))
    observers = Observers()
    spool = Spool(
        ledger, supervisor, holder, observers, usual=context.spool, clock=time.time, opened=partial(_open_spool, holder)
    )
    desk = Desk(
        ledger=ledger,
        control=supervisor,
        hub=hub,
        holder=holder,
        clock=time.time,
        luck=random.random,
        facts=_facts(context, ledger.uuid, me, machine),
        reexec=reexec,
        vigil=watchdog,
        reloader=reloader,
        counts=counts,
    )
    monitor = Monitor(desk, database, progress=lambda: (*ledger.progress, ledger.kept_output))
    monitoring = Monitoring(monitor, holder)
    desk.complaints += [context.log.problems, monitoring.problems, spool.problems]
    return Parts(
        ledger=ledger,
        supervisor=supervisor,
        janitor=janitor,
        reloader=reloader,
        config_watch=ConfigWatch(reloader, holder, observers),
        spool=spool,
        server=Server(desk, clients=files.clients),
        machine=machine,
        notifier=notifier,
        watchdog=watchdog,
        monitoring=monitoring,
        counts=counts,
        files=files,
    )


def _open_spool(holder: Holder, path: Path) -> SpoolDir:
    # Those who may connect may put files there, where that is more than one person.
    return open_spool(path, shared=None if os.geteuid() else group_id(holder.config.socket_group, "socket_group"))


def _machine(context: Context, store: str, files: FileLimit) -> LinuxMachine:
    family = None if context.handover is None else [Process(*child) for child in context.handover.family]
    environ = worker_environment(context.program.environ)
    cgroups = context.holder.config.cgroups == "auto"
    return LinuxMachine(context.state, store, environ=environ, files=files, family=family, cgroups=cgroups)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what workers get of our environment: nothing of ours, of our service manager, nor of a job behind us."""
    return {name: value for name, value in environ.items() if not (name.startswith("QUEUECTL") or of_service(name))}


def _world(context: Context, store: str, machine: LinuxMachine, me: Account, counts: Counts) -> World:
    return World(
        machine=machine,
        files=StateFiles(context.state, store),
        store=store,
        output=str(context.state.output),
        accounts=accounts_for(me, context.program.environ),
        clock=time.time,
        note=counts.worker,
    )


def _facts(context: Context, store: str, me: Account, machine: LinuxMachine) -> Facts:
    return Facts(
        pid=os.getpid(),
        uid=os.geteuid(),
        user=me.name,
        started_at=time.time(),
        socket=context.address,
        state_dir=str(context.state.path),
        store=store,
        isolation=machine.isolation,
        service_manager=service_manager(context.program.environ, os.getpid()),
    )
