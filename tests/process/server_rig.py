"""A server of clients on a socket in a temporary directory, over a store in memory, with a pool that only pretends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from queuectld.config import Holder, Loaded, load
from queuectld.domain.attempt import Outcome, Reason
from queuectld.domain.policy import Policy
from queuectld.host.ledger import Ledger
from queuectld.host.reload import Reloader, Stages
from queuectld.protocol.replies import Isolation, LoopView, WorkerView
from queuectld.server.desk import Desk, Facts
from queuectld.server.server import Server
from queuectld.server.who import Peer
from queuectld.service.attempts import Circumstances, Offer, claim_for, finish
from queuectld.service.hub import Hub
from queuectld.store.memory import MemoryStore

PATIENCE = 20.0


class FakeControl:
    """Notes what it is asked; runs nothing."""

    def __init__(self) -> None:
        self.draining = False
        self.limit = 2
        self.asked: list[tuple[Any, ...]] = []
        self.held_up: dict[int, str] = {}
        self.on_cancel: Callable[[int], None] | None = None
        self.listeners: dict[int, Callable[[], None]] = {}
        self.lent: list[int] = []
        self.trouble: list[str] = []
        self.pool: list[WorkerView] = []

    def workers(self) -> list[WorkerView]:
        return self.pool

    def start_workers(self, count: int) -> None:
        self.asked.append(("start_workers", count))

    def reconfigure(self) -> None:
        self.asked.append(("reconfigure",))

    def interrupt_all(self) -> None:
        self.asked.append(("interrupt_all",))

    def cancel(self, token: int, *, kill_after: float | None) -> None:
        self.asked.append(("cancel", token, kill_after))
        if self.on_cancel is not None:
            self.on_cancel(token)

    def signal(self, token: int, number: int) -> bool:
        self.asked.append(("signal", token, number))
        return True

    def held_up_by(self, token: int) -> str | None:
        return self.held_up.get(token)

    def follow(self, token: int, grown: Callable[[], None]) -> Callable[[], None]:
        self.listeners[token] = grown
        return lambda: self.listeners.pop(token, None) and None

    def lend(self, token: int) -> Callable[[], None]:
        self.lent.append(token)
        return lambda: self.lent.remove(token)

    def shutdown(self, mode: str) -> None:
        self.asked.append(("shutdown", mode))

    def problems(self, *, whole: bool = True) -> list[str]:
        return [problem if whole else problem.partition(":")[0] for problem in self.trouble]


class FakeVigil:
    """Finds that all is well."""

    stuck = False

    def loop(self) -> LoopView:
        return LoopView(lag=0.0, max_lag=0.0, stalls=0)

    def problems(self) -> list[str]:
        return []


class Rig:
    """The server on a thread of its own; tests talk to it over sockets, and reach into it by `do`."""

    def __init__(
        self,
        state: Path,
        *,
        environ: dict[str, str] | None = None,
        store: Any = None,
        uid: int | None = None,
        hello_timeout: float = 0.3,
    ):
        self.state = state
        self.socket = state / "queuectl.sock"
        self.control = FakeControl()
        self.store = store if store is not None else MemoryStore()
        self.reexec_fails: Exception | None = None
        # Who connects next, where that is not we.
        self._guests: deque[Peer] = deque()
        self._environ = environ or {}
        self._hello_timeout = hello_timeout
        self._uid = os.getuid() if uid is None else uid
        self._stack = ExitStack()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.hub = Hub()
        ledger = Ledger(self.store, publish=self.hub.publish, on_fatal=print, path=getattr(self.store, "path", None))
        self.config_file = self.state / "queuectld.toml"
        holder = Holder(self._load())
        facts = Facts(
            pid=os.getpid(),
            uid=self._uid,
            user="tester",
            started_at=time.time(),
            socket=str(self.socket),
            state_dir=str(self.state),
            store=ledger.uuid,
            isolation=Isolation(cgroup=None, controllers=(), reason="nothing runs here"),
        )
        self.desk = Desk(
            ledger=ledger,
            control=self.control,
            hub=self.hub,
            holder=holder,
            clock=time.time,
            luck=lambda: 0.5,
            facts=facts,
            reexec=self._reexec,
            vigil=FakeVigil(),
            reloader=self._reloader(holder),
        )
        self.server = Server(self.desk, clients=5000, hello_timeout=self._hello_timeout)
        truly, self.server.identify = (
            self.server.identify,
            lambda sock: self._guests.popleft() if self._guests else truly(sock),
        )
        try:
            await self.server.start()
        except BaseException as error:  # noqa: BLE001  (the test gets it)
            self._failure = error
            self._ready.set()
            await ledger.close()
            return
        self._ready.set()
        await self._end.wait()
        await self.server.stop()
        await ledger.close()

    def _load(self) -> Loaded:
        return load(self.config_file, self.state / "overrides.json", self._environ)

    def _reloader(self, holder: Holder) -> Reloader:
        stages = Stages(begun=lambda: None, ended=lambda _problem: None)
        reconfigure = self.control.reconfigure
        return Reloader(self._load, holder, file=self.config_file, stages=stages, reconfigure=reconfigure)

    async def _reexec(self) -> None:
        self.control.asked.append(("reexec",))
        if self.reexec_fails is not None:
            raise self.reexec_fails

    def do(self, work: Callable[[Any], Any]) -> Any:
        """Run `work` on the store, as the supervisor would."""
        return asyncio.run_coroutine_threadsafe(self.desk.ledger.write(work), self.loop).result(PATIENCE)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call something on the loop."""

        async def on_loop() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(PATIENCE)

    def start_job(self) -> Any:
        """Claim the next job, as for a worker; return what was claimed."""
        offer = Offer("w1", os.getpid(), 1)
        claims = self.do(lambda store: claim_for(store, [offer], now=time.time(), boot_id="b", ripen=True))
        return claims.claimed[0]

    def end_job(self, token: int, **outcome: Any) -> None:
        """Record how an attempt ended."""
        wanted = {"reason": "exited", "ended_at": time.time(), "exit_code": 0} | outcome
        told = Outcome(**wanted | {"reason": Reason(wanted["reason"])})
        given = Circumstances(policy=Policy(), now=time.time(), luck=0.0, boot_id="b")
        self.do(lambda store: finish(store, token, told, given))

    def connect(self, *, greeted: bool = True, peer: Peer | None = None) -> Client:
        """Open a connection; it is closed with the rig. `peer` is who the kernel says that we are."""
        if peer is not None:
            self._guests.append(peer)
        client = Client.unix(str(self.socket))
        self._stack.callback(client.close)
        if greeted:
            client.greeting = client.receive()
        return client

    def connect_tcp(self) -> Client:
        """Open a connection to the port that the kernel has chosen."""
        return Client(socket.create_connection(self.tcp_address()))

    def tcp_address(self) -> Any:
        """The port that the kernel has chosen."""
        listening, _ = self.server._tcp
        return listening.getsockname()

    def reload(self) -> None:
        """Read the configuration and what it names again. Raises `BadConfigError`."""
        asyncio.run_coroutine_threadsafe(self.desk.reloader.reload(), self.loop).result(PATIENCE)


class Client:
    """A client that speaks raw lines."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.file = sock.makefile("rb")
        self.greeting: dict[str, Any] = {}
        self._number = 0

    @classmethod
    def unix(cls, path: str) -> Client:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return cls(sock)

    def close(self) -> None:
        self.file.close()
        self.sock.close()

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, **request: Any) -> Any:
        """Send a request and return its id."""
        self._number += 1
        request = {"id": self._number} | request
        self.send_raw(json.dumps(request).encode() + b"\n")
        return request["id"]

    def receive(self) -> dict[str, Any]:
        line = self.file.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return its whole answer."""
        number = self.send(**request)
        answer = self.receive()
        assert answer["id"] == number
        return answer

    def ok(self, **request: Any) -> Any:
        """Send a request that has to succeed."""
        answer = self.ask(**request)
        assert "ok" in answer, answer
        return answer["ok"]

    def error(self, **request: Any) -> Any:
        """Send a request that has to fail."""
        answer = self.ask(**request)
        assert "error" in answer, answer
        return answer["error"]

    def add(self, command: str = "true", **fields: Any) -> str:
        """Store a job; return its id."""
        return self.ok(op="enqueue", jobs=[{"command": command} | fields])["jobs"][0]["id"]
