"""How many attempts may run at once, where some only wait for others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from queuectld.config import Config, Holder, Loaded
from queuectld.domain.attempt import Outcome, Reason
from queuectld.protocol.worker_messages import CHANNEL_VERSION, Ended, Hello, Idle
from queuectld.supervisor.dispatch import Dispatcher
from queuectld.supervisor.link import WorkerLink
from queuectld.supervisor.worker import Worker

OVER = Outcome(reason=Reason.EXITED, ended_at=1.0, exit_code=0)


class Fakes:
    """What a dispatcher needs, with `workers` that may run `limit` attempts; notes for whom jobs are claimed."""

    draining = False

    def __init__(self, *workers: Worker, limit: int) -> None:
        self.claimed_for: list[str] = []
        config = Holder(Loaded(config=Config(workers=limit), environment={}, overrides={}, file={}, config_file=None))
        alarm = SimpleNamespace(no_later_than=lambda _when: None, close=lambda: None)
        world = SimpleNamespace(machine=SimpleNamespace(alarm=lambda _ring: alarm), clock=lambda: 0.0)
        self.dispatcher = Dispatcher(self, workers, self, config, world)

    def claim(self, offers, _done, **_):
        self.claimed_for += [offer.worker for offer in offers]

    def replan(self) -> None:
        pass


def connected(name: str) -> Worker:
    link = WorkerLink("store")
    link.hello(Hello(protocol=CHANNEL_VERSION, store="store", name=name, pid=1, pid_start=1, state=Idle()))
    return Worker(name, 1, 1, link, started_at=0.0, since=0.0, heard_at=0.0, connection=SimpleNamespace())


def running(name: str, token: int) -> Worker:
    worker = connected(name)
    worker.link.claimed(token)
    worker.link.phase = worker.link.phase.RUNNING
    return worker


def test_an_attempt_that_waits_for_another_makes_room_for_one() -> None:
    async def scenario() -> list[str]:
        fakes = Fakes(running("waiting", 7), connected("free"), limit=1)
        fakes.dispatcher.demand.expect(5)
        fakes.dispatcher.dispatch()
        assert fakes.claimed_for == []

        fakes.dispatcher.lend(7)
        return fakes.claimed_for

    assert asyncio.run(scenario()) == ["free"]


def test_an_attempt_that_has_ended_waits_for_nothing_so_its_worker_and_another_do_not_both_get_a_job() -> None:
    async def scenario() -> list[str]:
        ending, free = running("ending", 7), connected("free")
        fakes = Fakes(ending, free, limit=1)
        fakes.dispatcher.lend(7)
        ending.link.ended(Ended(7, OVER))

        offer = fakes.dispatcher.next_offer(ending, 7, OVER)
        fakes.dispatcher.demand.expect(5)
        fakes.dispatcher.dispatch()
        return [*([offer.worker] if offer else []), *fakes.claimed_for]

    assert asyncio.run(scenario()) == ["ending"]


def test_the_worker_of_an_attempt_that_has_ended_gets_no_job_where_another_took_its_room_meanwhile() -> None:
    async def scenario() -> object:
        ending = running("ending", 7)
        fakes = Fakes(ending, running("busy", 8), limit=1)
        fakes.dispatcher.lend(7)
        ending.link.ended(Ended(7, OVER))

        return fakes.dispatcher.next_offer(ending, 7, OVER)

    assert asyncio.run(scenario()) is None
