"""Between rows of the database and the structs of the domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.domain.job import Job, State
from queuectld.domain.spec import JobSpec, dec_hook, encode_spec
from queuectld.store.base import Entry
from queuectld.store.damage import unreadable
from queuectld.store.place import place_of
from queuectld.store.room import room_of

Row = Sequence[Any]

STATES: Final = tuple(State)
CODES: Final = {state: code for code, state in enumerate(STATES)}
# A kind of job that is counted by itself: dead, and somebody has taken notice.
SEEN_DEAD: Final = len(STATES)
KINDS: Final = (*STATES, State.DEAD)

_REASONS: Final[dict[str | None, Reason | None]] = {None: None, **{reason.value: reason for reason in Reason}}
# No second check: what is stored was checked when it came, by the rules of its time.
_read_spec: Final = msgspec.json.Decoder(JobSpec, dec_hook=dec_hook).decode
_read_outcome: Final = msgspec.json.Decoder(Outcome).decode
_read_entry: Final = msgspec.json.Decoder(Entry).decode
# What reading a row raises that nobody has written like that.
_UNREADABLE: Final = (msgspec.MsgspecError, LookupError, ValueError, TypeError)
_write_json: Final = msgspec.json.Encoder().encode

JOB: Final = (
    "seq, id, spec, owner, created_at, updated_at, due, rank, state, reason, environment, stdin, script, attempts, "
    "retries_spent, losses, first_started_at, started_at, ended_at, exit_code, signal, error, token, "
    "cancel_requested, seen, version"
)
# What a step of a job's life changes; the rest only when somebody edits the job.
LIFE: Final = (
    "updated_at, due, rank, state, reason, attempts, retries_spent, losses, first_started_at, started_at, ended_at, "
    "exit_code, signal, error, token, cancel_requested, seen, version, place"
)
ASKED: Final = "id, hidden, queue, owner, created_at, environment, stdin, script, spec"
ATTEMPT: Final = (
    "token, job, number, worker, worker_pid, worker_start, boot_id, queued_at, claimed_at, pid, pid_start, "
    "started_at, outcome, ended_at, output"
)


def job_of(row: Row) -> Job:
    """Read a job from the columns `JOB`."""
    try:
        return Job(
            seq=row[0],
            id=row[1],
            spec=_read_spec(row[2]),
            owner=row[3],
            created_at=row[4],
            updated_at=row[5],
            due=row[6],
            rank=row[7],
            state=STATES[row[8]],
            reason=_REASONS[row[9]],
            environment=row[10],
            stdin=row[11],
            script=row[12],
            attempts=row[13],
            retries_spent=row[14],
            losses=row[15],
            first_started_at=row[16],
            started_at=row[17],
            ended_at=row[18],
            exit_code=row[19],
            signal=row[20],
            error=row[21],
            token=row[22],
            cancel_requested=row[23],
            seen=row[24] != 0,
            version=row[25],
        )
    except _UNREADABLE as error:
        raise unreadable(f"job {row[1]}", error) from error


def life_of(job: Job) -> tuple[Any, ...]:
    """Return the columns `LIFE` of a job."""
    return (
        job.updated_at,
        job.due,
        job.rank,
        CODES[job.state],
        job.reason,
        job.attempts,
        job.retries_spent,
        job.losses,
        job.first_started_at,
        job.started_at,
        job.ended_at,
        job.exit_code,
        job.signal,
        job.error,
        job.token,
        job.cancel_requested,
        job.seen,
        job.version,
        place_of(job),
    )


def asked_of(job: Job) -> tuple[Any, ...]:
    """Return the columns `ASKED` of a job."""
    return (
        job.id,
        job.state is State.DELETED,
        job.queue,
        job.owner,
        job.created_at,
        job.environment,
        job.stdin,
        job.script,
        encode_spec(job.spec).decode(),
    )


def kind_of(job: Job) -> int:
    """Return under which kind a job is counted."""
    return SEEN_DEAD if job.seen and job.state is State.DEAD else CODES[job.state]


def attempt_of(row: Row) -> Attempt:
    """Read an attempt from the columns `ATTEMPT`."""
    try:
        return Attempt(
            token=row[0],
            job=row[1],
            number=row[2],
            worker=row[3],
            worker_pid=row[4],
            worker_start=row[5],
            boot_id=row[6],
            queued_at=row[7],
            claimed_at=row[8],
            pid=row[9],
            pid_start=row[10],
            started_at=row[11],
            outcome=None if row[12] is None else _read_outcome(row[12]),
            output=row[14],
        )
    except _UNREADABLE as error:
        raise unreadable(f"attempt {row[0]}", error) from error


def attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    """Return the columns `ATTEMPT` of an attempt."""
    return (
        attempt.token,
        attempt.job,
        attempt.number,
        attempt.worker,
        attempt.worker_pid,
        attempt.worker_start,
        attempt.boot_id,
        attempt.queued_at,
        attempt.claimed_at,
        attempt.pid,
        attempt.pid_start,
        attempt.started_at,
        *ending_row(attempt.outcome),
    )


def ending_row(outcome: Outcome | None) -> tuple[Any, ...]:
    """Return the columns outcome, ended_at and output of an attempt with this outcome."""
    if outcome is None:
        return (None, None, 0)
    return (_write_json(outcome).decode(), outcome.ended_at, room_of(outcome))


def entry_of(row: Row) -> Entry:
    """Read an entry from the columns number and body."""
    try:
        return msgspec.structs.replace(_read_entry(row[1]), number=row[0])
    except _UNREADABLE as error:
        raise unreadable(f"event {row[0]}", error) from error


def entry_row(entry: Entry, number: int) -> tuple[Any, ...]:
    """Return the columns number, at, seq and body of an entry that gets this number."""
    return (number, entry.at, entry.seq, _write_json(entry).decode())
