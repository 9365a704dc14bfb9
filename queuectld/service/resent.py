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
    """What is kept under a key: what the request asked for, as a digest, and what it was answered."""

    content: str
    reply: Enqueued


_read: Final = msgspec.json.Decoder(Kept).decode
_write: Final = msgspec.json.Encoder().encode


class Key:
    """The key of one request, which is its user's own, and what the request asks for."""

    def __init__(self, user: str, text: str, jobs: Sequence[msgspec.Raw], inputs: Mapping[str, bytes]) -> None:
        self._key = f"{user}/{text}"
        self._content = _digest(jobs, inputs)

    def earlier(self, store: Store) -> Enqueued | None:
        """Return the answer to the first copy, if there was one. Raises `DuplicateKeyError` if that was no copy."""
        if (kept := store.recall(self._key)) is None:
            return None
        first = _read(kept)
        if first.content != self._content:
            raise DuplicateKeyError("this key came with other jobs before; take a new one", path="$.request")
        return replace(
            first.reply, jobs=tuple(replace(added, created=False) for added in first.reply.jobs), warnings=()
        )

    def keep(self, store: Store, reply: Enqueued, now: float) -> None:
        """Keep the answer, for copies that may come."""
        store.remember(self._key, _write(Kept(self._content, reply)), now=now)


def _digest(jobs: Sequence[msgspec.Raw], inputs: Mapping[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for job in jobs:
        # A newline ends a request, so there is none in a job.
        digest.update(job)
        digest.update(b"\n")
    for name in sorted(inputs):
        digest.update(b"%s %d\n" % (name.encode(), len(inputs[name])))
        digest.update(inputs[name])
    return digest.hexdigest()
