"""Reads requests, and tells their senders what is wrong with what is none."""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec

from queuectld.domain.spec import dec_hook, explain
from queuectld.errors import BadJsonError, BadRequestError, QueueCTLError, UnknownOpError
from queuectld.protocol.frames import ErrorBody, Failed, RequestId
from queuectld.protocol.messages import REQUESTS, AnyRequest
from queuectld.protocol.words import OPERATIONS


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
        complaint = "a request needs an `op`" if envelope.op is None else f"there is no operation {envelope.op!r}"
        return Unreadable(known, UnknownOpError(complaint, path="$.op"))
    return Unreadable(known, explain(error, REQUESTS[envelope.op]))
