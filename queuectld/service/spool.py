"""Files that are dropped for us: which of them are taken, what is in them, and how their jobs are stored once."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Final, NamedTuple

import msgspec

from queuectld.errors import BadRequestError, DiskFullError, DrainingError, QueueCTLError, StoreError
from queuectld.protocol.messages import Enqueue
from queuectld.protocol.replies import Enqueued
from queuectld.service.submit import Order, Terms, Undone, enqueue
from queuectld.store.base import Store

# Bytes of a file, and jobs in it: as much as one transaction holds without keeping others waiting.
LARGEST: Final = 1024 * 1024
MOST_JOBS: Final = 1000
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
# What these are about passes, or is nobody's fault who wrote a file.
_OF_OURS: Final = (DiskFullError, DrainingError, StoreError)

_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_one: Final = msgspec.json.Decoder(msgspec.Raw)


class Found(NamedTuple):
    """A file, as `lstat` tells of it."""

    mode: int
    uid: int
    gid: int
    links: int
    size: int


class Rules(NamedTuple):
    """Whose files are taken. `me` is the daemon's user."""

    me: int
    # Whether others may put files there.
    shared: bool = False
    # The group that files get which are made there, where the directory gives them one.
    group: int | None = None


def complaint(found: Found, rules: Rules) -> str | None:
    """Say why a file is not taken, before it is opened; None if it may be.

    Whoever owns a file is taken for its author. So nobody else may have been able to write it, nor to put it there: a
    file that was made in the directory itself has the directory's group, one that was moved in has hardly.
    """
    return next(_complaints(found, rules), None)


def _complaints(found: Found, rules: Rules) -> Iterator[str]:
    if not stat.S_ISREG(found.mode):
        kind = next((word for test, word in _KINDS if test(found.mode)), "a device")
        yield f"it is {kind}, and not a regular file"
    if rules.me not in {0, found.uid} and found.uid != 0:
        yield f"it belongs to another user (uid {found.uid}), and this daemon runs jobs of its own user only"
    if found.mode & stat.S_IWOTH or (rules.shared and found.mode & _OTHERS):
        mode = f"{stat.S_IMODE(found.mode):04o}"
        yield f"others may write to it (mode {mode}): `chmod go-w` it, or write it with umask 022"
    if rules.group not in {None, found.gid}:
        yield "it was made elsewhere and has another group than the directory: write it in tmp/, and move it from there"
    if found.links > 1:
        yield "it has another name besides (a hard link)"
    if found.size > LARGEST:
        yield f"it has {found.size:,} bytes; {LARGEST:,} are the most"


def jobs_in(data: bytes) -> Sequence[msgspec.Raw]:
    """Return the jobs of a file: a JSON object, an array of them, or one a line. Raises `BadRequestError`."""
    text = data.strip()
    if not text:
        raise BadRequestError("the file is empty: was it moved before it was written?")
    try:
        jobs = _list.decode(text) if text.startswith(b"[") else _objects(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the file is not JSON: {error}") from None
    if not jobs:
        raise BadRequestError("the file has no jobs in it")
    if len(jobs) > MOST_JOBS:
        raise BadRequestError(f"the file has {len(jobs):,} jobs; {MOST_JOBS:,} are the most")
    return jobs


def _objects(text: bytes) -> Sequence[msgspec.Raw]:
    try:
        return [_one.decode(text)]
    except msgspec.DecodeError:
        lines = [line for line in text.split(b"\n") if line.strip()]
        if len(lines) == 1 or not lines[1].lstrip().startswith(b"{"):
            raise
        return [_one.decode(line) for line in lines]


class RefusedFileError(QueueCTLError):
    """The jobs of the file cannot be stored."""

    code = "bad_request"


def store_file(store: Store, mark: str, order: Order) -> Enqueued | None:
    """Store all jobs of a file, and that it was taken under this mark; None: that was done before.

    Raises `RefusedFileError` if anything is wrong with one of them, `DiskFullError` or `StoreError` if the store is.
    """
    if not store.take_file(mark):
        return None
    try:
        reply, _ = enqueue(store, order, order.part(0))
    except Undone as undone:
        first = undone.reply.refused[0]
        place = f"job {first.index + 1}: " if len(order.jobs) > 1 else ""
        raise RefusedFileError(f"{place}{first.message}") from None
    except _OF_OURS:
        raise
    except QueueCTLError as error:
        raise RefusedFileError(error.message) from None
    return reply


def order_of(jobs: Sequence[msgspec.Raw], terms: Terms) -> Order:
    """Return what stores these jobs, all or none; they get the environment and the home of their owner."""
    return Order(Enqueue(id=0, atomic=True), jobs, {}, terms)


class Arrival(NamedTuple):
    """A name in the directory, and whose it is; `at` is when its file was last written, in nanoseconds."""

    name: str
    uid: int
    at: int


def in_turn(arrivals: Iterable[Arrival]) -> Sequence[Arrival]:
    """Return who comes when: each owner's files as they were written, one owner after the other."""
    by_owner: dict[int, list[Arrival]] = defaultdict(list)
    for arrival in sorted(arrivals, key=lambda one: (one.at, one.name)):
        by_owner[arrival.uid].append(arrival)
    return [one for one in chain.from_iterable(zip_longest(*by_owner.values())) if one is not None]
