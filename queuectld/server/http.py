"""As much of HTTP/1.1 as monitoring speaks: requests without a body. Bytes in, requests and answers out; no socket."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final, NamedTuple

# Bytes of a request, all its headers included.
MOST: Final = 8192

_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


class Asked(NamedTuple):
    """A request. ``last``: the connection ends behind its answer."""

    method: str
    path: str
    last: bool


class Bad(NamedTuple):
    """No request that can be answered, and why; nothing behind it is understood either."""

    status: HTTPStatus
    why: str


class Requests:
    """Takes in what comes over a connection. Never holds more than `MOST` bytes and what was fed last."""

    def __init__(self) -> None:
        self._held = b""

    @property
    def begun(self) -> bool:
        """Whether a part of a request is there."""
        return bool(self._held)

    def feed(self, data: bytes) -> None:
        """Take in more."""
        self._held += data

    def next(self) -> Asked | Bad | None:
        """Return the next request, or None until there is more of it."""
        # Empty lines in front of a request are harmless (RFC 9112, 2.2).
        self._held = self._held.lstrip(b"\r\n")
        found = _END.search(self._held, 0, MOST)
        if found is None:
            too_much = Bad(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request may have {MOST} bytes")
            return too_much if len(self._held) >= MOST else None
        head, self._held = self._held[: found.start()], self._held[found.end() :]
        return _parse(head)


def _parse(head: bytes) -> Asked | Bad:
    first, *rest = re.split(rb"\r?\n", head)
    line = _LINE.fullmatch(first)
    if line is None:
        return Bad(HTTPStatus.BAD_REQUEST, "this is not HTTP")
    method, target, major, minor = line.groups()
    if major != b"1":
        return Bad(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this speaks HTTP/1.1")
    headers: dict[bytes, bytes] = {}
    for one in rest:
        header = _HEADER.fullmatch(one)
        if header is None:
            return Bad(HTTPStatus.BAD_REQUEST, "a header is not one")
        headers[header[1].lower()] = header[2].lower()
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        return Bad(HTTPStatus.BAD_REQUEST, "a request has no body here")
    kept = headers.get(b"connection", b"")
    last = kept == b"close" or (minor == b"0" and kept != b"keep-alive")
    return Asked(method.decode(), target.decode().partition("?")[0], last)


def answer(
    status: HTTPStatus,
    body: bytes,
    content_type: str = "text/plain; charset=utf-8",
    *,
    last: bool = False,
    head: bool = False,
    allow: str = "",
) -> bytes:
    """Return an answer; with `head` only the part before the body."""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        f"Connection: {'close' if last else 'keep-alive'}",
        *([f"Allow: {allow}"] if allow else []),
    ]
    return "\r\n".join((*lines, "", "")).encode() + (b"" if head else body)
