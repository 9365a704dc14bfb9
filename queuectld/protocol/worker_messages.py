"""What passes between the daemon and its workers, over a socket of their own. One attempt at a time.

The channel has its own version, since a worker outlives the daemon that started it and meets the next one, which may
be newer.
"""

from __future__ import annotations

from typing import Annotated, Final, cast

import msgspec
from msgspec import Meta

from queuectld.domain.attempt import Count, Outcome, Reason

__all__ = [
    "CHANNEL_VERSION",
    "WORKER_SOCKET",
    "Beat",
    "Ended",
    "Exit",
    "Follow",
    "FromWorker",
    "Hello",
    "Holding",
    "Identity",
    "Idle",
    "Outcome",
    "OutputGrown",
    "Reason",
    "Recorded",
    "Run",
    "RunSpec",
    "Running",
    "Signal",
    "Stale",
    "Started",
    "Stop",
    "ToWorker",
    "Welcome",
    "decode_from_worker",
    "decode_to_worker",
]

# 2: what a job may use, what it may leave behind, and its cgroup. 3: whose rights it runs with. An older worker would
# ignore these, and run the command as whoever it is itself: as root.
CHANNEL_VERSION: Final = 3
# Where it is, in the state directory.
WORKER_SOCKET: Final = "worker.sock"
# A daemon accepts this worker version and the one before; what the old one runs is seen to its end, and no more.
OLDEST_WORKER: Final = 2
# The one above is no user: the kernel takes it for "leave it as it is".
UserNumber = Annotated[int, Meta(ge=0, le=2**32 - 2)]
# Run messages carry a whole environment, whose size the kernel bounds at 2 MiB or more; no peer here is a stranger.
LINE_LIMIT: Final = 64 * 1024 * 1024
# What comes back is short; the longest is the end of a command that left thousands of processes behind, all named.
REPORT_LIMIT: Final = 4 * 1024 * 1024


class Identity(msgspec.Struct, frozen=True):
    """Whose rights a command runs with: user, group, and all groups that this user is in."""

    uid: UserNumber
    gid: UserNumber
    groups: tuple[UserNumber, ...]


class RunSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything a worker needs to run one command. Paths are absolute, times are seconds, sizes bytes."""

    job: str
    argv: tuple[str, ...]
    # None: with those of its worker, which is never root then.
    identity: Identity | None = None
    cwd: str
    # Where it begins if `cwd` cannot be entered; None: it does not begin at all.
    elsewhere: str | None = None
    # The base environment as JSON (stored once for many jobs), and what is put on top of it.
    env: msgspec.Raw
    extra_env: dict[str, str] = {}
    umask: int | None = None
    nice: int | None = None
    # A file that the command reads; else nothing.
    stdin: str | None = None
    # That of the arguments which is a file in a place of ours, where the user of the command may not look.
    script: str | None = None
    # Where output goes; see `queuectld.protocol.output`.
    output: str
    output_limit: int
    # Whether more output than `output_limit` ends the command; else its middle is dropped.
    output_end: bool = False
    timeout: float | None = None
    # Without a byte of output.
    silent_timeout: float | None = None
    # Of the whole tree: resident bytes, and seconds of processor time.
    memory: int | None = None
    cpu: float | None = None
    # Open files of each process.
    files: int | None = None
    # Between TERM and KILL.
    kill_after: float = 5.0
    # Whether what the command leaves running goes on.
    keep_leftovers: bool = False
    # The directory of the attempt's cgroup, which the worker makes and removes; None: there are none.
    cgroup: str | None = None


class Idle(msgspec.Struct, frozen=True, tag="idle"):
    """It waits for work."""


class Running(msgspec.Struct, frozen=True, tag="running"):
    """It runs an attempt."""

    token: Count
    pid: Count | None = None
    pid_start: Count | None = None
    # It was told to stop, and does.
    stopping: bool = False


class Holding(msgspec.Struct, frozen=True, tag="ended"):
    """Its attempt ended, and nobody has confirmed to have recorded that."""

    token: Count
    outcome: Outcome


# From a worker.


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello", tag_field="msg"):
    """The first message of every connection."""

    protocol: int
    # The store that its attempt belongs to; tokens of another store mean nothing here.
    store: str
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    pid: Count
    pid_start: Count
    state: Idle | Running | Holding
    # Its connections are counted from 1; what comes late over an earlier one is of the past. 0: it does not count.
    connection: Count = 0


class Started(msgspec.Struct, frozen=True, tag="started", tag_field="msg"):
    """The command runs: its session leader, and that process's start time in clock ticks since boot."""

    token: Count
    pid: Count
    pid_start: Count


class Ended(msgspec.Struct, frozen=True, tag="ended", tag_field="msg"):
    """The attempt is over and no process of it is left, but for those that are kept."""

    token: Count
    outcome: Outcome
    # The worker takes no more work, and ends as soon as this is recorded.
    last: bool = False


class OutputGrown(msgspec.Struct, frozen=True, tag="output", tag_field="msg"):
    """So many bytes of output have been seen. Sent only while followed."""

    token: Count
    size: Count


class Beat(msgspec.Struct, frozen=True, tag="beat", tag_field="msg"):
    """It is alive and its loop turns."""

    token: Count | None = None


FromWorker = Hello | Started | Ended | OutputGrown | Beat


# To a worker.


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome", tag_field="msg"):
    """Answers `Hello`."""

    protocol: int
    store: str


class Run(msgspec.Struct, frozen=True, tag="run", tag_field="msg"):
    """Run this command. It was claimed durably before."""

    token: int
    spec: RunSpec


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop", tag_field="msg"):
    """End the attempt: wait `grace`, then TERM to its group, `kill_after` later KILL to everything; 0 is at once.

    A second one may shorten what the first allowed, and never lengthen it.
    """

    token: int
    reason: Reason
    grace: float = 0.0
    # None: what the attempt itself asked for.
    kill_after: float | None = None


class Signal(msgspec.Struct, frozen=True, tag="signal", tag_field="msg"):
    """Pass a signal on to the command's group."""

    token: int
    number: int


class Follow(msgspec.Struct, frozen=True, tag="follow", tag_field="msg"):
    """Say when output grows, or stop saying it."""

    token: int
    on: bool


class Recorded(msgspec.Struct, frozen=True, tag="recorded", tag_field="msg"):
    """The outcome is durable; forget it. May carry the next command."""

    token: int
    run: Run | None = None


class Stale(msgspec.Struct, frozen=True, tag="stale", tag_field="msg"):
    """That attempt ended long ago, or is unknown: end its tree if it runs, drop its outcome, be idle."""

    token: int


class Exit(msgspec.Struct, frozen=True, tag="exit", tag_field="msg"):
    """Finish the attempt, if there is one, see it recorded, then end."""


ToWorker = Welcome | Run | Stop | Signal | Follow | Recorded | Stale | Exit

_from_worker: Final = msgspec.json.Decoder(FromWorker)
_to_worker: Final = msgspec.json.Decoder(ToWorker)


def decode_from_worker(line: bytes) -> FromWorker:
    """Read one message of a worker, or of whoever found its socket. Raises `msgspec.MsgspecError`."""
    try:
        return cast("FromWorker", _from_worker.decode(line))
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode_to_worker(line: bytes) -> ToWorker:
    """Read one message of the daemon. Raises `msgspec.MsgspecError`."""
    return cast("ToWorker", _to_worker.decode(line))
