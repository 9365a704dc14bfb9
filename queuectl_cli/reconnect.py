"""A daemon that goes away and comes back, by a restart, a re-exec or a crash: who waited for something goes on.

There is one rule for all who wait. A lost connection is made again at once, then after growing pauses. A daemon that
was killed leaves its socket behind, and whoever watches over it starts it within a second or so; one that was stopped
takes its socket away, and comes back at once or not soon. One that holds its state directory is starting, or still
ending. Each of these gets the time that it may need; then the user is told what to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final, TypeVar

from queuectl_cli.client import Client
from queuectl_cli.errors import CliError, LostError, RefusedError, UnreachableError
from queuectl_cli.options import App
from queuectl_cli.target import Target

Told = TypeVar("Told")
End = TypeVar("End")

# Seconds without a sign of life.
KILLED_PATIENCE: Final = 30.0
STOPPED_PATIENCE: Final = 5.0
# However many signs of life there are.
LONGEST: Final = 300.0
# Then the user is told that it takes longer, and a daemon that nobody watches over is started.
TELL_AFTER: Final = 2.0
# For one greeting: what else there is to look after waits so long.
_GREETING: Final = 2.0
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0


def stopped() -> LostError:
    """Return the error for a stream that the daemon ended because it ends itself."""
    return LostError("queuectld ended the stream, because it stops", code="connection_lost")


def interrupted(error: CliError) -> bool:
    """Whether an error means that the daemon went away, so that one waits for it to come back."""
    return isinstance(error, LostError) or (isinstance(error, RefusedError) and error.code == "draining")


def resumed(
    app: App, client: Client, stream: Callable[[Client], Generator[Told, None, End]], **ways: Any
) -> Generator[Told, None, End]:
    """Yield what `stream` yields, over as many connections as it takes, and return what it returns.

    It is called anew for each, and has to begin where the one before was interrupted. `ways` are those of `come_back`.
    Raises `CliError`.
    """
    while True:
        try:
            return (yield from stream(client))
        except CliError as error:
            client = come_back(app, client, error, **ways)


def come_back(
    app: App,
    client: Client,
    lost: CliError,
    *,
    pause: Callable[[float], None] = time.sleep,
    advice: tuple[str, ...] = (),
    start: bool = False,
) -> Client:
    """Connect again as soon as the daemon is back; `lost` says how it went away, and is raised if it did not.

    `pause` waits for so many seconds, and may raise what ends the wait. With `start`, a daemon that was killed is
    started where it would have been started at the beginning. Raises `CliError` with `advice` if it stays away.
    """
    if not interrupted(lost):
        raise lost
    client.close()
    absence = _Absence(app, client.target)
    for length in _pauses():
        target = app.target()
        try:
            found = _open(app, target)
        except (UnreachableError, RefusedError) as error:
            if absence.over(error):
                raise absence.error(error, advice) from None
            if start and absence.orphaned(error, target):
                return _same(client, _started(app, target))
        else:
            absence.end()
            return _same(client, found)
        pause(length)
    raise AssertionError


def _open(app: App, target: Target) -> Client:
    from queuectl_cli.service.systemd import stopped  # noqa: PLC0415  (rarely needed)

    if stopped(target):
        raise UnreachableError(f"the service at {target.name} was stopped", code="no_socket")
    return app.open(target, patience=_GREETING)


class _Absence:
    """How long a daemon has been away, and how long it may be."""

    def __init__(self, app: App, target: Target) -> None:
        self._app = app
        self._target = target
        self._begin = self._last_sign = time.monotonic()
        self._told = False

    def over(self, error: CliError) -> bool:
        """Whether it was long enough, now that an attempt to connect ended like this."""
        if not _passing(error):
            return True
        now = time.monotonic()
        if error.code in {"no_socket", "refused"} and holder(self._target):
            self._last_sign = now
        if not self._told and now - self._begin >= TELL_AFTER:
            self._told = True
            self._app.say(f"queuectl: waiting for queuectld at {self._target.name} to come back")
        return now - self._last_sign > _patience(error) or now - self._begin > LONGEST

    def orphaned(self, error: CliError, target: Target) -> bool:
        """Whether it was killed, nobody has started it anew, and we may."""
        if error.code != "refused" or time.monotonic() - self._begin < TELL_AFTER or holder(target):
            return False
        from queuectl_cli.launch import why_not  # noqa: PLC0415  (rarely needed)

        return why_not(target) is None

    def end(self) -> None:
        """It is back."""
        if self._told:
            self._app.say("queuectl: queuectld is back")

    def error(self, error: CliError, advice: tuple[str, ...]) -> CliError:
        """Return what to tell the user at the end."""
        if not _passing(error):
            error.hints = (*error.hints, *advice)
            return error
        what = "was stopped" if error.code == "no_socket" else "went away"
        return UnreachableError(
            f"queuectld at {self._target.name} {what}, and is not back after {time.monotonic() - self._begin:.0f} s",
            *error.hints,
            *advice,
            code="connection_lost",
        )


def _passing(error: CliError) -> bool:
    """Whether an error may be gone the next time."""
    if isinstance(error, UnreachableError):
        return error.code != "protocol"
    return error.code == "too_many_clients"


def _patience(error: CliError) -> float:
    return STOPPED_PATIENCE if error.code == "no_socket" else KILLED_PATIENCE


def _started(app: App, target: Target) -> Client:
    from queuectl_cli.launch import greeting, start  # noqa: PLC0415  (rarely needed)

    client, ours = start(app, target)
    if ours:
        app.say(greeting(client))
    return client


def _same(before: Client, now: Client) -> Client:
    """Make sure that numbers of events, ids and tokens still mean what they meant."""
    if before.greeting.get("store") == now.greeting.get("store"):
        return now
    raise UnreachableError(
        f"another queue is served at {now.target.name} now; what was waited for is not in it",
        "Was the database restored, or the state directory replaced?",
        code="other_store",
    )


def holder(target: Target) -> int | None:
    """Return the process that holds the state directory of `target`, where one can know which that is."""
    return holder_of(target.places.state) if target.local and not target.explicit else None


def holder_of(state: str) -> int | None:
    """Return the process that holds the lock on a state directory, as far as that can be seen."""
    try:
        found = os.stat(f"{state}/lock")  # noqa: PTH116  (pathlib costs 3 ms)
        with open("/proc/locks", encoding="ascii") as file:  # noqa: PTH123  (same)
            return _holder(file, f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}")
    except OSError:
        return None


def _holder(lines: Iterator[str], file: str) -> int | None:
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF; asking for the lock ourselves would keep a daemon from it.
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == file and words[4].isdecimal():
            return int(words[4])
    return None


def _pauses() -> Iterator[float]:
    length = _FIRST_PAUSE
    while True:
        yield length
        length = min(_LONGEST_PAUSE, length * 1.5)
