"""The same random life on both stores: whatever can be seen must be the same after every step."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from queuectld.domain import transitions
from queuectld.domain.attempt import Reason
from queuectld.domain.ids import job_id
from queuectld.domain.job import WAITING, State
from queuectld.domain.policy import Policy
from queuectld.errors import QueueCTLError
from queuectld.store.base import Query, Retention
from queuectld.store.memory import MemoryStore
from queuectld.store.sqlite import open_store
from tests.store.driving import NOW, Driver, draft

QUEUES = st.sampled_from(["default", "gpu", "undeclared"])
NAMES = st.sampled_from(["", "", "", "a", "b", "build-1", "build-10", job_id(3), job_id(5)])
BLOBS = st.sampled_from([None, b"x", b"y"])
REASONS = st.sampled_from([Reason.EXITED, Reason.LOST, Reason.INTERRUPTED, Reason.TIMEOUT, Reason.CANCELLED])


class BoomError(Exception):
    pass


class Both(RuleBasedStateMachine):
    @initialize()
    def open(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "queue.db"
        self.now = NOW
        self.drivers = [Driver(MemoryStore()), Driver(open_store(self.path))]
        self.both(lambda drive: drive.store.declare_queue("gpu"), bare=True)

    def both(self, act, *, bare=False):
        answers = []
        for drive in self.drivers:
            try:
                if bare:
                    with drive.store.transaction():
                        answers.append(act(drive))
                else:
                    answers.append(act(drive))
            except QueueCTLError as error:
                answers.append((type(error), str(error)))
        memory, sqlite = (repr(answer) if isinstance(answer, list) else answer for answer in answers)
        assert memory == sqlite
        return answers[0]

    def jobs(self, *states):
        return list(self.drivers[0].store.find(Query(states=states or tuple(State)), limit=1000).jobs)

    def pick(self, data, *states):
        return data.draw(st.sampled_from(self.jobs(*states)))

    @rule(
        wanted=st.lists(st.tuples(NAMES, QUEUES, st.integers(-1, 1), st.integers(-5, 60), BLOBS), max_size=4),
        seconds=st.integers(0, 5),
    )
    def add(self, wanted, seconds):
        self.now += seconds

        def act(drive):
            drafts = [
                draft(
                    name,
                    queue=queue,
                    priority=priority,
                    due=self.now + delay,
                    created=self.now,
                    environment=None if blob is None else drive.store.intern(blob),
                )
                for name, queue, priority, delay, blob in wanted
            ]
            return list(drive.store.add(drafts))

        self.both(act, bare=True)

    @rule(queue=QUEUES, seconds=st.integers(0, 30))
    def claim(self, queue, seconds):
        self.now += seconds
        heads = self.both(lambda drive: drive.heads(queue, limit=2, now=self.now))
        if heads:
            self.both(lambda drive: drive.claim(heads[0], self.now))

    @precondition(lambda self: self.jobs(State.PROCESSING))
    @rule(data=st.data(), reason=REASONS, code=st.integers(0, 1), retries=st.integers(0, 1))
    def settle(self, data, reason, code, retries):
        job = self.pick(data, State.PROCESSING)
        policy = Policy(max_retries=retries, max_lost=2)
        self.both(lambda drive: drive.settle(job, reason=reason, code=code, now=self.now, policy=policy))

    @precondition(lambda self: self.jobs())
    @rule(data=st.data(), move=st.sampled_from(["cancel", "revive", "discard", "undelete", "request_cancel", "seen"]))
    def person(self, data, move):
        job = self.pick(data)

        def act(drive):
            match move:
                case "cancel":
                    return drive.step(transitions.cancel, job, self.now, why="x")
                case "revive":
                    return drive.step(transitions.revive, job, self.now, policy=Policy())
                case "discard":
                    return drive.step(transitions.discard, job, self.now)
                case "undelete":
                    return drive.step(transitions.undelete, job, self.now)
                case "request_cancel":
                    return drive.save(transitions.request_cancel(job, why="x", now=self.now), job)
            return drive.save(replace(job, seen=True), job)

        self.both(act)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data())
    def stale_save(self, data):
        job = self.pick(data)
        answer = self.both(lambda drive: drive.save(job, replace(job, version=job.version + 1)))
        assert answer[0].code == "stale"

    @precondition(lambda self: self.jobs(*WAITING))
    @rule(data=st.data(), whole=st.booleans())
    def failed_item(self, data, whole):
        job = self.pick(data, *WAITING)

        def act(drive):
            with drive.store.transaction():
                try:
                    with drive.store.item():
                        digest = drive.store.intern(b"z")
                        drive.store.add([draft("undone", created=self.now, environment=digest), draft(job.id)])
                        drive.store.save(transitions.cancel(job, why="", now=self.now).job, was=job)
                        drive.store.ripen(self.now + 1000, limit=10)
                        drive.store.next_token()
                        raise BoomError  # noqa: TRY301 - the error is the point
                except BoomError:
                    if whole:
                        raise
                return list(drive.store.add([draft("", created=self.now)]))

        def caught(drive):
            try:
                return act(drive)
            except BoomError:
                return None

        self.both(caught)

    @rule(seconds=st.integers(0, 60), limit=st.integers(1, 3))
    def ripen(self, seconds, limit):
        self.now += seconds
        self.both(lambda drive: drive.store.ripen(self.now, limit=limit), bare=True)

    @rule(seconds=st.sampled_from([0, 5, 100]), count=st.integers(0, 3), limit=st.integers(1, 5))
    def expire(self, seconds, count, limit):
        self.now += seconds
        retention = Retention(finished=30, finished_count=count, deleted=20, events=60, requests=10)
        self.both(lambda drive: drive.expire(retention, now=self.now, limit=limit))

    @rule(surplus=st.sampled_from([0, 1, 10_000, 10**9]), limit=st.integers(1, 3))
    def shed(self, surplus, limit):
        self.both(lambda drive: drive.store.shed_output(surplus, limit=limit), bare=True)

    @rule(size=st.sampled_from([0, 1, 5000]), limit=st.integers(1, 3))
    def measure(self, size, limit):
        def measured(drive):
            places = list(drive.store.unmeasured_output(limit=limit))
            for place in places:
                drive.store.note_output(place.token, size)
            return places

        self.both(measured, bare=True)

    @rule(limit=st.integers(1, 3))
    def clear(self, limit):
        self.both(lambda drive: drive.store.forget_output(drive.store.removed_output(limit=limit)), bare=True)

    @rule(key=st.sampled_from("kl"))
    def remember(self, key):
        self.both(lambda drive: drive.store.remember(key, b"v", now=self.now), bare=True)

    @rule()
    def reopen(self):
        self.drivers[1].store.close()
        self.drivers[1] = Driver(open_store(self.path))

    @invariant()
    def look_the_same(self):
        if not hasattr(self, "drivers"):
            return
        memory, sqlite = (self.seen(drive.store) for drive in self.drivers)
        assert memory == sqlite

    def seen(self, store):
        jobs = self.jobs()
        blobs = {digest: store.blob(digest) for job in jobs if (digest := job.environment)}
        return {
            "jobs": store.find(Query(states=tuple(State)), limit=1000),
            "visible": store.find(Query(), limit=1000, reverse=True),
            "counts": store.counts(),
            "queues": list(store.queues()),
            "due": store.next_due(),
            "oldest": store.first_due(),
            "unseen": store.unseen_dead(),
            "live": list(store.live_attempts()),
            "history": [list(store.attempts_of(job.seq)) for job in jobs],
            "entries": store.entries(start=0, limit=10_000),
            "of one": [store.entries(start=0, limit=100, seq=job.seq) for job in jobs[:3]],
            "last": store.last_entry(),
            "output": store.kept_output(),
            "unmeasured": list(store.unmeasured_output(limit=100)),
            "removed": list(store.removed_output(limit=100)),
            "blobs": blobs,
            "answers": [store.recall(key) for key in "kl"],
            "got": [store.get(job.id) for job in jobs],
            "resolved": [
                self.resolved(store, name) for name in ("@last", "a", "build", "build-1", job_id(3), job_id(1)[:5])
            ],
        }

    def resolved(self, store, name):
        try:
            return store.resolve(name)
        except QueueCTLError as error:
            return type(error), str(error)

    def teardown(self):
        if hasattr(self, "drivers"):
            for drive in self.drivers:
                drive.store.close()
            self.directory.cleanup()


Both.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_both_stores_live_the_same_life = Both.TestCase
