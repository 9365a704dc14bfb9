"""All processes of one command: signalling them, waiting for them, and proving that none is left.

The worker is a child subreaper and starts nothing else, so whatever has lost its parent is a child of ours, and having
no child is the proof that nothing is left. A cgroup, where there is one, ends all at one stroke. The leader stays
unreaped while its group may have to be signalled, so that its number cannot come to mean something else.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection, Iterable

from queuectld.worker import procfs
from queuectld.worker.enclosure import Group


class Tree:
    """The processes of one attempt."""

    def __init__(self, leader: int, marker: bytes, group: Group | None, user: int) -> None:
        """`user` is who the command runs as: others could give any marker to what they start."""
        self._leader = leader
        self._marker = marker
        self._user = user
        self._group = group
        self._me = os.getpid()
        self._leader_reaped = False
        # How the leader ended, as `waitstatus_to_exitcode` has it: negative for a signal. None while it runs.
        self.leader_code: int | None = None
        # Sums over what was reaped.
        self.cpu_seconds = 0.0
        self.peak_memory = 0

    def notice(self) -> bool:
        """Reap orphans that have ended; return whether the leader has ended too. That one stays unreaped."""
        while self.leader_code is None:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                # It was reaped by somebody else, which nobody does; but to wait for it forever would be worse.
                self.leader_code, self._leader_reaped = -signal.SIGKILL, True
                break
            if ended is None:
                return False
            if ended.si_pid == self._leader:
                self.leader_code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            else:
                self._reap(ended.si_pid)
        return True

    def clear(self) -> bool:
        """Reap the leader, which has ended, and whatever else has; return whether that proves that nothing is left."""
        if not self._leader_reaped:
            self._reap(self._leader)
            self._leader_reaped = True
        try:
            while self._reap(-1):
                pass
        except ChildProcessError:
            return self._group is None or self._group.empty()
        return False

    def others(self) -> list[procfs.Stat]:
        """Return the living processes of the tree but the leader, and reap dead ones."""
        everything = list(procfs.processes())
        for dead in everything:
            if dead.ppid == self._me and not dead.alive and dead.pid != self._leader:
                with contextlib.suppress(ChildProcessError):
                    self._reap(dead.pid)
        return [found for found in self._members(everything) if found.alive and found.pid != self._leader]

    def signal_group(self, number: int) -> None:
        """Send a signal to the leader's group, as long as its number is sure to be that group's."""
        if not self._leader_reaped:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._leader, number)

    def kill_group(self) -> None:
        """SIGKILL everything in the cgroup, if there is one: nothing escapes by forking."""
        if self._group is not None:
            self._group.kill()

    def signal_each(self, targets: Iterable[procfs.Stat], number: int) -> None:
        """Send a signal to these processes, but not to what has taken over their numbers."""
        for target in targets:
            with contextlib.suppress(PermissionError):
                procfs.signal_process(target.pid, target.start, number)

    def in_group(self, process: procfs.Stat) -> bool:
        """Whether a signal to the leader's group reached that process."""
        return process.pgrp == self._leader

    def _members(self, everything: list[procfs.Stat]) -> list[procfs.Stat]:
        # These are descendants already, or the kernel has been asked for something unusual.
        named = {pid for pid in procfs.marked(self._marker) if self._user in procfs.users(pid)}
        if self._group is not None:
            named.update(self._group.members())
        return members(everything, self._me, None if self._leader_reaped else self._leader, named)

    def _reap(self, pid: int) -> int:
        reaped, status, usage = os.wait4(pid, os.WNOHANG)
        if reaped:
            self.cpu_seconds += usage.ru_utime + usage.ru_stime
            # In kilobytes. A child starts out with the worker's own size, so smaller ones are not told apart.
            self.peak_memory = max(self.peak_memory, usage.ru_maxrss * 1024)
            if reaped == self._leader and self.leader_code is None:
                self.leader_code = os.waitstatus_to_exitcode(status)
        return reaped


def members(
    everything: Collection[procfs.Stat], worker: int, session: int | None, named: Collection[int]
) -> list[procfs.Stat]:
    """Decide what belongs to a command: all below its worker, its session, what marker and cgroup have `named`."""
    below = procfs.family((worker,), everything)
    return [
        process
        for process in everything
        if process.pid != worker and (process.pid in below or process.pid in named or process.session == session)
    ]
