"""Which request is answered by what: one function a request, none of which parses or prints anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, assert_never

import msgspec

from queuectld.errors import BadRequestError, DrainingError
from queuectld.protocol.messages import (
    AnyRequest,
    Cancel,
    ConfigList,
    ConfigSet,
    ConfigUnset,
    CountJobs,
    Discard,
    Enqueue,
    Events,
    GetJob,
    GetStatus,
    Hello,
    ListJobs,
    Logs,
    Ping,
    Reexec,
    Reload,
    Retry,
    Shutdown,
    SignalJob,
    Stage,
    StopStream,
    Undelete,
    Wait,
    WorkerList,
    WorkerStart,
    WorkerStop,
)
from queuectld.protocol.replies import Done, Pong, Welcomed
from queuectld.protocol.words import VERSION
from queuectld.server import settings
from queuectld.server.await_jobs import await_jobs
from queuectld.server.bulk import By, cancel_many, change_many, count_many, enqueue_many
from queuectld.server.desk import Desk
from queuectld.server.follow_logs import follow_logs
from queuectld.server.plan import Change, Now, Plan, Read, Reads, Stop, Stream, Write
from queuectld.server.signalling import signal_job
from queuectld.server.tell_events import tell_events
from queuectld.server.who import Peer, Role
from queuectld.service import jobs
from queuectld.service.owner import Submitter
from queuectld.service.sight import Others, Sight
from queuectld.service.staging import Staging
from queuectld.service.status import Basis, outline, report
from queuectld.service.submit import PART, Order, Terms, enqueue_all
from queuectld.service.views import iso

_STAGED: Final = b'"staged"'


def plan(  # noqa: C901, PLR0911, PLR0912  (a table: one line a request)
    desk: Desk, peer: Peer, sight: Sight, staging: Staging, request: AnyRequest
) -> Plan:
    """Decide what a request needs that may see so much.

    Raises `QueueCTLError` where that is known to be nothing but a refusal.
    """
    if request.changes and desk.control.draining:
        raise DrainingError
    user, by = peer.user, By(peer.user, sight)
    match request:
        case Hello():
            return Now(Welcomed(user=user, role=peer.role.value))
        case Ping():
            return Now(Pong(version=VERSION, pid=desk.facts.pid, time=iso(desk.clock())))
        case Enqueue():
            return _enqueue(desk, peer, staging, request)
        case Stage():
            return Now(staging.put(request))
        case GetJob():
            lens, limit = desk.lens(sight), desk.config.output_limit
            return Read(
                partial(jobs.detail, request=request, lens=lens, output_dir=desk.output_dir, output_limit=limit)
            )
        case ListJobs():
            return Read(partial(jobs.listing, request=request, lens=desk.lens(sight)))
        case CountJobs():
            return Reads(partial(count_many, desk, request, sight))
        case Logs():
            return Stream(partial(follow_logs, desk, request, sight))
        case Wait():
            return Stream(partial(await_jobs, desk, request, by))
        case SignalJob():
            return _change(partial(signal_job, desk, request, sight))
        case Cancel():
            return Change(partial(cancel_many, desk, request, by), long=not request.no_wait)
        case Retry() | Discard() | Undelete():
            return _change(partial(change_many, desk, request, by))
        case WorkerList():
            return Now(settings.list_workers(desk, sight))
        case WorkerStart():
            return _change(partial(settings.start_workers, desk, request, user))
        case WorkerStop():
            return _change(partial(settings.stop_workers, desk, request, user))
        case GetStatus():
            # Beside the writes: how the daemon is can be asked while it stores a hundred thousand jobs, or is stuck.
            return Read(partial(outline if sight.others is Others.REFUSED else report, basis=_basis(desk, sight)))
        case Events():
            return Stream(partial(tell_events, desk, request, sight))
        case ConfigList():
            return Now(settings.list_settings(desk, request))
        case ConfigSet():
            return _change(partial(settings.set_key, desk, request, user))
        case ConfigUnset():
            return _change(partial(settings.unset_key, desk, request, user))
        case Shutdown():
            desk.control.shutdown(request.mode)
            return Now(Done())
        case Reexec():
            return _change(partial(_reexec, desk))
        case Reload():
            return _change(partial(settings.reload, desk, user))
        case StopStream():
            return Stop(request.stream)
        case _:
            assert_never(request)


def _change(run: Callable[[], Awaitable[msgspec.Struct]]) -> Change:
    """Return a change that nothing behind it overtakes before its end."""
    return Change(lambda _settled: run())


async def _reexec(desk: Desk) -> Done:
    await desk.reexec()
    return Done()


def _enqueue(desk: Desk, peer: Peer, staging: Staging, request: Enqueue) -> Plan:
    jobs, inputs = request.jobs, {}
    if request.staged is not None or any(_STAGED in bytes(job) for job in jobs):
        jobs = (*(staging.jobs(request.staged) if request.staged is not None else ()), *jobs)
        inputs = staging.inputs()
        if not request.dry_run:
            # Taken up, whatever becomes of it.
            staging.take()
    if not jobs:
        raise BadRequestError("no jobs", path="$.jobs")
    submitter = Submitter(peer.user, peer.role is Role.ADMIN, desk.facts.only)
    terms = Terms(submitter, desk.config, desk.policy, desk.control.limit, desk.ahead, desk.clock())
    order = Order(request, jobs, inputs, terms)
    if len(jobs) <= PART and (part := order.part(0)).stop == len(jobs):
        return Write(partial(enqueue_all, order=order, whole=part), part.weight, sheds=True)
    return Change(lambda _settled: enqueue_many(desk, order))


def _basis(desk: Desk, sight: Sight) -> Basis:
    facts, control = desk.facts, desk.control
    return Basis(
        pid=facts.pid,
        user=facts.user,
        draining=control.draining,
        started_at=facts.started_at,
        socket=facts.socket,
        state_dir=facts.state_dir,
        store=facts.store,
        config_file=desk.holder.loaded.config_file,
        workers=len(control.workers()),
        limit=control.limit,
        problems=desk.problems(whole=sight.all),
        isolation=facts.isolation,
        loop=desk.vigil.loop(),
        service_manager=facts.service_manager,
        connections=desk.connections,
        now=desk.clock(),
    )
