"""The program that this process runs, so that what is installed in its place later can be run instead."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from queuectld.host.children import Command
from queuectld.host.handover import VARIABLE, Handover, passed_descriptors

# They tell one process about its service manager, or are of one program only.
_PRIVATE: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", VARIABLE})
_PRIVATE_PREFIX: Final = "LISTEN_"


class Program(NamedTuple):
    """How this process was started, for another time; relative names in `argv` are seen from `directory`."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    directory: str

    def checking(self) -> Command:
        """Return what checks whether the program could start now."""
        return Command((*self.argv, "--check"), for_others(self.environ), self._there())

    def _there(self) -> str:
        return self.directory if Path(self.directory).is_dir() else "/"

    def take_over(self, handover: Handover, signals: Iterable[int]) -> NoReturn:
        """Become the program, and give it what was handed over and signals that came too late for us.

        Raises `OSError`; nothing is left then that could go on. TERM, INT and HUP have to be blocked.
        """
        for descriptor in (*handover.descriptors, *passed_descriptors(self.environ)):
            os.set_inheritable(descriptor, True)
        # They wait until the new program is ready for them.
        for number in signals:
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        os.chdir(self._there())
        os.execve(self.argv[0], self.argv, {**self.environ, VARIABLE: handover.encode()})  # noqa: S606  (no shell is wanted)


def this_program() -> Program:
    """Return how this process was started; to be asked before it changes its directory."""
    try:
        directory = str(Path.cwd())
    except FileNotFoundError:
        directory = "/"
    return Program(command_line(sys.orig_argv, sys.executable, directory), os.environ.copy(), directory)


def command_line(argv: Sequence[str], executable: str, directory: str) -> tuple[str, ...]:
    """Return the words by which to start what is installed now.

    What was started as a script is so again: after an upgrade its first line may name another Python.
    """
    for place in (1, 2):
        if len(argv) > place and _first_line(Path(directory, argv[place])) == list(argv[:place]):
            return (str(Path(directory, argv[place])), *argv[place + 1 :])
    return (executable, *argv[1:])


def _first_line(script: Path) -> list[str]:
    """Return what the kernel puts in front of a script's name: an interpreter, and at most one more word."""
    try:
        with script.open("rb") as file:
            line = file.readline(4096)
    except (OSError, ValueError):
        return []
    return os.fsdecode(line[2:]).strip().split(maxsplit=1) if line.startswith(b"#!") else []


def for_others(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what is meant for this process alone."""
    return {
        name: value for name, value in environ.items() if name not in _PRIVATE and not name.startswith(_PRIVATE_PREFIX)
    }
