"""Requests that come once more because the answer to the first was lost: they get that answer, and change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from queuectld.errors import DuplicateKeyError
from queuectld.protocol.replies import Enqueued
from queuectld.store.base import Store


class Kept(msgspec.Struct, frozen=True):
    """What is kept of a part: all that its request asked for, as a digest, the answer, and behind which job it ends."""

    content: str
    reply: Enqueued
    # 0: behind the last.
    stop: int = 0


_read: Final = msgspec.json.Decoder(Kept).decode
_write: Final = msgspec.json.Encoder().encode


class Key:
    """The key of one request, which is its user's own, for the part from `start` on; and what the request asks for."""

    def __init__(self, user: str, text: str, start: int, content: str) -> None:
        """`content` is its `digest`."""
        # No user has a colon in his name.
        self._key = f"{start}:{user}/{text}" if start else f"{user}/{text}"
        self._content = content

    def earlier(self, store: Store) -> Kept | None:
        """Return what is kept of the first copy, if there was one. Raises `DuplicateKeyError` if that was no copy."""
        if (kept := store.recall(self._key)) is None:
            return None
        first = _read(kept)
        if first.content != self._content:
            raise DuplicateKeyError("this key came with other jobs before; take a new one", path="$.request")
        jobs = tuple(replace(added, created=False) for added in first.reply.jobs)
        return replace(first, reply=replace(first.reply, jobs=jobs, warnings=()))

    def keep(self, store: Store, reply: Enqueued, stop: int, now: float) -> None:
        """Keep the answer, for copies that may come."""
        store.remember(self._key, _write(Kept(self._content, reply, stop)), now=now)


def digest(jobs: Sequence[msgspec.Raw], inputs: Mapping[str, bytes]) -> str:
    """Return what tells these jobs and inputs from all others."""
    told = hashlib.blake2b(digest_size=16)
    for job in jobs:
        # A newline ends a request, so there is none in a job.
        told.update(job)
        told.update(b"\n")
    for name in sorted(inputs):
        told.update(b"%s %d\n" % (name.encode(), len(inputs[name])))
        told.update(inputs[name])
    return told.hexdigest()
