"""What clients say to the daemon: one class a request, whose parameter is its reply.

The JSON Schema and the checks on the wire come from these classes; `PROTOCOL.md` tells the same for people. Requests
refuse unknown fields.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from queuectld.domain.spec import Duration, Name, Path
from queuectld.protocol.frames import Request, RequestId
from queuectld.protocol.replies import (
    Changed,
    Count,
    Done,
    Enqueued,
    EventsEnd,
    JobDetail,
    Jobs,
    LogsEnd,
    Pong,
    Reloaded,
    Settings,
    Staged,
    Status,
    Stopped,
    Waited,
    Welcomed,
    Workers,
)

# No more jobs fit into a line; other things might.
JOBS_LIMIT: Final = 65_536
VisibleState = Literal["pending", "processing", "completed", "failed", "dead", "cancelled"]
StreamName = Literal["stdout", "stderr"]


# Which jobs.


class Selector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which jobs: the given ones, or those that satisfy all conditions. Empty selects all."""

    # Ids, or unique prefixes of at least four characters.
    ids: Annotated[tuple[str, ...], Meta(max_length=10_000)] = ()
    queue: tuple[str, ...] = ()
    state: tuple[VisibleState, ...] = ()
    # key=value each
    tags: tuple[str, ...] = ()
    owner: str | None = None
    # Created in [since, until); ended not before ended_since. Seconds since the epoch.
    since: float | None = None
    until: float | None = None
    ended_since: float | None = None
    # A glob over the command.
    command: Annotated[str, Meta(max_length=4096)] | None = None
    exit_code: int | None = None
    # Of dead ones: those already dealt with, or those not.
    seen: bool | None = None


# Requests.


class Hello(Request[Welcomed], frozen=True, kw_only=True, tag="hello"):
    """Names a client; over TCP it authenticates too."""

    token: str | None = None
    client: str | None = None


class Ping(Request[Pong], frozen=True, kw_only=True, tag="ping"):
    """Is anybody there."""


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the jobs of a request come from; each job may say otherwise."""

    env: dict[str, str] | None = None
    cwd: Path | None = None
    umask: Annotated[int, Meta(ge=0, le=0o777)] | None = None


class Enqueue(Request[Enqueued], frozen=True, kw_only=True, tag="enqueue"):
    """Store jobs, in one transaction. Each job is read by itself, so that one bad one harms no other."""

    changes: ClassVar[bool] = True

    jobs: Annotated[tuple[msgspec.Raw, ...], Meta(max_length=JOBS_LIMIT)] = ()
    # Takes the jobs staged under this key first.
    staged: str | None = None
    submission: Submission = Submission()
    # All or none.
    atomic: bool = False
    # Check, and store nothing.
    dry_run: bool = False
    # Makes a resent request harmless: within ``retention.requests`` the same key gets the first answer again, or with
    # other jobs an error.
    request: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class Stage(Request[Staged], frozen=True, kw_only=True, tag="stage"):
    """Put down what is too long for one line, piece by piece, for an enqueue of the same connection to take up."""

    changes: ClassVar[bool] = True

    key: Name
    jobs: Annotated[tuple[msgspec.Raw, ...], Meta(max_length=JOBS_LIMIT)] = ()
    # A piece of an input, for ``{"staged": key}`` in ``stdin`` or ``script``.
    data: str | None = None
    b64: bytes | None = None


class GetJob(Request[JobDetail], frozen=True, kw_only=True, tag="get"):
    """Everything about one job."""

    job: str
    with_env: bool = False
    # Lines of output.
    tail: Annotated[int, Meta(ge=0, le=1000)] = 10


class ListJobs(Request[Jobs], frozen=True, kw_only=True, tag="list"):
    """Jobs that match, oldest first, a page at a time; newest first with ``reverse``."""

    select: Selector = Selector()
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    reverse: bool = False


class CountJobs(Request[Count], frozen=True, kw_only=True, tag="count"):
    """How many jobs match."""

    select: Selector = Selector()


class LogPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to where somebody has read the output of a job; attempt 0: there was none yet."""

    job: str
    attempt: Annotated[int, Meta(ge=0)]
    offset: Annotated[int, Meta(ge=0)]


class Logs(Request[LogsEnd], frozen=True, kw_only=True, tag="logs"):
    """The output of jobs, as events. With ``follow`` until the jobs are over, next attempts included."""

    streams: ClassVar[bool] = True

    jobs: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    # A number, or null for the newest; with ``follow`` the ones after it too.
    attempt: Annotated[int, Meta(ge=1)] | Literal["all"] | None = None
    follow: bool = False
    # Only this stream.
    stream: StreamName | None = None
    # From this logical offset of the first attempt shown, or its last so many lines, or from this instant.
    offset: Annotated[int, Meta(ge=0)] = 0
    lines: Annotated[int, Meta(ge=0)] | None = None
    since: float | None = None
    # Where to go on with those of the jobs that were read before, instead of all that.
    places: Annotated[tuple[LogPlace, ...], Meta(max_length=100)] = ()
    # An event without data tells the place where a job begins that has nothing to show yet.
    marks: bool = False
    # The attempt (its token, as in QUEUECTL_ATTEMPT_TOKEN) whose worker is lent while this waits.
    lend: str | None = None


