"""The rules of the service over both stores, in one random history: each answer, and all that is seen, is the same.

What is on disk is held to the rules of `queuectld db check` whenever it is closed.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from queuectld.domain.attempt import Outcome, Reason
from queuectld.domain.job import State
from queuectld.domain.policy import Policy
from queuectld.errors import QueueCTLError
from queuectld.keys import Config
from queuectld.protocol.messages import (
    Cancel,
    CountJobs,
    Discard,
    Enqueue,
    ListJobs,
    Retry,
    Selector,
    Stage,
    Submission,
    Undelete,
)
from queuectld.service import attempts, change, jobs
from queuectld.service.attempts import Circumstances, Offer
from queuectld.service.change import Act
from queuectld.service.owner import Submitter
from queuectld.service.sight import EVERYTHING
from queuectld.service.staging import Staging
from queuectld.service.submit import Ahead, Order, Part, Terms, Undone, enqueue
from queuectld.service.views import Lens
from queuectld.store.base import Query, Retention
from queuectld.store.memory import MemoryStore
from queuectld.store.sqlite import open_store
from queuectld.upkeep.rules import examine
from tests.store.driving import NOW

IDS = st.sampled_from(["a", "b", "c", "build-1", "build-10"])
OWNERS = st.sampled_from(["ann", "bob"])
_FINE = {
    "id": IDS,
    "delay": st.sampled_from([0, 0, 5, 60]),
    "priority": st.integers(-1, 1),
    "queue": st.sampled_from(["default", "gpu"]),
    "max_retries": st.integers(0, 2),
    "tags": st.dictionaries(st.sampled_from(["team", "k"]), st.sampled_from(["x", "y"]), max_size=2),
    "rerun": st.sampled_from(["always", "never"]),
    "no_retry_on": st.sampled_from([[3], ["timeout"]]),
    "stdin": st.just("text"),
}
_ODD = {
    "queue": st.just("nowhere"),
    "stdin": st.sampled_from([{"staged": "in"}, {"staged": "nothing"}]),
    "frob": st.none(),
    "delay": st.just(-1),
}
_COMMAND = {"command": st.sampled_from(["true", "make all", "exit 3"])}
FINE = st.fixed_dictionaries(_COMMAND, optional=_FINE)
JOBS = FINE | FINE | FINE | st.fixed_dictionaries({"command": st.sampled_from(["true", ""])}, optional=_ODD)
STATES = st.sampled_from(["pending", "processing", "completed", "failed", "dead", "cancelled"])
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.lists(st.sampled_from(["default", "gpu", "nowhere"]), min_size=1, max_size=2).map(tuple),
        "state": st.lists(STATES, min_size=1, max_size=3, unique=True).map(tuple),
        "tags": st.sampled_from([("team=x",), ("team=x", "k=y"), ("broken",)]),
        "owner": OWNERS,
        "since": st.integers(-5, 40).map(lambda seconds: NOW + seconds),
        "until": st.integers(0, 60).map(lambda seconds: NOW + seconds),
        "ended_since": st.integers(0, 60).map(lambda seconds: NOW + seconds),
        "command": st.sampled_from(["*", "t?ue", "make*", "[", "*[3]"]),
        "exit_code": st.sampled_from([0, 1, 3, 999]),
        "seen": st.booleans(),
    },
)
SELECTS = st.builds(
    lambda ids, filters: Selector(ids=tuple(ids), **filters),
    st.lists(IDS | st.sampled_from(["buil", "@last", "nope"]), max_size=3),
    FILTERS | st.just({}),
)
REASONS = st.just(Reason.EXITED) | st.sampled_from(list(Reason))
CONFIG = Config(queues="declared")


class Rules(RuleBasedStateMachine):
    @initialize(open_queues=st.booleans())
    def open(self, open_queues):
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "queue.db"
        self.stores = [MemoryStore(), open_store(self.path)]
        self.aheads = [Ahead(), Ahead()]
        self.staging = Staging()
        self.now = NOW
        self.config = replace(CONFIG, queues="open" if open_queues else "declared")
        self.tokens = [0, 99]
        self.resent = []
        self.both(lambda store: store.declare_queue("gpu"))
        raws = tuple(msgspec.Raw(b'{"command":"true","max_retries":1}') for _ in range(3))
        request = Enqueue(id=1, jobs=raws)
        self._hand_in(request, raws, {}, "ann", part=3, until=3)

    def both(self, work):
        """Do it in a transaction, as the store thread does; return what both answered."""
        memory, sqlite = [self._answer(store, work) for store in self.stores]
        assert memory == sqlite
        return memory

    def _answer(self, store, work):
        with store.transaction():
            try:
                with store.item():
                    answer = work(store)
            except Undone as undone:
                answer = undone.reply
            except QueueCTLError as error:
                answer = (type(error), error.message, error.path)
        return answer, list(store.take_entries())

    def terms(self, store, owner):
        ahead = self.aheads[self.stores.index(store)]
        return Terms(Submitter(owner), self.config, Policy(), 2, ahead, self.now)

    # New jobs.

    @rule(
        wanted=st.lists(JOBS, max_size=5),
        part=st.integers(1, 4),
        until=st.integers(1, 9),
        owner=OWNERS,
        seconds=st.integers(0, 5),
        key=st.sampled_from([None, None, "k", "l"]),
        atomic=st.booleans(),
        dry_run=st.sampled_from([False, False, True]),
        env=st.sampled_from([None, {"A": "1"}, {"A": "2"}]),
    )
    def submit(self, wanted, part, until, owner, seconds, key, atomic, dry_run, env):
        self.now += seconds
        raws = tuple(msgspec.Raw(json.dumps(job).encode()) for job in wanted)
        request = Enqueue(
            id=1, jobs=raws, request=key, atomic=atomic, dry_run=dry_run, submission=Submission(env=env, cwd="/tmp")
        )
        inputs = self.staging.inputs()
        self.resent.append((request, raws, inputs, owner))
        self._hand_in(request, raws, inputs, owner, part=part, until=until)

    def _hand_in(self, request, raws, inputs, owner, *, part, until):
        """Store it part by part until a crash, whatever size parts have in the version that is installed then."""
        start = 0
        while start < min(len(raws), until):
            stop = len(raws) if request.atomic or request.dry_run else min(start + part, len(raws))
            answer, _ = self.both(
                lambda store, start=start, stop=stop: self._store_part(
                    store, Order(request, raws, inputs, self.terms(store, owner)), Part(start, stop, 1)
                )
            )
            # Refused as a whole, or nothing of it may stay.
            if not isinstance(answer, tuple) or not isinstance(answer[1], int):
                return
            reply, start = answer
            assert all(refused.index < start for refused in reply.refused)

    @staticmethod
    def _store_part(store, order, part):
        known = {job.seq for job in store.find(Query(), limit=1000).jobs}
        reply, stop = enqueue(store, order, part)
        new = [job.id for job in store.find(Query(), limit=1000).jobs if job.seq not in known]
        assert new == [added.id for added in reply.jobs if added.created]
        assert len(reply.jobs) + len(reply.refused) == stop - part.start
        return reply, stop

    @rule(data=st.data(), part=st.integers(1, 4))
    def send_again(self, data, part):
        if self.resent:
            request, raws, inputs, owner = data.draw(st.sampled_from(self.resent))
            self._hand_in(request, raws, inputs, owner, part=part, until=len(raws))
            if request.request is not None:
                self.complete(request, raws, inputs, owner)

    def complete(self, request, raws, inputs, owner):
        """Once more changes nothing, however it is cut."""
        before = [job.seq for job in self.stores[0].find(Query(), limit=1000).jobs]
        if not request.dry_run:
            self._hand_in(request, raws, inputs, owner, part=2, until=len(raws))
        assert [job.seq for job in self.stores[0].find(Query(), limit=1000).jobs] == before

    @rule(piece=st.sampled_from(["x", "yy"]))
    def stage(self, piece):
        self.staging.put(Stage(id=1, key="in", data=piece))

    @rule()
    def forget_staged(self):
        self.staging.clear()

    # Attempts.

    @rule(workers=st.integers(1, 3), seconds=st.integers(0, 30), ripen=st.booleans())
    def claim(self, workers, seconds, ripen):
        self.now += seconds
        offers = [Offer(f"w{number}", number, 1) for number in range(workers)]
        answer, _ = self.both(
            lambda store: attempts.claim_for(store, offers, now=self.now, boot_id="boot", ripen=ripen)
        )
        self.tokens += [claimed.attempt.token for claimed in answer.claimed]

    @rule(data=st.data(), pid=st.integers(1, 9))
    def note_start(self, data, pid):
        token = data.draw(st.sampled_from(self.tokens))
        self.both(lambda store: attempts.note_start(store, token, pid=pid, pid_start=1, now=self.now))

    @rule(
        data=st.data(), reason=REASONS, code=st.sampled_from([0, 0, 1, 3]), offers=st.booleans(), reboot=st.booleans()
    )
    def finish(self, data, reason, code, offers, reboot):
        live = [attempt.token for attempt in self.stores[0].live_attempts()]
        token = data.draw(st.sampled_from(live if live and data.draw(st.integers(0, 3)) else self.tokens))
        ended = Outcome(
            reason=reason,
            ended_at=self.now,
            exit_code=code if reason is Reason.EXITED else None,
            output_bytes=code * 1000,
            output_unknown=reason is Reason.LOST,
        )
        given = Circumstances(Policy(max_lost=2), self.now, 0.5, "boot")
        offer = Offer("w1", 1, 1) if offers else None
        again = data.draw(st.booleans())
        for _ in range(1 + again):
            answer, _ = self.both(lambda store: attempts.finish(store, token, ended, given, offer=offer, reboot=reboot))
            if answer.claimed:
                self.tokens.append(answer.claimed.attempt.token)

    # What people do.

    @rule(
        form=st.sampled_from([Cancel, Retry, Discard, Undelete]),
        select=SELECTS,
        dry_run=st.booleans(),
        seconds=st.integers(0, 5),
        limit=st.sampled_from([None, 1]),
    )
    def change_many(self, form, select, dry_run, seconds, limit):
        self.now += seconds
        more = {"limit": limit} if form is Retry else {}
        request = form(id=1, select=select, dry_run=dry_run, **more)
        so_far, _ = self.both(lambda store: change.begin(store, request, EVERYTHING))
        act = Act("ann", Policy(), self.now, lambda: 0.5, EVERYTHING)
        while isinstance(so_far, change.Progress) and not so_far.done:
            before = so_far
            so_far, _ = self.both(lambda store, before=before: change.step(store, request, before, act))

    @rule(data=st.data())
    def mark_seen(self, data):
        found = self.stores[0].find(Query(), limit=100).jobs
        if found:
            job = data.draw(st.sampled_from(found))
            self.both(lambda store: change.mark_seen(store, job.seq, by="ann", now=self.now))

    # What a batch suffers.

    @rule(wanted=st.lists(JOBS, min_size=1, max_size=2), whole=st.booleans())
    def fail_in_the_middle(self, wanted, whole):
        """An item of a batch fails behind all that it did; or the batch does, with good items in it."""
        raws = tuple(msgspec.Raw(json.dumps(job).encode()) for job in wanted)
        for store in self.stores:
            try:
                with store.transaction():
                    try:
                        with store.item():
                            self._spoil(store, raws)
                    except ZeroDivisionError:
                        if whole:
                            raise
            except ZeroDivisionError:
                assert whole
            store.take_entries()

    def _spoil(self, store, raws):
        try:
            order = Order(Enqueue(id=1, jobs=raws, request="k"), raws, {}, self.terms(store, "ann"))
            enqueue(store, order, order.part(0))
        except QueueCTLError:
            store.next_token()
        attempts.claim_for(store, [Offer("w1", 1, 1)], now=self.now, boot_id="boot", ripen=True)
        raise ZeroDivisionError

    @rule(
        seconds=st.sampled_from([0, 5, 100]),
        count=st.integers(0, 3),
        limit=st.integers(1, 5),
        surplus=st.sampled_from([0, 1, 10_000]),
    )
    def sweep(self, seconds, count, limit, surplus):
        self.now += seconds
        kept = Retention(finished=30, finished_count=count, deleted=20, events=60, requests=50)
        self.both(lambda store: store.expire(kept, now=self.now, limit=limit))
        self.both(lambda store: store.shed_output(surplus, limit=limit))
        self.both(lambda store: store.forget_output(store.removed_output(limit=limit)))

    @rule(truncate=st.booleans())
    def checkpoint(self, truncate):
        for store in self.stores:
            store.checkpoint(truncate=truncate)

    @rule()
    def reopen(self):
        self.stores[1].close()
        assert examine(self.path) == []
        self.stores[1] = open_store(self.path)

    # What is seen.

    @rule(select=SELECTS, limit=st.integers(1, 3), reverse=st.booleans())
    def look_through(self, select, limit, reverse):
        """All pages, and a count, agree with each other."""
        lens = Lens(Policy(), 2, self.now, EVERYTHING)
        seen, after = [], None
        while True:
            request = ListJobs(id=1, select=select, after=after, limit=limit, reverse=reverse)
            page, _ = self.both(lambda store, request=request: jobs.listing(store, request, lens))
            if isinstance(page, tuple):
                return
            seen += page.jobs
            if (after := page.next) is None:
                break
        assert len({job.id for job in seen}) == len(seen)
        counting, _ = self.both(lambda store: jobs.begin_count(store, CountJobs(id=1, select=select), EVERYTHING))
        while counting.query is not None:
            before = counting
            counting, _ = self.both(lambda store, before=before: jobs.count_on(store, before))
        assert counting.reply().total == len(seen)

    @rule(start=st.integers(0, 50), limit=st.integers(1, 5))
    def read_events(self, start, limit):
        self.both(lambda store: store.entries(start=start, limit=limit))

    @invariant()
    def look_the_same(self):
        if not hasattr(self, "stores"):
            return
        memory, sqlite = [_seen(store) for store in self.stores]
        assert memory == sqlite

    def teardown(self):
        if hasattr(self, "stores"):
            for store in self.stores:
                store.close()
            assert examine(self.path) == []
            self.directory.cleanup()


def _seen(store):
    found = store.find(Query(states=tuple(State)), limit=1000).jobs
    return {
        "jobs": found,
        "counts": {queue: dict(states) for queue, states in store.counts().items()},
        "queues": list(store.queues()),
        "due": store.next_due(),
        "oldest": store.first_due(),
        "unseen": store.unseen_dead(),
        "live": list(store.live_attempts()),
        "attempts": [list(store.attempts_of(job.seq)) for job in found],
        "last": store.last_entry(),
        "output": store.kept_output(),
        "unmeasured": list(store.unmeasured_output(limit=100)),
        "removed": list(store.removed_output(limit=100)),
        "blobs": {digest: store.blob(digest) for job in found for digest in (job.environment, job.stdin) if digest},
        "answers": [store.recall(f"{owner}/{key}") for owner in ("ann", "bob") for key in "kl"],
    }


Rules.TestCase.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_rules_of_the_service_are_the_same_over_both_stores = Rules.TestCase
