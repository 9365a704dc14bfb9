"""Hostile clients: whatever they send, each complete line is answered once, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from queuectld.errors import QueueCTLError
from queuectld.protocol.words import INFLIGHT_LIMIT
from tests.faults.requests import Owed, identity, lines, owed
from tests.faults.suite import Suite, Tally, home
from tests.system.bystander import AT_MOST, MIB, USUALLY, many_files, memory, others_are_served, told
from tests.system.conftest import SURPRISES
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

CONFIG: Final[dict[str, Any]] = {"workers": 2, "shutdown_grace": 0.1}
# Seconds without a byte, after which an answer does not come any more.
_PATIENCE: Final = 20.0
# A batch is one connection's talk.
_LARGEST: Final = 40
# Lines that are drawn together.
_DRAWN: Final = 2000
# What may be left of memory that was needed for a while, in MiB.
GROWTH: Final = 24.0
_SENTINEL: Final = "sentinel"


def codes() -> frozenset[str]:
    """Return the words that errors may have, of which `internal` is none that a client can bring about."""
    found, waiting = set(), [QueueCTLError]
    while waiting:
        kind = waiting.pop()
        found.add(kind.code)
        waiting += kind.__subclasses__()
    return frozenset(found - {"internal"})


def exchange(sock: socket.socket, pieces: Sequence[bytes]) -> bytes:
    """Send pieces and half-close, reading all the time; return all that came until the server closed."""
    sock.setblocking(False)
    waiting, came = list(reversed(pieces)), bytearray()
    quiet = time.monotonic()
    while True:
        readable, writable, _ = select.select([sock], [sock] if waiting else [], [], 1.0)
        if readable or writable:
            quiet = time.monotonic()
        elif time.monotonic() - quiet > _PATIENCE:
            raise TimeoutError(f"nothing came for {_PATIENCE:g} s; until then: {bytes(came[-500:])!r}")
        if readable:
            if not (data := sock.recv(256 * 1024)):
                return bytes(came)
            came += data
        if writable and waiting:
            with contextlib.suppress(BlockingIOError):
                piece = waiting.pop()
                if rest := piece[sock.send(piece) :]:
                    waiting.append(rest)
                if not waiting:
                    sock.shutdown(socket.SHUT_WR)


def judge(sent: bytes, came: bytes) -> list[str]:
    """Return what is wrong with the answers to what was sent, greeting included."""
    due = owed(sent)
    if came and not came.endswith(b"\n"):
        return [f"half a line came: {came[-200:]!r}"]
    try:
        replies = [json.loads(line) for line in came.splitlines()][1:]
    except ValueError as error:
        return [f"a line came that is no JSON: {error}"]
    final = [reply for reply in replies if "event" not in reply]
    return _malformed(replies) + _miscounted(due, final)


def _malformed(replies: Sequence[Any]) -> list[str]:
    wrong = []
    known = codes()
    for reply in replies:
        kind = set(reply) - {"id"}
        if "id" not in reply or len(kind) != 1 or not kind <= {"ok", "event", "error"}:
            wrong.append(f"no answer at all: {str(reply)[:200]}")
        elif kind == {"error"}:
            error = reply["error"]
            if error.get("code") not in known or not 0 < len(error.get("message", "")) <= 1000:
                wrong.append(f"no such error: {str(reply)[:300]}")
        elif reply["id"] is None:
            wrong.append(f"only an error may lack an id: {str(reply)[:200]}")
    return wrong


def _miscounted(due: Owed, final: Sequence[Any]) -> list[str]:
    if len(final) != due.answers:
        return [f"{due.answers} lines were answered {len(final)} times"]
    came = Counter(identity(reply["id"]) for reply in final)
    missing = due.ids - came
    return [f"no answers to {missing}"] if missing else []


class Fuzzer:
    """Many short talks with one daemon, each with a job among the rubbish that has to be stored."""

    def __init__(self, daemon: LiveDaemon, tally: Tally, seed: int) -> None:
        self._daemon, self._tally, self._seed = daemon, tally, seed
        self.sent = 0
        self.kept: list[str] = []

    def talk(self, data: st.DataObject) -> None:
        batch = self._drawn(data)
        self.sent += len(batch)
        text = b"".join(line + b"\n" for line in batch)
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.connect(str(self._daemon.socket))
            if data.draw(st.integers(0, 19)) == 0:
                # Gone in the middle of it.
                with contextlib.suppress(BrokenPipeError):
                    sock.sendall(text)
                return
            name, keep = self._valid()
            half = data.draw(st.sampled_from([b"", b"", b"", b'{"id":1', b"\xff", b" "]))
            sent = text + keep + _line({"id": _SENTINEL, "op": "ping"}) + half
            came = exchange(sock, _cut(sent, data))
        wrong = judge(sent, came)
        if not wrong and b'"id":"sentinel","ok"' not in came:
            wrong = ["the connection did not live on"]
        self.kept.append(name)
        self._tally.check("each line is answered once", other=[f"{one}, to {sent[:2000]!r}" for one in wrong])
        # So that hypothesis looks for the least that does it.
        assert not wrong, wrong

    def _drawn(self, data: st.DataObject) -> list[bytes]:
        return [data.draw(lines(number)) for number in range(data.draw(st.integers(1, _LARGEST)))]

    def _valid(self) -> tuple[str, bytes]:
        name = f"kept-{self._seed}-{len(self.kept)}"
        job = {"id": name, "command": "true", "delay": 3600}
        # A talk that is tried again finds its job there.
        return name, _line({"id": name, "op": "enqueue", "jobs": [job]})


def _line(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode() + b"\n"


def _cut(text: bytes, data: st.DataObject) -> list[bytes]:
    """Cut it as a network might."""
    match data.draw(st.integers(0, 4)):
        case 0:
            size = 7
        case 1 if len(text) < 4000:
            size = 1
        case 2:
            size = 1000
        case _:
            return [text]
    return [text[start : start + size] for start in range(0, len(text), size)]


def fuzz(daemon: LiveDaemon, inputs: int, seed: int, tally: Tally) -> None:
    """Send so many lines."""
    fuzzer = Fuzzer(daemon, tally, seed)

    @settings(
        max_examples=max(1, inputs * 2 // _LARGEST),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def talk(data: st.DataObject) -> None:
        fuzzer.talk(data)

    # What was found is in the tally, and its text says what was sent.
    with contextlib.suppress(AssertionError):
        seeded(seed)(talk)()
    tally.fault("lines", fuzzer.sent)
    few = [f"{fuzzer.sent} of {inputs} lines"] if fuzzer.sent < inputs / 2 else []
    tally.check("fuzzing went on to its end", other=few)
    with daemon.wire() as wire:
        stored = set(wire.ids())
    tally.check("valid jobs between are stored", lost=sorted(set(fuzzer.kept) - stored)[:20])
    tally.runs += len(fuzzer.kept)


# Greedy, slow and silent ones. Each returns how often it did what it does.


def one_endless_line(daemon: LiveDaemon, size: int) -> int:
    with daemon.wire() as wire:
        block = b"x" * MIB
        for _ in range(size):
            wire.raw(block)
        refused = wire.line()["error"]["code"]
        wire.raw(b"\n")
        assert refused == "line_too_long"
        assert wire.call("ping")
    return 1


def idle(daemon: LiveDaemon, size: int) -> int:
    with ExitStack() as stack:
        for _ in range(size):
            stack.enter_context(daemon.wire())
        with daemon.wire() as wire:
            assert wire.call("status")["connections"] >= size
            wire.call("wait", select={"ids": [wire.enqueue("true")]})
    with daemon.wire() as wire:
        wait_for(lambda: wire.call("status")["connections"] < 10, "all are gone")
    return size


def writers_that_never_end(daemon: LiveDaemon, size: int) -> int:
    """Half a line of the greatest length from each, all held at once."""
    with ExitStack() as stack:
        writers = [stack.enter_context(daemon.wire()) for _ in range(size)]
        for writer in writers:
            writer.raw(b'{"id":1,"note":"' + b"x" * 200_000)
        with daemon.wire() as wire:
            assert wire.call("ping")
    return size


def readers_that_stop(daemon: LiveDaemon, size: int) -> int:
    """Follow everything, and read nothing of it."""
    with ExitStack() as stack, daemon.wire() as wire:
        loud = wire.enqueue("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); printf '%0999d\\n' $i; done")
        for _ in range(size):
            deaf = stack.enter_context(daemon.wire())
            deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for start in range(20):
                deaf.send("events", start=start, follow=True)
                deaf.send("logs", jobs=[loud], follow=True)
            deaf.send("wait", select={})
        wire.call("wait", select={"ids": [loud]})
    return size


def askers_that_never_read(daemon: LiveDaemon, size: int) -> int:
    with ExitStack() as stack:
        for _ in range(size):
            asker = stack.enter_context(daemon.wire())
            asker.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while asker.socket.send(b'{"id":1,"op":"list","limit":1000}\n' * 100):
                    pass
    return size


def comers_and_goers(daemon: LiveDaemon, size: int) -> int:
    for number in range(size):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.connect(str(daemon.socket))
            if number % 3:
                sock.sendall(b'{"id":1,"op":"status"}\n{"id":2,"op":"events","start":1,"follow":true}\n')
            if number % 3 == 2:
                sock.recv(1)
    return size


def hoarders(daemon: LiveDaemon, size: int) -> int:
    """Stage all that may be staged, and leave."""
    for _ in range(size):
        with daemon.wire() as wire:
            piece = "x" * 900_000
            refused = 0
            for _ in range(80):
                wire.send("stage", key="hoard", data=piece)
                refused += "error" in wire.line()
            assert refused, "it takes more than it says"
    return size


def senders_of_many_jobs(daemon: LiveDaemon, size: int) -> int:
    """Jobs in full lines from several connections at once, and as many staged, all the time."""
    line = _line({"id": 1, "op": "enqueue", "jobs": [{"command": "true", "delay": 36_000}] * 20_000})
    with ExitStack() as stack:
        wires = [stack.enter_context(daemon.wire()) for _ in range(4)]
        for _ in range(size):
            for wire in wires:
                wire.raw(line)
            with daemon.wire() as wire:
                wire.call("stage", key="a", jobs=[{"command": "true", "delay": 36_000}] * 15_000)
                assert len(wire.call("enqueue", staged="a")["jobs"]) == 15_000
            for wire in wires:
                assert len(wire.line()["ok"]["jobs"]) == 20_000
    return size * 95_000


def senders_of_large_jobs(daemon: LiveDaemon, size: int) -> int:
    """As many lines of the greatest length as a connection may have open, from many at once."""
    line = _line({"id": 1, "op": "enqueue", "jobs": [{"command": "true", "delay": 36_000, "stdin": "x" * 1_000_000}]})
    with ExitStack() as stack:
        wires = [stack.enter_context(daemon.wire()) for _ in range(size)]
        senders = [threading.Thread(target=wire.raw, args=(line * INFLIGHT_LIMIT,)) for wire in wires]
        for sender in senders:
            sender.start()
        for sender, wire in zip(senders, wires, strict=True):
            for _ in range(INFLIGHT_LIMIT):
                assert "ok" in wire.line()
            sender.join()
    return size * INFLIGHT_LIMIT


class Storm(NamedTuple):
    """What happens, how much of it in a long run, and the memory that the daemon may keep afterwards, in MiB."""

    run: Callable[[LiveDaemon, int], int]
    size: int
    growth: float = GROWTH


STORMS: Final = {
    "MiB in one line": Storm(one_endless_line, 1024),
    "idle connections": Storm(idle, 2000),
    "lines without an end": Storm(writers_that_never_end, 60),
    "readers that stop": Storm(readers_that_stop, 20),
    "askers that never read": Storm(askers_that_never_read, 20),
    "connections made and dropped": Storm(comers_and_goers, 5000),
    "hoarders of staged input": Storm(hoarders, 2),
    # What is read and stored meanwhile are small objects, between which others stay; and the store's cache fills up.
    "jobs sent by the ten thousand": Storm(senders_of_many_jobs, 5, growth=64),
    "jobs of a megabyte at once": Storm(senders_of_large_jobs, 20),
}


def storm(daemon: LiveDaemon, name: str, size: int, tally: Tally) -> None:
    """Let one of the storms pass, and look at others' answers and at the daemon's memory."""
    passing = STORMS[name]
    before = memory(daemon)
    with others_are_served(daemon, pause=0.01) as took:
        tally.fault(name, passing.run(daemon, size))
    looked_after(daemon, name, before, took, tally, growth=passing.growth)


def looked_after(
    daemon: LiveDaemon, name: str, before: float, took: list[float], tally: Tally, *, growth: float = GROWTH
) -> None:
    """Note what the others and the memory of the daemon say of it."""
    middle = sorted(took)[len(took) // 2]
    tally.figures[f"answers to others, {name}"] = told(took)
    late = [told(took)] if middle > USUALLY or max(took) > AT_MOST else []
    tally.check("others are answered in time", other=[f"{name}: {one}" for one in late])
    # Who has left may not be forgotten yet.
    with contextlib.suppress(AssertionError):
        wait_for(lambda: memory(daemon) - before < growth, "memory is given back", deadline=5)
    after = memory(daemon)
    tally.figures[f"memory, {name}"] = f"{before:.0f} to {after:.0f} MiB"
    grown = [f"{name}: {before:.1f} to {after:.1f} MiB"] if after - before > growth else []
    tally.check("memory stays", other=grown)


def attack(tally: Tally, inputs: int, seed: int, *, storms: float = 1.0) -> None:
    """Send so many lines, and let storms pass, at this share of their size."""
    luck = random.Random(seed)
    with home() as place, many_files(), LiveDaemon(place, **CONFIG) as daemon:
        daemon.start()
        fuzz(daemon, min(inputs, 200), seed * 1000, Tally())
        before = memory(daemon)
        with others_are_served(daemon, pause=0.01) as took:
            # What is drawn is kept in mind, so as to draw something else: not for ever.
            for number in range(0, inputs, _DRAWN):
                fuzz(daemon, min(_DRAWN, inputs - number), seed * 1000 + number // _DRAWN + 1, tally)
        looked_after(daemon, "lines", before, took, tally)
        names = list(STORMS)
        luck.shuffle(names)
        for name in names:
            storm(daemon, name, max(1, int(STORMS[name].size * storms)), tally)
        code = daemon.stop()
        tally.check("a stop ends well", other=[f"exit code {code}"] if code else [])
        surprises = [str(line)[:1000] for line in daemon.log_lines() if line["event"] in SURPRISES]
        tally.check("nothing surprises the daemon", other=surprises[:5])
        tally.check("no traceback is printed", other=["Traceback"] if "Traceback" in daemon.log.read_text() else [])


SUITE: Final = Suite(
    "hostile-clients",
    "a fuzzer of the protocol; silent, greedy and slow connections, and what others notice of them",
    attack,
    rounds=100_000,
    unit="lines",
)
