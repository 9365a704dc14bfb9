"""The requests of one connection: what may begin, what waits, and in which order the answers leave.

Short requests are answered in the order of their coming, though many changes are under way at once, so that they share
commits. Streams and commands that take long are answered when they are done. Owns no socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, assert_never

import msgspec

from queuectld.errors import BadRequestError, NoSuchStreamError
from queuectld.protocol.codec import encode
from queuectld.protocol.frames import RequestId, Streamed
from queuectld.protocol.replies import Stopped
from queuectld.protocol.words import INFLIGHT_LIMIT
from queuectld.server.answers import Question, closing, known
from queuectld.server.desk import Ledger
from queuectld.server.outlet import Outlet
from queuectld.server.plan import Change, Now, Plan, Read, Reads, Refuse, Stop, Stream, Write
from queuectld.store.turns import Turn

# One place is kept for the request that stops a stream.
STREAM_LIMIT: Final = INFLIGHT_LIMIT - 1


class Wire(Protocol):
    """The way to the client."""

    # Set while the client reads as fast as it is written to.
    room: asyncio.Event

    def send(self, data: bytes) -> None:
        """Send these lines."""

    def close(self) -> None:
        """Send what was given to `send`, then end."""

    def moved(self) -> None:
        """Something was answered: there may be room for another request."""


class _Slot:
    """The place of an answer in the order of the answers."""

    __slots__ = ("close", "line")

    def __init__(self) -> None:
        self.line: bytes | None = None
        self.close = False


class Conversation:
    """What is open on one connection."""

    def __init__(self, ledger: Ledger, wire: Wire, count: Callable[[str, str], None]) -> None:
        """`count` is told of each answer: to which operation, and ``ok`` or the code of the error."""
        self._ledger = ledger
        self._count = count
        self._wire = wire
        self._slots: deque[_Slot] = deque()
        self._streams: dict[RequestId | None, Outlet] = {}
        # Bytes of the requests for open streams.
        self.held = 0
        # Who waits for the end of a stream.
        self._stops: dict[RequestId | None, list[Question]] = {}
        self._turn = asyncio.Lock()
        self._long = 0
        self._writes = 0
        self._reading = False
        self._changing = False
        self._flushing = False
        self._over = False
        self._ending = False
        self._transient: set[asyncio.Task[None]] = set()
        self._lasting: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """Requests that have not been answered to their end."""
        return len(self._slots) + len(self._streams) + self._long

    @property
    def settled(self) -> bool:
        """Whether nothing is open but what may take as long as a command does."""
        return not (self._slots or self._streams)

    @property
    def changing(self) -> bool:
        """Whether a change of several steps is under way: what comes behind it is not even looked at before."""
        return self._changing

    @property
    def full(self) -> bool:
        """Whether nothing more is to be begun: too much is open, or the client does not read."""
        return self.open >= INFLIGHT_LIMIT or not self._wire.room.is_set()

    def may_start(self, plan: Plan) -> bool:
        """Whether its turn has come, behind the connection's own changes."""
        match plan:
            case Read() | Reads():
                return not (self._reading or self._writes)
            case Stream() | Change():
                return not self._writes
            case _:
                return True

    def start(self, question: Question, plan: Plan, size: int, over: Callable[[], None]) -> None:
        """Carry a plan out, and answer it; call `over` when it takes up nothing more.

        `size` is how long its line was: a stream takes that up for as long as it lasts, which is in `held`.
        """
        match plan:
            case Write():
                self._writes += 1
                done = partial(self._written, question, self._slot(), over)
                self._ledger.submit(plan.work, done, sheds=plan.sheds, turn=Turn(self, plan.weight))
            case Now():
                self._fill(self._slot(), self._answer(question, plan.reply))
                over()
            case Refuse():
                self._fill(self._slot(), self._answer(question, plan.error), close=plan.close)
                over()
            case Read():
                self._look(question, partial(self._ledger.read, plan.work), over)
            case Reads():
                self._look(question, plan.run, over)
            case Change():
                self._changing = True
                self._long += plan.long
                slot = None if plan.long else self._slot()
                self._begin(self._change(question, slot, plan), self._lasting, over)
            case Stream():
                self._open_stream(question, plan, size)
                over()
            case Stop():
                self._stop_stream(question, plan)
                over()
            case _:
                assert_never(plan)

    def finish(self) -> None:
        """Nothing more will be asked: answer what was, and end streams that only wait for news."""
        self._ending = True
        for outlet in self._streams.values():
            outlet.hang_up()

    def lose(self) -> None:
        """Nobody listens any more. What changes something goes on."""
        self._over = True
        for task in self._transient:
            task.cancel()

    def flush(self) -> None:
        """Send the answers whose turn has come."""
        self._flushing = False
        ready: list[bytes] = []
        close = False
        while self._slots and (line := self._slots[0].line) is not None:
            ready.append(line)
            close = close or self._slots.popleft().close
        if self._over:
            return
        if ready:
            self._wire.send(b"".join(ready))
        if close:
            self._wire.close()
        self._wire.moved()

    # Short requests.

    def _slot(self) -> _Slot:
        slot = _Slot()
        self._slots.append(slot)
        return slot

    def _fill(self, slot: _Slot, line: bytes, *, close: bool = False) -> None:
        slot.line, slot.close = line, close
        # A commit answers many at once: they leave together.
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def _written(self, question: Question, slot: _Slot, over: Callable[[], None], result: Any) -> None:
        self._writes -= 1
        self._fill(slot, self._answer(question, result))
        over()

    def _look(self, question: Question, run: Callable[[], Awaitable[Any]], over: Callable[[], None]) -> None:
        self._reading = True
        self._begin(self._read(question, self._slot(), run), self._transient, over)

    async def _read(self, question: Question, slot: _Slot, run: Callable[[], Awaitable[Any]]) -> None:
        result = await _outcome(run())
        self._reading = False
        self._fill(slot, self._answer(question, result))

    async def _change(self, question: Question, slot: _Slot | None, plan: Change) -> None:
        settled = self._gate()
        result = await _outcome(plan.run(settled))
        settled()
        if slot is not None:
            self._fill(slot, self._answer(question, result))
            return
        self._long -= 1
        self._send(self._answer(question, result))

    def _gate(self) -> Callable[[], None]:
        """Return what lets the next change begin; only the first call counts, since the next may be under way then."""
        shut = [True]

        def open_gate() -> None:
            if shut:
                shut.clear()
                self._changing = False
                self._moved()

        return open_gate

    # Streams.

    def _open_stream(self, question: Question, plan: Stream, size: int) -> None:
        complaint = None
        if question.id in self._streams:
            complaint = BadRequestError(f"stream {question.id!r} is still open", path="$.id")
        elif len(self._streams) >= STREAM_LIMIT:
            complaint = BadRequestError(f"more than {STREAM_LIMIT} streams; stop one first, or open a connection")
        if complaint is not None:
            self._fill(self._slot(), self._answer(question, complaint))
            return
        outlet = Outlet(partial(self._emit, question.id), self._turn)
        if self._ending:
            outlet.hang_up()
        self._streams[question.id] = outlet
        self.held += size
        self._begin(self._stream(question, outlet, plan), self._transient, partial(self._let_go, size))

    def _let_go(self, size: int) -> None:
        self.held -= size

    def _stop_stream(self, question: Question, plan: Stop) -> None:
        outlet = self._streams.get(plan.stream)
        if outlet is None:
            self._fill(self._slot(), self._answer(question, NoSuchStreamError(path="$.stream")))
            return
        self._long += 1
        self._stops.setdefault(plan.stream, []).append(question)
        outlet.stop()

    async def _stream(self, question: Question, outlet: Outlet, plan: Stream) -> None:
        result = await _outcome(plan.run(outlet))
        del self._streams[question.id]
        stops = self._stops.pop(question.id, [])
        self._long -= len(stops)
        self._send(b"".join([self._answer(question, result), *(self._answer(stop, Stopped()) for stop in stops)]))

    async def _emit(self, request_id: RequestId | None, event: msgspec.Struct) -> None:
        # All that wait are woken at once, and the first may fill it again.
        while not self._wire.room.is_set():
            await self._wire.room.wait()
        self._wire.send(encode(Streamed(id=known(request_id), event=event)))

    def _begin(self, work: Coroutine[Any, Any, None], kind: set[asyncio.Task[None]], over: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        kind.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            kind.discard(task)
            over()

        task.add_done_callback(ended)

    def _send(self, line: bytes) -> None:
        if not self._over:
            self._wire.send(line)
        self._moved()

    def _moved(self) -> None:
        if not self._over:
            self._wire.moved()

    def _answer(self, question: Question, result: Any) -> bytes:
        question.told(result)
        word, line = closing(question, result)
        self._count(question.op, word)
        return line


async def _outcome(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except Exception as error:  # noqa: BLE001  (whatever it is, it is this request's answer, not the daemon's end)
        return error
