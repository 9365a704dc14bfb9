"""Drafts of jobs, and a driver that leads them through their life as the daemon does."""

from __future__ import annotations

from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.attempt import Attempt, Outcome, Reason
from queuectld.domain.job import Job
from queuectld.domain.policy import Policy, rank
from queuectld.domain.spec import JobSpec
from queuectld.store.base import Entry, Store

NOW = 1_800_000_000.0


def draft(id="", *, command="true", queue="default", priority=0, due=NOW, created=NOW, owner="ann", **more) -> Job:  # noqa: A002 - the field's name
    spec = more.pop("spec", None) or JobSpec(
        command=command, queue=queue, priority=priority, tags=more.pop("tags", {}), **more.pop("asked", {})
    )
    return Job(
        seq=0,
        id=id,
        spec=spec,
        owner=owner,
        created_at=created,
        updated_at=created,
        due=due,
        rank=rank(due, priority, 3600.0),
        **more,
    )


class Driver:
    """Leads jobs through their life as the daemon does, one transaction a step."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, *drafts, by=None):
        with self.store.transaction(), self.store.item():
            return list(self.store.add(drafts, by=by))

    def heads(self, queue="default", *, limit=100, now=NOW):
        with self.store.transaction():
            return list(self.store.heads(queue, limit=limit, now=now))

    def save(self, job, was, event="job.edited", now=NOW):
        entry = Entry(at=now, event=event, seq=was.seq, job=was.id, was=was.state, state=job.state)
        with self.store.transaction(), self.store.item():
            return self.store.save(job, was=was, entry=entry)

    def claim(self, job, now=NOW):
        with self.store.transaction(), self.store.item():
            token = self.store.next_token()
            step = transitions.claim(job, token=token, now=now)
            self.store.open_attempt(attempt(token, job.seq, step.job.attempts, now))
            return self.store.save(step.job, was=job, entry=Entry(at=now, event=step.event, seq=job.seq, token=token))

    def settle(self, job, *, reason=Reason.EXITED, code=0, now=NOW, policy=None):
        ended = Outcome(reason=reason, ended_at=now, exit_code=code if reason is Reason.EXITED else None)
        with self.store.transaction(), self.store.item():
            self.store.save_attempt(replace(self.store.attempt(job.token), outcome=ended))
            step = transitions.settle(job, ended, policy=policy or Policy(), now=now, luck=0.0)
            return self.store.save(step.job, was=job, entry=Entry(at=now, event=step.event, seq=job.seq))

    def finish(self, job, now=NOW, **how):
        return self.settle(self.claim(job, now), now=now, **how)

    def bury(self, job, now=NOW):
        return self.finish(job, now, code=1, policy=Policy(max_retries=0))

    def step(self, move, job, now=NOW, **how):
        step = move(job, now=now, **how)
        return self.save(step.job, job, step.event, now)

    def expire(self, retention, *, now, limit=100):
        with self.store.transaction():
            return self.store.expire(retention, now=now, limit=limit)


def attempt(token, seq, number=1, now=NOW) -> Attempt:
    return Attempt(
        token=token,
        job=seq,
        number=number,
        worker="w1",
        worker_pid=10,
        worker_start=20,
        boot_id="boot",
        queued_at=now,
        claimed_at=now,
    )
