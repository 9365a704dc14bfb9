"""What clients say to the daemon and what it answers: one class a message. The parameter of a request is its reply.

The JSON Schema and the checks on the wire come from these classes; `PROTOCOL.md` tells the same for people. In replies,
times are texts in ISO 8601, UTC, with ``Z``; spans are seconds. Requests refuse unknown fields; clients ignore unknown
fields of replies, which may grow.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from queuectld.domain.spec import Duration, Name, Path, dec_hook, explain
from queuectld.errors import BadJsonError, BadRequestError, QueueCTLError, UnknownOpError
from queuectld.protocol.words import OPERATIONS

Reply = TypeVar("Reply", bound=msgspec.Struct)
# Every line of a stream carries it.
RequestId = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=128)]
# No more jobs fit into a line; other things might.
JOBS_LIMIT: Final = 65_536
VisibleState = Literal["pending", "processing", "completed", "failed", "dead", "cancelled"]
StreamName = Literal["stdout", "stderr"]
Instant = str


# The frame around everything.


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """The server's first line on every connection."""

    queuectld: str
    protocol: tuple[int, ...]
    features: tuple[str, ...]
    limits: dict[str, int]
    store: str
    # Whether `hello` with a token has to come first.
    authenticate: bool = False


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request, or one job of it, was refused."""

    code: str
    message: str
    path: str | None = None


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The request was refused. ``id`` is null where none could be read."""

    id: RequestId | None
    error: ErrorBody


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The request was carried out; the last line of a stream."""

    id: RequestId
    ok: msgspec.Struct


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """One of many lines of a stream."""

    id: RequestId
    event: msgspec.Struct


class Request(msgspec.Struct, Generic[Reply], frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What every request has."""

    # Changes are refused while draining and to observers; their effects are ordered.
    changes: ClassVar[bool] = False
    # Answers with events before its last line.
    streams: ClassVar[bool] = False

    id: RequestId


# Replies.


class Done(msgspec.Struct, frozen=True):
    """Nothing to tell but success."""


class Welcomed(msgspec.Struct, frozen=True, kw_only=True):
    """Who you are to the daemon."""

    user: str


