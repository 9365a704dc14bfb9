"""The frame around every line: greeting, request, answer, event, refusal."""

from __future__ import annotations

from typing import Annotated, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Meta

Reply = TypeVar("Reply", bound=msgspec.Struct)
# Every line of a stream carries it.
RequestId = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=128)]


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

    # Refused while the daemon is stopping.
    changes: ClassVar[bool] = False
    # Answers with events before its last line.
    streams: ClassVar[bool] = False

    id: RequestId