class Wait(Request[Waited], frozen=True, kw_only=True, tag="wait"):
    """Wait until jobs come to rest (or to a state); one event for each that does."""

    streams: ClassVar[bool] = True

    select: Selector
    # null: completed, dead, cancelled
    until: tuple[VisibleState, ...] | None = None
    # The first one is enough.
    any: bool = False
    # End at the first that does not succeed.
    fail_fast: bool = False
    # A final failure told here counts as seen: an attached ``run`` delivers it to its person.
    mark_seen: bool = False
    lend: str | None = None


class SignalJob(Request[Done], frozen=True, kw_only=True, tag="signal"):
    """Pass a signal on to the command of a running job."""

    changes: ClassVar[bool] = True

    job: str
    number: Annotated[int, Meta(ge=1, le=64)]


class Bulk(Request[Changed], frozen=True, kw_only=True):
    """What verbs over many jobs share. They run in steps, each durable; others are served in between."""

    changes: ClassVar[bool] = True

    select: Selector
    dry_run: bool = False


class Cancel(Bulk, frozen=True, kw_only=True, tag="cancel"):
    """Waiting jobs: at once. Running ones: TERM, then KILL; answers when the last process is gone."""

    reason: Annotated[str, Meta(max_length=1024)] = ""
    kill_after: Duration | None = None
    # Answer when it is stored, not when it is done.
    no_wait: bool = False


class Retry(Bulk, frozen=True, kw_only=True, tag="retry"):
    """Bring jobs back: those that wait for a retry, dead, cancelled and completed ones."""

    delay: Duration | None = None
    # At most so many.
    limit: Annotated[int, Meta(ge=1)] | None = None
    # Spread their starts over this time.
    spread: Duration | None = None


class Discard(Bulk, frozen=True, kw_only=True, tag="discard"):
    """Give up dead jobs; they are gone after ``retention.deleted``."""


class Undelete(Bulk, frozen=True, kw_only=True, tag="undelete"):
    """Bring back discarded jobs, by their ids."""


class WorkerList(Request[Workers], frozen=True, kw_only=True, tag="worker_list"):
    """The pool."""


class WorkerStart(Request[Workers], frozen=True, kw_only=True, tag="worker_start"):
    """Set the bound of the pool and start that many; the bound is kept. Without a count: what is configured."""

    changes: ClassVar[bool] = True

    count: Annotated[int, Meta(ge=1, le=10_000)] | None = None


class WorkerStop(Request[Workers], frozen=True, kw_only=True, tag="worker_stop"):
    """Set the bound to 0; running jobs may end, or with ``now`` go back to their queues."""

    changes: ClassVar[bool] = True

    now: bool = False


class GetStatus(Request[Status], frozen=True, kw_only=True, tag="status"):
    """How the daemon is."""


class Events(Request[EventsEnd], frozen=True, kw_only=True, tag="events"):
    """What happened, from a number on; with ``follow`` what happens too."""

    streams: ClassVar[bool] = True

    # The first number wanted; null: only what happens from now on.
    start: Annotated[int, Meta(ge=0)] | None = None
    follow: bool = False
    job: str | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None


class ConfigList(Request[Settings], frozen=True, kw_only=True, tag="config_list"):
    """Configuration keys: the named ones, or all."""

    keys: tuple[str, ...] = ()


class ConfigSet(Request[Settings], frozen=True, kw_only=True, tag="config_set"):
    """Override a key, at once and after a restart. The value may be a text, read as the key's type."""

    changes: ClassVar[bool] = True

    key: str
    value: Any


class ConfigUnset(Request[Settings], frozen=True, kw_only=True, tag="config_unset"):
    """Take an override away."""

    changes: ClassVar[bool] = True

    key: str


class Shutdown(Request[Done], frozen=True, kw_only=True, tag="shutdown"):
    """End the daemon. Answered when it is under way; the connection closes when it is done."""

    # drain: running jobs may end for shutdown_grace; wait: however long they take; now: no grace; leave: they go on,
    # and the next daemon adopts them.
    mode: Literal["drain", "wait", "now", "leave"] = "drain"


class Reexec(Request[Done], frozen=True, kw_only=True, tag="reexec"):
    """Put the program that is installed now in the place of the running one: same process, same sockets, same workers.

    Answered once the new program has checked itself, its configuration and the database; then all connections close,
    and who connects again waits until the new program answers. If the check fails nothing is changed.
    """

    changes: ClassVar[bool] = True


class Reload(Request[Reloaded], frozen=True, kw_only=True, tag="reload"):
    """Read the configuration again, and take up all of it or nothing."""

    changes: ClassVar[bool] = True


class StopStream(Request[Stopped], frozen=True, kw_only=True, tag="stop"):
    """End a stream of this connection; it answers first, with what it has."""

    stream: RequestId


AnyRequest = (
    Hello
    | Ping
    | Enqueue
    | Stage
    | GetJob
    | ListJobs
    | CountJobs
    | Logs
    | Wait
    | SignalJob
    | Cancel
    | Retry
    | Discard
    | Undelete
    | WorkerList
    | WorkerStart
    | WorkerStop
    | GetStatus
    | Events
    | ConfigList
    | ConfigSet
    | ConfigUnset
    | Shutdown
    | Reexec
    | Reload
    | StopStream
)

REQUESTS: Final[dict[str, type[Request[Any]]]] = {str(form.__struct_config__.tag): form for form in AnyRequest.__args__}
_OPERATIONS: Final = {form: op for op, form in REQUESTS.items()}


def operation(request: AnyRequest) -> str:
    """Return the ``op`` of a request."""
    return _OPERATIONS[type(request)]
