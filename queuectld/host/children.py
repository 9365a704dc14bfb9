"""Dead children are taken leave of in one place; programs whose result somebody awaits among them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

# More than that nobody reads.
_SAID: Final = 64 * 1024


class Command(NamedTuple):
    """A program, and what it is started with and where."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    directory: str


class Finished(NamedTuple):
    """How a program ended; `code` is negative for a signal, and None if it was killed because it took too long."""

    code: int | None
    said: str
    seconds: float


class Parent(Protocol):
    """Knows which children of this process are its own; it takes all others for orphans that are to be ended."""

    def start_child(self, start: Callable[[], int]) -> int:
        """Have `start` make a child; return its number."""

    def disown(self, pid: int) -> None:
        """Forget a child: its number may be somebody else's."""


class Children:
    """All children of this process. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._awaited: dict[int, asyncio.Future[int]] = {}

    def reap(self) -> None:
        """Take leave of dead children: workers, what fled from them to us, and what `run` waits for."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if (awaited := self._awaited.pop(pid, None)) is not None and not awaited.done():
                    awaited.set_result(os.waitstatus_to_exitcode(status))
        except ChildProcessError:
            return

    async def run(self, command: Command, parent: Parent, *, within: float) -> Finished:
        """Run a program that reads nothing, until it ends or its time is up.

        Raises `OSError` if it cannot be started. SIGCHLD has to lead to `reap`.
        """
        began = time.monotonic()
        said = os.memfd_create("said", os.MFD_CLOEXEC)
        try:
            # Nothing of the loop runs between its start and its entry here, so its end cannot be missed.
            pid = parent.start_child(lambda: _start(command, said))
            self._awaited[pid] = ended = asyncio.get_running_loop().create_future()
            try:
                code = await self._end(pid, ended, within)
            finally:
                parent.disown(pid)
            return Finished(code, _read(said), time.monotonic() - began)
        finally:
            os.close(said)

    async def _end(self, pid: int, ended: asyncio.Future[int], within: float) -> int | None:
        try:
            return await asyncio.wait_for(asyncio.shield(ended), within)
        except TimeoutError:
            return None
        finally:
            if not ended.done():
                # With what it has started. Not reaped yet, so its number is still its own.
                os.killpg(pid, signal.SIGKILL)


def _start(command: Command, said: int) -> int:
    process = subprocess.Popen(  # noqa: S603  (our own program)
        command.argv,
        env=command.environ,
        cwd=command.directory,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        start_new_session=True,
    )
    # Its end is ours to see; Python must not wait for it a second time.
    process.returncode = 0
    return process.pid


def _read(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _SAID, max(0, size - _SAID)).decode(errors="replace")
