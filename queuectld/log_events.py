"""The vocabulary of the daemon's log: stable names of events, and the types of fields. Programs read these.

A name, once released, stays. ``python -m queuectld.log_events`` prints the JSON Schema that is shipped with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from queuectld.domain.transitions import Event

_STEPS: Final[Mapping[Event, str]] = {
    Event.CLAIM: "a worker got a job to run",
    Event.COMPLETE: "a job ended well",
    Event.RETRY: "a job failed and waits for its next try",
    Event.BURY: "a job failed for good and is in the dead letter queue",
    Event.REQUEUE: "a job's attempt ended without its fault; it waits again, no retry spent",
    Event.CANCEL: "a job was cancelled",
    Event.REVIVE: "a person brought a job back",
    Event.DISCARD: "a person gave up a dead job",
    Event.UNDELETE: "a person brought a discarded job back",
}

# What each event means, in a line.
EVENTS: Final[Mapping[str, str]] = {
    **{event.value: meaning for event, meaning in _STEPS.items()},
    "job.enqueued": "jobs were stored",
    "job.finished": "an attempt is over; the one line about it that has everything",
    "job.adopted": "a job that ran on without the daemon was found again",
    "job.rescued": "what a lost worker had left running is ended, and the end of its attempt on record",
    "job.stuck": "processes of a job do not die, or cannot even be looked for",
    "job.seen": "a person took notice of a final failure",
    "job.cancel_requested": "a person asked for the end of a running job",
    "worker.started": "a worker process was started",
    "worker.ready": "a worker process reported for work",
    "worker.adopted": "a worker that an earlier daemon started came back with its job",
    "worker.awaited": "the connection to a worker with a job is gone; it is expected back",
    "worker.retired": "a worker that is not needed any more was told to end",
    "worker.ended": "a worker process is gone, and nothing of it is left",
    "worker.lost": "a worker process is gone without having been asked to end",
    "worker.replaced": "a sick or bloated worker was told to end, or was killed",
    "worker.refused": "something other than a worker of this queue spoke to the worker socket",
    "worker.failed": "a worker could not be started",
    "worker.resting": "the host could not start a command; the worker rests",
    "outcome.recovered": "results that workers left on disk were stored",
    "daemon.starting": "the daemon begins",
    "daemon.ready": "the daemon takes requests",
    "daemon.check_failed": "the program that was to take over cannot start; the running one goes on",
    "daemon.replaced": "the program that is installed now takes over in the same process",
    "daemon.stalled": "something that the daemon waits for does not move; stacks follow on stderr",
    "daemon.told_to_end": "a signal came; the reason tells what the service manager does, if it is one",
    "daemon.draining": "the daemon stops; nothing new is started",
    "daemon.stopped": "the daemon has ended as asked",
    "daemon.failed": "the daemon cannot start or go on; with the code that it ends with if it could not start",
    "daemon.swept": "jobs that ran without a daemon were ended, since the service was stopped",
    "config.loaded": "the configuration was read",
    "config.set": "a key was overridden",
    "config.unset": "an override was taken away",
    "config.rejected": "a changed configuration is not valid; the old one stays in force",
    "config.hidden": "a value in the configuration file has no effect, because something else hides it",
    "config.needs_restart": "changed keys wait for the next start",
    "watch.failed": "the host does not tell of changes in a directory; it is looked at now and then instead",
    "watch.works": "the host tells of changes in a directory again",
    "spool.taken": "the jobs of a file in the spool were stored",
    "spool.refused": "a file in the spool cannot be used; it lies in failed/, with the reason beside it",
    "spool.failed": "files in the spool are not taken, because of something that is not their fault",
    "spool.works": "files in the spool are taken again",
    "server.listening": "clients can connect",
    "server.strange_socket": "the service manager passed a socket that nobody knows the use of",
    "client.refused": "a client was turned away",
    "audit.request": "somebody asked for a change, or for what is not his: who, what, from where, with what result",
    "request.failed": "a request met an error inside the daemon",
    "metrics.listening": "figures can be read over HTTP",
    "metrics.failed": "figures cannot be offered; it is tried again",
    "metrics.recovered": "figures can be offered again",
    "store.failed": "the database cannot be used",
    "output.removed": "output of old attempts was removed, since all together was too much",
    "store.full": "the disk is full; no new jobs are taken until there is space again",
    "store.space": "the disk has space again",
    "store.expired": "what was kept long enough was removed",
    "log.reopened": "the log file was opened anew, as SIGUSR1 asks",
    "log.file_failed": "the log file cannot be written; lines go to standard error until it can",
    "log.file_back": "the log file is written again; so many lines went to standard error",
    "library.message": "a library has something to say",
    "library.warning": "Python or a library warns",
    "uncaught": "an error that nobody handled",
}

_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_NUMBER: Final = {"type": "number"}

# On every line, in this order, before all else.
CORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"},
    "level": {"enum": ["debug", "info", "warning", "error", "critical"]},
    "message": _TEXT,
    "event": {"enum": sorted(EVENTS)},
    "service": {"const": "queuectld"},
    "version": _TEXT,
    "pid": {"type": "integer", "minimum": 1},
}

# A field has one type wherever it occurs.
FIELDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "logger": _TEXT,
    "truncated": {"const": True},
    "job_id": _TEXT,
    "queue": _TEXT,
    "owner": _TEXT,
    "state": _TEXT,
    "worker_id": _TEXT,
    "worker_pid": {"type": "integer", "minimum": 1},
    "attempt": {"type": "integer", "minimum": 1},
    "token": _COUNT,
    "reason": _TEXT,
    "exit_code": {"type": "integer", "minimum": 0, "maximum": 255},
    "signal": {"type": "integer", "minimum": 1, "maximum": 64},
    "duration_ms": _NUMBER,
    "cpu_ms": _NUMBER,
    "peak_memory": _COUNT,
    "output_bytes": _COUNT,
    "count": _COUNT,
    # What was removed of the history of jobs.
    "entries": _COUNT,
    # How the daemon stops, with so many jobs that run.
    "mode": _TEXT,
    "running": _COUNT,
    "workers": _COUNT,
    # Where clients connect.
    "address": _TEXT,
    # Who is at the other end of a socket; process 0 is one of another namespace.
    "peer_pid": _COUNT,
    "peer_uid": _COUNT,
    "error": _TEXT,
    "error_type": _TEXT,
    "error_message": _TEXT,
    "traceback": _TEXT,
    "leftovers": {"type": "array", "items": _TEXT},
    "path": _TEXT,
    "state_dir": _TEXT,
    "user": _TEXT,
    # Of requests: what was asked for in which role, from where (`pid N`, or host:port), and ok or the code of an error;
    # how many requests, which jobs (some of `count`), and how many were refused of those that a request named.
    "op": _TEXT,
    "role": _TEXT,
    "origin": _TEXT,
    "result": _TEXT,
    "requests": _COUNT,
    "jobs": {"type": "array", "items": _TEXT},
    "refused": _COUNT,
    "key": _TEXT,
    "keys": {"type": "array", "items": _TEXT},
}

# What each field says; the units of figures.
MEANINGS: Final[Mapping[str, str]] = {
    "timestamp": "when, in UTC with microseconds",
    "level": "how important it is: debug, info, warning, error, critical",
    "message": "a few words for people; they may change",
    "event": "what happened: a name from the table above, which stays",
    "service": "always queuectld",
    "version": "of queuectld",
    "pid": "the daemon's process",
    "logger": "which library has something to say",
    "truncated": "texts were cut, so that the line stays below 16 KiB",
    "job_id": "the job",
    "queue": "the job's queue",
    "owner": "who submitted the job",
    "state": "of the job after that; how an attempt was found",
    "worker_id": "the worker, as `queuectl worker list` names it",
    "worker_pid": "the worker's process",
    "attempt": "which attempt of the job, from 1",
    "token": "the number of the attempt among those of all jobs",
    "reason": "why it ended (exited, timeout, ...), or why that was done",
    "exit_code": "of the command; of the daemon in daemon.failed",
    "signal": "the signal that ended the command",
    "duration_ms": "how long the command ran",
    "cpu_ms": "processor time of all its processes",
    "peak_memory": "bytes of memory at its highest",
    "output_bytes": "bytes that the command wrote",
    "count": "how many",
    "entries": "entries of the history of jobs that were removed",
    "mode": "how the daemon stops: drain, wait, leave, now",
    "running": "jobs that run",
    "workers": "how many jobs may run at once",
    "address": "where clients connect, over TCP",
    "peer_pid": "the process at the other end of a socket; 0: of another namespace",
    "peer_uid": "the user at the other end of a socket",
    "error": "what went wrong, in a sentence",
    "error_type": "the class of an exception",
    "error_message": "its text",
    "traceback": "where it came from, without the values of variables",
    "leftovers": "processes that a command left behind",
    "path": "a file, a directory or a socket",
    "state_dir": "the state directory",
    "user": "who asked for it, or whose connection it is",
    "op": "the operation that was asked for",
    "role": "of who asked: admin, user, observer, stranger",
    "origin": "from where: pid N on the Unix socket, file NAME in the spool, else host:port",
    "result": "ok, or the code of the error",
    "requests": "how many requests the line tells of",
    "jobs": "ids of the jobs concerned; of many the first",
    "refused": "how many jobs were refused",
    "key": "a key of the configuration",
    "keys": "keys of the configuration",
}

_SCALAR: Final = {"type": ["string", "number", "boolean"]}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of one line; what is not named in it is flat and never null."""
    known = {name: {**rule, "description": MEANINGS[name]} for name, rule in {**CORE, **FIELDS}.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of the log of queuectld",
        "type": "object",
        "required": list(CORE),
        "properties": known,
        "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))  # noqa: T201  (its purpose)
