"""Time that nobody waits for: what is to happen stands in a heap, and the clock jumps to the next of it.

An `Actor` is whatever can stand still or die: a daemon, a worker. What is due for one that stands still is kept
until it goes on; what is due for a dead one never happens. `ActorLoop` is an event loop whose callbacks stand
in the same heap, so that everything in a world has one order, which depends on nothing but its seed.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

Call = Callable[[], object]


class Actor:
    """Who does things, and may be kept from it."""

    def __init__(self) -> None:
        self.alive = True
        self.still = False
        self.held: list[tuple[Call, bool]] = []
        # When it went on last.
        self.woken = 0.0


class Scheduler:
    """The one heap of a world. Times are seconds since its beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        # Events of the world; callbacks of event loops are not counted.
        self.steps = 0
        self._heap: list[tuple[float, int, Actor | None, Call, bool]] = []
        self._count = 0

    def at(self, when: float, call: Call, actor: Actor | None = None, *, counted: bool = True) -> None:
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, actor, call, counted))

    def after(self, delay: float, call: Call, actor: Actor | None = None) -> None:
        self.at(self.now + delay, call, actor)

    def stand_still(self, actor: Actor) -> None:
        actor.still = True

    def go_on(self, actor: Actor) -> None:
        """Let happen what was due meanwhile, in its order."""
        actor.still = False
        actor.woken = self.now
        held, actor.held = actor.held, []
        for call, counted in held:
            self.at(self.now, call, actor, counted=counted)

    def step(self) -> bool:
        """Do the next thing; False if there is none."""
        if not self._heap:
            return False
        when, _, actor, call, counted = heapq.heappop(self._heap)
        self.now = when
        if actor is not None:
            if not actor.alive:
                return True
            if actor.still:
                actor.held.append((call, counted))
                return True
        self.steps += counted
        call()
        return True


class _Task(asyncio.Task[Any]):
    """A task that sets keep in the order of its number, not of its place in memory."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class ActorLoop(asyncio.AbstractEventLoop):
    """An event loop without threads, descriptors or waiting. It lives and dies with its actor."""

    def __init__(self, scheduler: Scheduler, actor: Actor, failed: Callable[[BaseException], None]) -> None:
        """`failed` is told what went wrong in a callback or a task, which is a fault of the product."""
        self._scheduler = scheduler
        self._actor = actor
        self._failed = failed
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._made = 0

    def time(self) -> float:
        return self._scheduler.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._ready:
            self._scheduler.at(self._scheduler.now, self._turn, self._actor, counted=False)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._scheduler.at(when, partial(self._run, handle), self._actor, counted=False)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it in the heap: when its time comes, nothing happens."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = _Task(coro, loop=self, **options)
        self._made += 1
        task.number = self._made
        task.add_done_callback(self._look_at)
        self._tasks.add(task)
        return task

    def bury(self) -> None:
        """Let go of what a dead actor was about to do."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be
            with suppress(ValueError, RuntimeError):
                # The one that runs right now cannot be closed, and is not pending.
                task.get_coro().close()  # type: ignore[union-attr]  # all are coroutines

    def _look_at(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if (error := context.get("exception")) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if self._actor.alive:
            self._failed(error)

    def _turn(self) -> None:
        ready, self._ready = self._ready, deque()
        for handle in ready:
            if not self._actor.alive:
                return
            self._run(handle)

    def _run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            events._set_running_loop(self)
            try:
                handle._run()
            finally:
                events._set_running_loop(None)

    def within(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call this as the loop would, from outside of it."""
        events._set_running_loop(self)
        try:
            return call(*args)
        finally:
            events._set_running_loop(None)
