"""The account of every change that was asked for: by whom, what, from where, and what became of it. Goes to the log.

Requests without effect are no part of it, unless somebody asked for what is not his. Commands, environments and values
of configuration keys never are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import structlog

from queuectld.errors import ForbiddenError, QueueCTLError
from queuectld.protocol.frames import Request
from queuectld.protocol.messages import (
    AnyRequest,
    Bulk,
    ConfigSet,
    ConfigUnset,
    Enqueue,
    GetJob,
    Logs,
    Shutdown,
    SignalJob,
    Wait,
)
from queuectld.protocol.replies import Added, Changed, Enqueued
from queuectld.server.answers import Told
from queuectld.server.who import Peer
from queuectld.service.submit import Undone

# Seconds within which the same is told in one line with a number: a line for each of 12,000 requests a second would
# cost half of them.
WINDOW: Final = 1.0
# Names that a line has at most; `count` and `requests` are the truth. A name is as long as an id can be.
NAMED: Final = 20
_LONGEST: Final = 128

# Requests that may ask what would be done.
_REHEARSED: Final = (Enqueue, Bulk)

log = structlog.get_logger()

# Of requests that can share a line: what they ask for, the result, and whether anything was refused.
_Kind = tuple[type[Request[Any]], str, bool]
_STORED: Final[_Kind] = (Enqueue, "ok", False)


class Named(Protocol):
    """Whose requests these are, as far as that is known by now."""

    peer: Peer


class _Result(NamedTuple):
    """What became of a request: ``ok`` or the code of an error, which jobs it concerned, how many, how many not."""

    code: str
    jobs: tuple[str, ...] = ()
    number: int | None = None
    refused: int = 0


class _Line:
    """What is told next of requests of one kind that came to the same."""

    __slots__ = ("jobs", "keys", "mode", "number", "refused", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.jobs: list[str] = []
        self.keys: list[str] = []
        self.number: int | None = None
        self.refused = 0
        self.mode: str | None = None

    def add_job(self, job: Added) -> None:
        self.requests += 1
        self.number = (self.number or 0) + job.created
        if len(self.jobs) < NAMED:
            self.jobs.append(job.id)

    def add(self, request: AnyRequest, result: _Result) -> None:
        self.requests += 1
        self.refused += result.refused
        if result.number is not None:
            self.number = (self.number or 0) + result.number
        if len(self.jobs) < NAMED:
            self.jobs += islice(result.jobs or _named(request), NAMED - len(self.jobs))
            self._add_rest(request)

    def _add_rest(self, request: AnyRequest) -> None:
        match request:
            case ConfigSet() | ConfigUnset() if len(self.keys) < NAMED:
                self.keys += (key for key in _clean((request.key,)) if key not in self.keys)
            case Shutdown():
                self.mode = request.mode
            case _:
                pass


class Audit:
    """The account of one connection. The first request is told at once; what follows soon shares a line."""

    def __init__(self, client: Named) -> None:
        self._client = client
        # Those that nobody has been told of yet.
        self._lines: dict[_Kind, _Line] = {}
        self._closed = False

    def of(self, request: AnyRequest) -> Told:
        """Return what has to be told how this request ended."""
        if not request.changes and type(request) is not Shutdown:
            return partial(self._watch, request)
        if isinstance(request, _REHEARSED) and request.dry_run:
            return partial(self._watch, request)
        return partial(self._account, request)

    def close(self) -> None:
        """Tell what has not been told yet; what still comes is told at once."""
        self._closed = True
        for key, line in self._lines.items():
            self._tell(key, line)
        self._lines.clear()

    def _watch(self, request: AnyRequest, told: object) -> None:
        if isinstance(told, ForbiddenError):
            self._account(request, told)

    def _account(self, request: AnyRequest, told: object) -> None:
        if type(told) is Enqueued and len(told.jobs) == 1 and not told.refused:
            # By far the most, thousands a second: the same as below, in a third of the time.
            line = self._lines.get(_STORED)
            if line is not None:
                line.add_job(told.jobs[0])
                return
        result = _result(told)
        key = (type(request), result.code, result.code != "ok" or result.refused > 0)
        if (line := self._lines.get(key)) is not None:
            line.add(request, result)
            return
        line = _Line()
        line.add(request, result)
        self._tell(key, line)
        if not self._closed:
            self._open(key)

    def _open(self, key: _Kind) -> None:
        self._lines[key] = _Line()
        asyncio.get_running_loop().call_later(WINDOW, self._due, key)

    def _due(self, key: _Kind) -> None:
        line = self._lines.pop(key, None)
        if line is not None and line.requests:
            self._tell(key, line)
            self._open(key)

    def _tell(self, key: _Kind, line: _Line) -> None:
        if not line.requests:
            return
        form, code, refused = key
        peer = self._client.peer
        write = log.warning if refused else log.info
        write(
            "Change refused" if code != "ok" else "Change carried out",
            event_name="audit.request",
            user=peer.user,
            peer_uid=peer.uid,
            role=peer.role,
            origin=peer.origin,
            op=form.__struct_config__.tag,
            result=code,
            count=line.number,
            jobs=line.jobs or None,
            keys=line.keys or None,
            refused=line.refused or None,
            requests=line.requests,
            mode=line.mode,
        )


def _result(told: object) -> _Result:
    match told:
        case Undone():
            return _of_reply(told.reply.refused, (), 0)
        case QueueCTLError():
            return _Result(told.code)
        case Enqueued():
            names = tuple(job.id for job in islice(told.jobs, NAMED))
            return _of_reply(told.refused, names, sum(job.created for job in told.jobs))
        case Changed():
            return _of_reply(told.refused, told.jobs[:NAMED], told.count)
        case Exception():
            return _Result(QueueCTLError.code)
        case _:
            return _Result("ok")


def account_for_file(name: str, user: str, uid: int, reply: Enqueued) -> None:
    """Account for the jobs of a file that somebody put into the spool; one that was refused is told as such."""
    log.info(
        "Change carried out",
        event_name="audit.request",
        user=user,
        peer_uid=uid,
        origin=f"file {name}",
        op=Enqueue.__struct_config__.tag,
        result="ok",
        count=len(reply.jobs),
        jobs=[job.id for job in islice(reply.jobs, NAMED)],
        requests=1,
    )


def _of_reply(refused: tuple[Any, ...], jobs: tuple[str, ...], count: int) -> _Result:
    return _Result(refused[0].code if refused and not jobs else "ok", jobs, count, len(refused))


def _named(request: AnyRequest) -> Iterable[str]:
    """Return what a request calls the jobs that it is about."""
    match request:
        case SignalJob() | GetJob():
            return _clean((request.job,))
        case Logs():
            return _clean(request.jobs[:NAMED])
        case Bulk() | Wait():
            return _clean(request.select.ids[:NAMED])
        case _:
            return ()


def _clean(names: tuple[str, ...]) -> list[str]:
    # They may be anything, and as long as a line.
    return [name[:_LONGEST] if name.isprintable() else repr(name[:_LONGEST]) for name in names]