class Pong(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon lives."""

    version: str
    pid: int
    time: Instant


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """One job that is stored now; ``created`` is false where a resent request met its own first copy."""

    id: str
    state: str
    created: bool
    run_at: Instant | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job of a bulk request that was not stored, by its position, beginning with 0."""

    index: int
    code: str
    message: str
    path: str | None = None


class Enqueued(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the jobs of a request, in its order."""

    jobs: tuple[Added, ...]
    refused: tuple[Refused, ...] = ()
    # Lines for people when nothing will happen soon: no workers, many ahead.
    warnings: tuple[str, ...] = ()


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """What lies ready under the key now."""

    jobs: int
    bytes: int


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job as clients see it; this much is promised to stay."""

    id: str
    command: str | None
    argv: tuple[str, ...] | None
    state: str
    reason: str | None
    attempts: int
    max_retries: int
    retries_left: int
    queue: str
    priority: int
    owner: str
    tags: dict[str, str]
    created_at: Instant
    updated_at: Instant
    run_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    duration: float | None
    exit_code: int | None
    signal: int | None
    error: str | None
    # Why it does not run now, in one word: not_due, busy, cancelling, … ; null if it runs or is over.
    waiting: str | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as clients see it."""

    number: int
    token: int
    worker: str
    pid: int | None
    queued_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    duration: float | None
    exit_code: int | None
    signal: int | None
    reason: str | None
    cpu_seconds: float | None
    peak_memory: int | None
    output_bytes: int
    output_missing: int
    leftovers: tuple[str, ...]
    message: str | None
    # Where its output is, on the daemon's host; null until the first byte. While a limit cuts it, only the first half.
    output_file: str | None = None


class JobDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a job."""

    job: JobView
    # The spec as it was asked for; of the environment only the names, unless the values were asked for.
    spec: dict[str, Any]
    history: tuple[AttemptView, ...]
    # The base of its environment: names only, or with values.
    env: dict[str, str | None] = {}
    # The last lines of the newest attempt's output.
    output_tail: str = ""


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs. ``next`` asks for the one behind it; null means that there is none.

    A page may be short, or empty, and still have a next one: each reads a bounded number of rows.
    """

    jobs: tuple[JobView, ...]
    next: str | None = None


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many match, by state."""

    total: int
    states: dict[str, int]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a changing verb did; with ``dry_run`` what it would have done."""

    # At most 1,000 ids, for a look; ``count`` is the truth.
    jobs: tuple[str, ...]
    count: int
    refused: tuple[Refused, ...] = ()
    # What could not be ended yet, as ``id: why``.
    pending: tuple[str, ...] = ()


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of output; ``b64`` is there instead of ``data`` where it is not UTF-8; ``missing`` bytes precede it."""

    job: str
    attempt: int
    stream: str
    offset: int
    at: Instant
    data: str | None = None
    b64: str | None = None
    missing: int = 0


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stood when what was asked came to its end; the fields of its newest attempt."""

    id: str
    state: str
    reason: str | None
    exit_code: int | None
    signal: int | None
    attempts: int
    error: str | None
    # Whether any attempt of it was ever started.
    ran: bool = True


class LogsEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the output: of each job that was asked for, how it stands."""

    jobs: tuple[Finished, ...]
    stopped: bool = False


class Waited(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a wait: how many came to what was waited for, and the first ones of them, in that order."""

    # At most 1,000, for a look; the events told all, ``count`` and ``states`` count all.
    jobs: tuple[Finished, ...]
    count: int
    states: dict[str, int]
    stopped: bool = False


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process. ``phase``: starting, idle, running, awaited, stopping."""

    name: str
    pid: int
    phase: str
    job: str | None
    attempt: int | None
    since: Instant
    started_at: Instant
    jobs_done: int
    memory: int | None
    descriptors: int | None
    cpu_seconds: float | None


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """The pool. ``limit`` bounds it; workers start on demand."""

    limit: int
    workers: tuple[WorkerView, ...]


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a queue are in each state."""

    name: str
    states: dict[str, int]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the daemon is."""

    version: str
    pid: int
    user: str
    # running, draining
    phase: str
    started_at: Instant
    uptime: float
    socket: str
    state_dir: str
    store: str
    config_file: str | None
    workers: int
    limit: int
    states: dict[str, int]
    queues: tuple[QueueView, ...]
    # Due time of the next job that waits for its time.
    next_due: Instant | None
    # For how many seconds the job has been waiting that is next in its queue; of all queues the longest.
    oldest_waiting: float | None
    # Sentences about what is wrong; empty is healthy.
    problems: tuple[str, ...]
    connections: int = 0


class EventView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened. ``gap`` says that older events than this one are gone."""

    number: int
    at: Instant
    event: str
    job: str | None = None
    queue: str | None = None
    owner: str | None = None
    was: str | None = None
    state: str | None = None
    attempt: int | None = None
    worker: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    run_at: Instant | None = None
    by: str | None = None
    gap: bool = False


class EventsEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on."""

    next: int
    stopped: bool = False


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration key. ``origin``: default, file, override, environment."""

    key: str
    value: Any
    origin: str
    # The file, variable, or who set it and when.
    source: str | None
    default: Any
    unit: str | None
    meaning: str
    # Whether a change takes effect at once, or only when the daemon starts again.
    live: bool


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration keys by name."""

    settings: tuple[Setting, ...]


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """A stream was ended."""

    stopped: bool = True


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
    # Makes a resent request harmless: the same key within a day gets the first answer again, or with other jobs an
    # error.
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
    """Give up dead jobs; they are gone after a day."""


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
    | StopStream
)

REQUESTS: Final[dict[str, type[Request[Any]]]] = {str(form.__struct_config__.tag): form for form in AnyRequest.__args__}


class _Envelope(msgspec.Struct):
    id: Any = None
    op: Any = None


_requests: Final = msgspec.json.Decoder(AnyRequest, dec_hook=dec_hook)
_envelope: Final = msgspec.json.Decoder(_Envelope)
_PARTIAL_ID: Final = re.compile(rb'^\s*\{\s*"id"\s*:\s*(\d{1,18})\s*[,}]')


class Unreadable(Exception):  # noqa: N818  (a line that is no request; carries the answer to it)
    """A line that is no request: the error, and its id as far as it could be read."""

    def __init__(self, request_id: RequestId | None, error: QueueCTLError) -> None:
        """Keep both for the answer."""
        super().__init__(error.message)
        self.request_id = request_id
        self.error = error

    def answer(self) -> Failed:
        """Return the line to send."""
        return Failed(id=self.request_id, error=error_body(self.error))


def error_body(error: QueueCTLError) -> ErrorBody:
    """Return what goes over the wire of an error."""
    return ErrorBody(code=error.code, message=error.message, path=error.path)


def decode_request(line: bytes) -> AnyRequest:
    """Read one request. Raises `Unreadable`."""
    try:
        return cast("AnyRequest", _requests.decode(line))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _diagnose(line, error) from None


def _diagnose(line: bytes, error: Exception) -> Unreadable:
    try:
        envelope = _envelope.decode(line)
    except msgspec.ValidationError:
        return Unreadable(None, BadRequestError("a request is a JSON object, one a line"))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as reason:
        # The number in front is often all there is to tell which request it was.
        found = _PARTIAL_ID.match(line)
        return Unreadable(int(found[1]) if found else None, BadJsonError(f"not JSON: {reason}"))
    try:
        known = msgspec.convert(envelope.id, RequestId)
    except msgspec.ValidationError:
        complaint = "a request needs an `id`, an integer up to 2**53 or a text of at most 128 characters"
        return Unreadable(None, BadRequestError(complaint, path="$.id"))
    if isinstance(error, UnicodeDecodeError):
        return Unreadable(known, BadJsonError(f"not UTF-8: {error}"))
    if envelope.op not in OPERATIONS:
        return Unreadable(known, UnknownOpError(f"there is no operation {envelope.op!r}", path="$.op"))
    return Unreadable(known, explain(error, REQUESTS[envelope.op]))
