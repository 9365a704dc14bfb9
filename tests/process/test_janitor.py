"""Retention on a real store: what was kept long enough goes, its output too, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from queuectld.config import Holder, load
from queuectld.domain.attempt import Outcome, Reason
from queuectld.domain.policy import Policy
from queuectld.host.ledger import Ledger
from queuectld.protocol.output import SUFFIXES, base_name
from queuectld.service.attempts import Circumstances, Offer, claim_for, finish
from queuectld.store.base import Query
from queuectld.store.sqlite import open_store
from queuectld.supervisor.janitor import Janitor
from tests.store.driving import draft

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
def clean(tmp_path):
    """Let jobs with these names and ages in days end in the store, clean up, and return the names that are left."""

    def clean(done, *, dead=(), **settings):
        environ = {f"QUEUECTLD_{key.upper()}": str(value) for key, value in settings.items()}
        holder = Holder(load(tmp_path / "none", tmp_path / "none", environ))

        async def run():
            ledger = Ledger(
                open_store(tmp_path / "queue.db"),
                publish=lambda _: None,
                on_fatal=pytest.fail,
                path=tmp_path / "queue.db",
            )
            try:
                for name, age in [*done, *dead]:
                    await ledger.write(lambda store, name=name, age=age: end(store, name, age, code=name in dict(dead)))
                await Janitor(ledger, holder, tmp_path, clock=lambda: NOW).clean()
                page = await ledger.read(lambda reader: reader.find(Query()))
                return [job.id for job in page.jobs]
            finally:
                await ledger.close()

        return asyncio.run(run())

    def end(store, name, age, *, code):
        when = NOW - age * DAY
        [job] = store.add([draft(name, due=when, created=when)])
        [claimed] = claim_for(store, [Offer("w1", 1, 1)], now=when, boot_id="b", ripen=True).claimed
        outcome = Outcome(reason=Reason.EXITED, exit_code=int(code), ended_at=when, output_bytes=1)
        finish(store, claimed.attempt.token, outcome, Circumstances(Policy(max_retries=0), when, 0.0, "b"))
        base = tmp_path / base_name(job.seq, 1)
        base.parent.mkdir(exist_ok=True)
        for suffix in SUFFIXES:
            base.with_name(base.name + suffix).write_text("x")

    return clean


def outputs(tmp_path):
    return sorted(path.name for path in tmp_path.glob("0/*.log"))


def test_old_jobs_go_with_their_output_and_young_ones_stay(clean, tmp_path):
    assert clean([("old", 8), ("young", 6)]) == ["young"]
    assert outputs(tmp_path) == ["2.1.log"]
    assert not list(tmp_path.glob("0/1.1*"))


def test_dead_jobs_wait_for_a_person_however_old(clean, tmp_path):
    assert clean([("old", 8)], dead=[("dead", 400)]) == ["dead"]
    assert outputs(tmp_path) == ["2.1.log"]


def test_output_that_is_too_much_all_together_goes_oldest_first_and_the_jobs_stay(clean, tmp_path):
    # Each takes up a block, and its index another one.
    assert clean([("a", 1), ("c", 3), ("b", 2)], retention_output=5 * 4096) == ["a", "c", "b"]
    assert outputs(tmp_path) == ["1.1.log", "3.1.log"]


def test_without_room_for_output_none_is_kept(clean, tmp_path):
    clean([("a", 1)], retention_output=0)

    assert not list(tmp_path.glob("0/*"))


def test_no_more_than_so_many_finished_jobs_are_kept(clean):
    assert clean([("a", 5), ("b", 4), ("c", 3)], retention_count=2) == ["b", "c"]


def test_more_than_a_step_goes_in_one_round(clean):
    assert clean([(f"j{number}", 9) for number in range(1100)]) == []
