"""Where the queue is kept: the state directory, who holds it, the database, the configuration."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from queuectl_cli.doctor.finding import FAIL, OK, WARN, Finding
from queuectl_cli.errors import CliError
from queuectl_cli.launch import Caller, examine
from queuectl_cli.reconnect import holder_of
from queuectld.domain.sizes import format_size

_LITTLE_SPACE: Final = 256 << 20
_FEW_INODES: Final = 1000
# On these, locks or the shared memory of SQLite's log do not do what they promise.
_OF_A_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"})
# Where SQLite keeps the version of the tables in its file.
_VERSION_AT: Final = 60


class Place(NamedTuple):
    """What the daemon says of where it keeps things, or, if none answers, where one would keep them."""

    state: str
    config: str
    # The daemon was told to read another file than the usual one.
    named: bool
    answers: bool


def state(place: Place) -> Iterator[Finding]:
    """Look at the state directory."""
    try:
        found = os.stat(place.state)  # noqa: PTH116  (pathlib costs 3 ms, here and below)
    except (FileNotFoundError, NotADirectoryError):
        yield from _to_be_made(place.state)
        return
    except OSError as error:
        yield Finding("state", WARN, f"{place.state} cannot be looked at: {error.strerror}", _AS_OWNER)
        return
    mode, owner = stat.S_IMODE(found.st_mode), _user(found.st_uid)
    text = f"{place.state}, mode {mode:04o}, of {owner}"
    if not stat.S_ISDIR(found.st_mode):
        yield Finding("state", FAIL, f"{place.state} is not a directory", "Move it away.")
    elif mode & 0o022:
        yield Finding(
            "state", FAIL, f"{text}: others may write to it", f"The daemon refuses it:  chmod 700 {place.state}"
        )
    elif os.access(place.state, os.W_OK | os.X_OK, effective_ids=True):
        yield Finding("state", OK, text)
        yield from _space(place.state)
    elif found.st_uid == os.geteuid():
        yield Finding("state", FAIL, f"{text}: it cannot be written to", "Is its file system mounted read-only?")
    else:
        yield Finding("state", WARN, f"{text}: this user may not look further", _AS_OWNER)


def _to_be_made(path: str) -> Iterator[Finding]:
    above = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120
    while not os.path.exists(above):  # noqa: PTH110
        above = os.path.dirname(above)  # noqa: PTH120
    if os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK, effective_ids=True):  # noqa: PTH112
        yield Finding("state", OK, f"{path} is not there yet; the first start makes it")
    else:
        yield Finding("state", FAIL, f"{path} cannot be made in {above}", "QUEUECTL_STATE_DIR names another place.")


_AS_OWNER: Final = "Ask again as its owner, or as root."


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _space(path: str) -> Iterator[Finding]:
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    kind = file_system(path)
    text = f"{format_size(free >> 20 << 20)} free" + (f" on {kind}" if kind else "")
    if kind in _OF_A_NETWORK:
        yield Finding("disk", FAIL, f"{path} is on a network share ({kind})", "Use a local disk: QUEUECTL_STATE_DIR.")
    elif found.f_files and found.f_favail < _FEW_INODES:
        yield Finding("disk", WARN, f"room for {found.f_favail:,} more files only", "Remove some files there.")
    elif free < _LITTLE_SPACE:
        yield Finding("disk", WARN, text, "Free some space: without any, new jobs are refused.")
    else:
        yield Finding("disk", OK, text)


def file_system(path: str) -> str | None:
    """Return the kind of file system that a path is on."""
    device = os.stat(path).st_dev  # noqa: PTH116
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split()[2] == wanted:
                return after.split()[0]
    return None


def lock(place: Place) -> Iterator[Finding]:
    """Look who holds the state directory."""
    pid = holder_of(place.state)
    if pid is None:
        return
    if place.answers:
        yield Finding("lock", OK, f"process {pid} holds the state directory")
    else:
        yield Finding(
            "lock",
            FAIL,
            f"process {pid} holds the state directory, but does not answer",
            f"It is starting, stopping or stuck; see its log, and:  ps -fp {pid}",
        )


def database(place: Place) -> Iterator[Finding]:
    """Look at the database file. Whether it can be read is seen by the program of the daemon (see `configuration`)."""
    path = f"{place.state}/queue.db"
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            head = file.read(100)
        size = os.stat(path).st_size  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Finding("database", WARN, f"{path} cannot be read: {error.strerror}", _AS_OWNER)
        return
    if not head.startswith(b"SQLite format 3\0"):
        yield Finding("database", FAIL, f"{path} is not a database", _REPAIR[65])
        return
    version = int.from_bytes(head[_VERSION_AT : _VERSION_AT + 4], "big")
    # The header follows when the log is written back.
    told = f"format {version}" if version else "its format is still in its log"
    yield Finding("database", OK, f"{path}, {format_size(size)}, {told}")


def configuration(app: Caller, place: Place) -> Iterator[Finding]:
    """Have the program of the daemon look at the configuration, at itself, and whether it can read the database."""
    files = [path for path in (place.config, f"{place.state}/overrides.json") if os.path.exists(path)]  # noqa: PTH110
    variables = [name for name in os.environ if name.startswith("QUEUECTLD_")]
    where = ", ".join([*files, *variables]) or f"defaults; {place.config} is not there"
    if os.path.exists(place.state) and not os.access(place.state, os.R_OK | os.X_OK, effective_ids=True):  # noqa: PTH110
        yield Finding("configuration", WARN, f"it cannot be checked by this user ({where})", _AS_OWNER)
        return
    try:
        code, said = examine(app, place.config if place.named else None)
    except CliError as error:
        yield Finding("configuration", FAIL, error.message, " ".join(error.hints))
        return
    if code == 0:
        yield Finding("configuration", OK, where)
    else:
        check = {65: "database", 74: "state"}.get(code, "configuration")
        last = said[-1].removeprefix("queuectld: ") if said else "it said nothing"
        yield Finding(check, FAIL, f"queuectld could not start (exit {code}): {last}", _REPAIR.get(code))


_REPAIR: Final = {
    65: "See what is left of it:  queuectld db check;  put a copy in its place:  queuectld db restore FILE",
    78: "Repair it; the daemon that runs, if one does, goes on with what it has read.",
}
