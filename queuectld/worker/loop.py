"""The worker's one loop: waits for daemon, pipes, children, signals and time, and does what the channel says."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import deque
from contextlib import AbstractContextManager
from types import FrameType
from typing import Final, assert_never

from queuectld.protocol.worker_messages import Outcome, Reason, RunSpec
from queuectld.worker import kept, outcomes, procfs
from queuectld.worker.actions import (
    Action,
    Connect,
    Decline,
    Disconnect,
    EndTree,
    PassSignal,
    Quit,
    Save,
    Send,
    Spawn,
)
from queuectld.worker.channel import Channel, Identity
from queuectld.worker.command import Spawner
from queuectld.worker.enclosure import Enclosure, Group, enclosure_name
from queuectld.worker.execution import Execution
from queuectld.worker.link import DaemonLink
from queuectld.worker.options import Options
from queuectld.worker.refusal import NotStarted

# A message to a daemon that does not read is given so long when the worker ends, in milliseconds.
_LAST_WORDS: Final = 1000
# What `poll` takes is limited; a day, in milliseconds.
_LONGEST_SLEEP: Final = 86_400_000.0


class WorkerLoop:
    """A worker from its first connection to its end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        me = procfs.stat(os.getpid())
        identity = Identity(options.store, options.name, os.getpid(), me.start if me else 0)
        self._channel = Channel(identity, options.orphan_timeout, time.monotonic())
        self._spawner = Spawner()
        self._enclosure = _enclosure(options, identity)
        self._poll = select.poll()
        self._link: DaemonLink | None = None
        self._execution: Execution | None = None
        self._actions: deque[Action] = deque()
        self._complained: int | None = None
        self._running = True
        self._signals = _listen_for_signals()
        self._poll.register(self._signals, select.POLLIN)

    def run(self) -> None:
        """Work until the channel says to quit."""
        self._do(self._channel.tick(time.monotonic()))
        # While the daemon makes our acquaintance.
        if self._enclosure:
            self._enclosure.settle()
        while self._running:
            self._wait()
            self._do(self._channel.tick(time.monotonic()))
        self._leave()

    # Waiting.

    def _wait(self) -> None:
        for descriptor, _ in self._poll.poll(self._patience()):
            self._readable(descriptor)
        if self._execution:
            self._turn(self._execution)

    def _patience(self) -> float | None:
        due = self._channel.due()
        if self._execution and (its := self._execution.due()) is not None:
            due = min(due, its)
        # Rounded up, so as not to come back a moment early and spin.
        return None if due == float("inf") else min(max(0.0, (due - time.monotonic()) * 1000 + 1), _LONGEST_SLEEP)

    def _readable(self, descriptor: int) -> None:
        if descriptor == self._signals:
            self._hear()
        elif self._link and descriptor == self._link.fileno():
            self._listen(self._link)
        elif self._execution and descriptor in self._execution.pipes:
            if not self._execution.pump(descriptor):
                self._poll.unregister(descriptor)
            self._do(self._channel.grown(self._execution.size, time.monotonic()))

    def _hear(self) -> None:
        # That a child has ended needs no more than the turn that follows.
        if signal.SIGTERM in os.read(self._signals, 4096):
            if self._link:
                # What the daemon sent before it could know is taken first.
                self._listen(self._link)
            self._do(self._channel.terminate())

    def _listen(self, link: DaemonLink) -> None:
        link.flush()
        messages, stands = link.receive()
        for message in messages:
            self._do(self._channel.received(message, time.monotonic()))
        if link is not self._link:
            return
        if stands:
            self._watch(link)
        else:
            self._disconnect()
            self._do(self._channel.lost(time.monotonic()))

    def _turn(self, execution: Execution) -> None:
        pipes = execution.pipes
        execution.turn(time.monotonic())
        if execution.outcome:
            for descriptor in pipes:
                self._poll.unregister(descriptor)
            self._execution = None
            last = self._let_go(execution)
            self._do(self._channel.grown(execution.size, time.monotonic()))
            self._do(self._channel.ended(execution.outcome, last=last))
            # Its SIGCHLD has most likely been noted, and is worth no turn of its own any more.
            with contextlib.suppress(BlockingIOError):
                self._hear()
        elif leader := execution.leader_to_announce(time.monotonic()):
            self._do(self._channel.started(*leader))

    def _let_go(self, execution: Execution) -> bool:
        """Clean up behind a command; return whether it was our last: what it left, or where it left us, is not ours."""
        if execution.kept:
            try:
                kept.save(self._options.state, self._options.store, self._channel.last_token, execution.kept)
            except OSError as error:
                _complain(self._options.name, f"what was kept may be ended later, since that cannot be stored: {error}")
        if self._enclosure is None:
            return bool(execution.kept)
        self._enclosure.over(execution.group)
        return bool(execution.kept) or self._enclosure.stranded

    # Doing.

    def _do(self, actions: list[Action]) -> None:
        self._actions += actions
        while self._actions:
            self._act(self._actions.popleft())

    def _act(self, action: Action) -> None:  # noqa: C901, PLR0912 - one case an action
        match action:
            case Send():
                if self._link:
                    self._link.send(action.message)
                    self._watch(self._link)
            case Spawn():
                self._spawn(action.token, action.spec)
            case EndTree():
                if self._execution:
                    self._execution.stop(time.monotonic(), action.reason, action.grace, action.kill_after)
            case PassSignal():
                if self._execution:
                    self._execution.pass_signal(action.number)
            case Decline():
                self._end_early(Reason.INTERRUPTED, None, "the worker was about to end")
            case Connect():
                self._connect()
            case Disconnect():
                self._disconnect()
            case Save():
                self._save(action)
            case Quit():
                self._running = False
            case _:
                assert_never(action)

    def _spawn(self, token: int, spec: RunSpec) -> None:
        marker = f"{self._options.store}/{token}"
        now = time.monotonic()
        with self._place(spec) as group:
            command = self._spawner.spawn(spec, marker)
        if isinstance(command, NotStarted):
            if self._enclosure:
                self._enclosure.over(group)
            self._end_early(command.reason, command.exit_code, command.message)
            return
        self._execution = Execution(spec, command, marker, group, now)
        for descriptor in self._execution.pipes:
            self._poll.register(descriptor, select.POLLIN)

    def _place(self, spec: RunSpec) -> AbstractContextManager[Group | None]:
        """Return where a command is to be started: what is measured or kept is told apart from us."""
        if self._enclosure is None:
            return contextlib.nullcontext()
        apart = spec.keep_leftovers or spec.memory is not None or spec.cpu is not None
        return self._enclosure.around(spec.cgroup if apart else None)

    def _end_early(self, reason: Reason, exit_code: int | None, message: str) -> None:
        outcome = Outcome(reason=reason, ended_at=time.time(), exit_code=exit_code, message=message)
        self._actions += self._channel.ended(outcome)

    def _connect(self) -> None:
        now = time.monotonic()
        try:
            self._link = DaemonLink(self._options.state)
        except OSError:
            self._actions += self._channel.lost(now)
            return
        self._poll.register(self._link.fileno(), select.POLLIN)
        self._actions += self._channel.connected(now)

    def _disconnect(self) -> None:
        if self._link:
            self._poll.unregister(self._link.fileno())
            self._link.close()
            self._link = None

    def _watch(self, link: DaemonLink) -> None:
        self._poll.modify(link.fileno(), select.POLLIN | (select.POLLOUT if link.wants_to_write else 0))

    def _save(self, action: Save) -> None:
        try:
            outcomes.save(self._options.state, self._options.store, action.token, action.outcome)
        except OSError as error:
            done = False
            if self._complained != action.token:
                # Once: a disk stays full for a while.
                self._complained = action.token
                _complain(self._options.name, f"the outcome of {action.token} cannot be stored yet: {error}")
        else:
            done = True
        self._actions += self._channel.saved(action.token, time.monotonic(), done=done)

    def _leave(self) -> None:
        if self._link and self._link.wants_to_write:
            self._poll.modify(self._link.fileno(), select.POLLOUT)
            self._poll.poll(_LAST_WORDS)
            self._link.flush()
        self._disconnect()
        if self._enclosure:
            self._enclosure.leave()


def _enclosure(options: Options, me: Identity) -> Enclosure | None:
    if options.cgroups is None or options.home is None:
        return None
    return Enclosure(options.cgroups, options.home, enclosure_name(me.pid, me.pid_start))


def _listen_for_signals() -> int:
    # The numbers of signals arrive in a pipe. Handlers that do nothing, and not SIG_IGN, since the command would
    # inherit that.
    _forget_dispositions()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _nothing)
    return reader


def _forget_dispositions() -> None:
    # What a shell or nohup made our ancestors ignore or block is no business of the commands. The two that Python
    # ignores for itself are put right when a command is started.
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN and number not in {signal.SIGPIPE, signal.SIGXFSZ}:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Leave it to the pipe."""


def _complain(name: str, text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"{name}: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the file workers.log
