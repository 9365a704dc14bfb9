"""The supervisor with real workers, over a store in memory that a test can hold up, on the loop of the test."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from queuectld.config import Holder, load
from queuectld.domain.job import Job, State
from queuectld.domain.spec import JobSpec
from queuectld.host.children import Children
from queuectld.host.file_limit import raise_file_limit
from queuectld.host.ledger import Ledger
from queuectld.host.state_dir import open_state_dir
from queuectld.service.account import own_account
from queuectld.service.hub import Hub
from queuectld.store.base import Store
from queuectld.store.memory import MemoryStore
from queuectld.supervisor.accounts import accounts_for
from queuectld.supervisor.files import StateFiles
from queuectld.supervisor.linux import LinuxMachine
from queuectld.supervisor.records import Records
from queuectld.supervisor.supervisor import Supervisor
from queuectld.supervisor.world import World
from tests import cgroup_place
from tests.system import processes


class Rig:
    """One run of a supervisor. `store` may be that of a run before, so that this one finds what that one left."""

    def __init__(self, home: Path, store: Store | None = None, **keys: Any) -> None:
        self.home = home
        self.store = store or MemoryStore()
        # Added to the wall clock.
        self.ahead = 0.0
        self.over = False
        # Whose the jobs are.
        self.owner = pwd.getpwuid(os.geteuid()).pw_name
        keys = {"workers": 1, "vitals_interval": 60, "shutdown_grace": 0, "kill_after": 0.2} | keys
        (home / "queuectld.toml").write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))

    async def __aenter__(self) -> Self:
        await self.prepare()
        await self.supervisor.start()
        return self

    async def prepare(self) -> None:
        """Put everything together; `supervisor.start` is left to be done."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, Children().reap)
        self.hub = Hub()
        self.ledger = Ledger(self.store, publish=self.hub.publish, on_fatal=print)
        self.holder = Holder(load(self.home / "queuectld.toml", self.home / "overrides.json", {}))
        self.state = open_state_dir(self.home / "state")
        store = self.ledger.uuid
        machine = LinuxMachine(self.state, store, environ=os.environ.copy(), files=raise_file_limit())
        self.cgroup = machine.isolation.cgroup
        world = World(
            machine=machine,
            files=StateFiles(self.state, store),
            store=store,
            output=str(self.state.output),
            accounts=accounts_for(own_account(os.geteuid(), os.environ), os.environ),
            clock=self.clock,
        )
        self.records = Records(self.ledger, self.holder, boot_id=machine.boot_id, clock=self.clock)
        self.supervisor = Supervisor(self.records, self.hub, self.holder, world)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if not self.over:
            await self.stop("now")
        if error is not None:
            self.clean()

    def clean(self) -> None:
        """End by force what outlives it."""
        processes.end(self.home)
        if self.cgroup is not None:
            cgroup_place.end(self.cgroup)

    async def stop(self, mode: Any) -> float:
        """End it; return the seconds that it took."""
        asked = time.monotonic()
        self.supervisor.shutdown(mode)
        await self.supervisor.wait_until_stopped()
        await self.ledger.close()
        self.state.close()
        self.over = True
        return time.monotonic() - asked

    def clock(self) -> float:
        return time.time() + self.ahead

    def bound(self, workers: int) -> None:
        """Take up another bound of the pool."""
        self.holder.replace(self.holder.loaded.with_override("workers", workers, "tester", 0.0))
        self.supervisor.reconfigure()

    async def add(
        self, *names: str, command: str = "true", due: float = 0.0, stdin: bytes | None = None, **spec: Any
    ) -> None:
        """Store jobs that do the same, in one commit."""
        now = self.clock()

        def add(store: Store) -> None:
            digest = store.intern(stdin) if stdin is not None else None
            jobs = [self._draft(name, JobSpec(command=command, **spec), now, due or now, digest) for name in names]
            assert all(isinstance(added, Job) for added in store.add(jobs))

        await self.ledger.write(add)

    def _draft(self, name: str, spec: JobSpec, now: float, due: float, stdin: str | None) -> Job:
        spec = replace(spec, cwd=str(self.home))
        times = {"created_at": now, "updated_at": now, "due": due, "rank": due}
        return Job(seq=0, id=name, spec=spec, owner=self.owner, stdin=stdin, **times)

    async def job(self, name: str) -> Job:
        return await self.ledger.write(lambda store: store.get(name))

    async def reach(self, name: str, *states: State) -> Job:
        """Wait until a job is in one of these states; return it."""
        return await until(lambda: self._if_in(name, states), f"{name} is {states}")

    async def _if_in(self, name: str, states: tuple[State, ...]) -> Job | None:
        job = await self.job(name)
        return job if job.state in states else None

    async def idle(self) -> None:
        """Wait for a worker that waits for work."""
        await until(lambda: self._phases("idle"), "a worker is idle")

    async def running(self, name: str) -> int:
        """Wait until a job's command runs; return the process of its worker."""

        async def worker() -> int | None:
            return next((w.pid for w in self.supervisor.workers() if w.job == name and w.phase == "running"), None)

        await until(self._witnessed(name), f"{name} has begun")
        return await until(worker, f"{name} runs")

    def _witnessed(self, name: str) -> Callable[[], Any]:
        async def there() -> bool:
            return (self.home / name).exists()

        return there

    async def _phases(self, phase: str) -> bool:
        return phase in {worker.phase for worker in self.supervisor.workers()}

    async def has_workers(self, count: int) -> bool:
        return len(self.supervisor.workers()) == count

    async def all_idle(self) -> bool:
        return {worker.phase for worker in self.supervisor.workers()} == {"idle"}


async def until(condition: Callable[[], Any], what: str, deadline: float = 20.0) -> Any:
    """Return the first true value that awaiting `condition()` gives."""
    limit = time.monotonic() + deadline
    while not (found := await condition()):
        assert time.monotonic() < limit, f"not within {deadline:g} s: {what}"
        await asyncio.sleep(0.01)
    return found
