"""The last line of a request: its reply or its error, and the word by which that is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import structlog

from queuectld.errors import QueueCTLError
from queuectld.protocol.codec import encode
from queuectld.protocol.frames import Answered, Failed, RequestId
from queuectld.protocol.reading import error_body
from queuectld.service.submit import Undone

log = structlog.get_logger()

Told = Callable[[object], None]


def untold(_result: object) -> None:
    """Take no account of how a request ended."""


class Question(NamedTuple):
    """A request as far as its answer goes. ``op``: which one it is, as far as that could be read."""

    id: RequestId | None
    op: str
    # Keeps account of how it ended: takes the reply or the error.
    told: Told = untold


def closing(question: Question, result: Any) -> tuple[str, bytes]:
    """Return ``ok`` or the code of the error, and the line; what is neither reply nor error of ours is an internal one.

    Of an error inside the daemon the log tells more.
    """
    reply = result.reply if isinstance(result, Undone) else result
    if isinstance(reply, msgspec.Struct):
        return "ok", encode(Answered(id=known(question.id), ok=reply))
    if not isinstance(result, QueueCTLError):
        log.error("A request met an error inside the daemon", event_name="request.failed", exc_info=result)
        result = QueueCTLError()
    return result.code, encode(Failed(id=question.id, error=error_body(result)))


def known(request_id: RequestId | None) -> RequestId:
    """Return the id that a request has: only a line that is none lacks it, and no such line gets as far as a reply."""
    return 0 if request_id is None else request_id
