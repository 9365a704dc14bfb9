"""Every error that QueueCTL raises on purpose. Imports nothing, so that every layer may raise them.

The docstring of a class is its default message; ``code`` is the stable word that goes over the wire. Errors of
libraries and of the operating system are translated into these once, at the edge where they occur.
"""

from __future__ import annotations

from typing import ClassVar


class QueueCTLError(Exception):
    """Something went wrong inside QueueCTL; the daemon's log has the details."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None, *, path: str | None = None) -> None:
        """``message`` is for people; ``path`` names the offending part of a request, as ``$.jobs[3].timeout``."""
        self.message = _short(message or " ".join((type(self).__doc__ or "").split()), 1000)
        self.path = None if path is None else _short(path, 256)
        super().__init__(self.message)


def _short(text: str, most: int) -> str:
    # Messages quote what was asked for, and that may be a megabyte.
    return text if len(text) <= most else f"{text[: most - 1]}…"


# What a request can get wrong.


class BadJsonError(QueueCTLError):
    """The line is not JSON."""

    code = "bad_json"


class BadRequestError(QueueCTLError):
    """The request does not have the right form."""

    code = "bad_request"


class UnknownOpError(QueueCTLError):
    """There is no such operation."""

    code = "unknown_op"


class LineTooLongError(QueueCTLError):
    """The line is longer than the limit that the greeting names; it was skipped."""

    code = "line_too_long"


class UnsupportedError(QueueCTLError):
    """This version of QueueCTL does not do that."""

    code = "unsupported"


class UnauthenticatedError(QueueCTLError):
    """A valid token is needed first."""

    code = "unauthenticated"


class TooManyAttemptsError(QueueCTLError):
    """Too many wrong tokens came from there; tokens are not looked at for a while."""

    code = "too_many_attempts"


class TlsRequiredError(QueueCTLError):
    """This port speaks TLS only."""

    code = "tls_required"


class ForbiddenError(QueueCTLError):
    """You may not do that."""

    code = "forbidden"


# What the queue cannot do with a well-formed request.


class NoSuchJobError(QueueCTLError):
    """There is no such job."""

    code = "no_such_job"


class NoSuchQueueError(QueueCTLError):
    """There is no such queue."""

    code = "no_such_queue"


class NoSuchAttemptError(QueueCTLError):
    """The job has no such attempt."""

    code = "no_such_attempt"


class NoSuchKeyError(QueueCTLError):
    """There is no such configuration key."""

    code = "no_such_key"


class NoSuchStreamError(QueueCTLError):
    """No open stream of this connection has that number."""

    code = "no_such_stream"


class AmbiguousIdError(QueueCTLError):
    """More than one job's id begins like that."""

    code = "ambiguous_id"


class DuplicateIdError(QueueCTLError):
    """A job with this id exists already."""

    code = "duplicate_id"


class DuplicateKeyError(QueueCTLError):
    """The key was used for another request before."""

    code = "duplicate_key"


class WrongStateError(QueueCTLError):
    """The job is not in a state that allows this."""

    code = "wrong_state"


class DiskFullError(QueueCTLError):
    """The disk that holds the queue is full: new jobs are refused until there is space again."""

    code = "disk_full"


class DrainingError(QueueCTLError):
    """The daemon is stopping: it answers questions, but changes nothing any more."""

    code = "draining"


class TooManyClientsError(QueueCTLError):
    """As many clients are connected as the daemon may have; try again when one has gone."""

    code = "too_many_clients"


class TooMuchHeldError(QueueCTLError):
    """Clients have the daemon keep more for them than it may; finish what was begun, read the answers, or try later."""

    code = "too_much_held"


class BadConfigError(QueueCTLError):
    """The configuration is not valid."""

    code = "bad_config"


class CheckFailedError(QueueCTLError):
    """The program that would take over cannot start; the running one goes on."""

    code = "check_failed"


# What the daemon meets on its own; none of these is an answer to a request that could be repaired by its sender.


class StaleError(QueueCTLError):
    """The stored job or attempt is not the one that this change started from."""

    code = "stale"


class StoreError(QueueCTLError):
    """The database cannot be used."""

    code = "store"


class StoreTooNewError(StoreError):
    """The database was written by a newer version of QueueCTL."""

    code = "store_too_new"


class StoreDamagedError(StoreError):
    """The database is damaged."""

    code = "store_damaged"

    # What is wrong with the file, without advice on the queue that it belongs to.
    what = "is damaged"


class StoreLockedError(StoreError):
    """Another daemon holds the state directory."""

    code = "store_locked"
