"""What must hold, checked at every event that could break it. Breaking a rule raises `BrokenRuleError`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from queuectld.domain.attempt import Attempt, Reason
from queuectld.domain.job import FINAL, WAITING, Job, State
from queuectld.domain.transitions import NEXT, Event
from queuectld.protocol import worker_messages as wire
from queuectld.store.base import Entry

if TYPE_CHECKING:
    from tests.simulation.world import World

RULES: Final = {
    1: "no job lost",
    2: "no phantom",
    3: "one live attempt",
    4: "fencing",
    5: "one outcome",
    6: "counters only grow",
    7: "legal moves only",
    8: "order",
    9: "limits",
    10: "not before",
    11: "answer after effect",
    12: "output complete",
    13: "nothing left",
    14: "secrets stay",
}
SECRET: Final = "s3cr3t"
_MOVES: Final = frozenset(event.value for event in Event)


class BrokenRuleError(AssertionError):
    """A promise was not kept."""


class Checker:
    """Knows what is durable, from the commits alone, and holds everything else against it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rules: Counter[int] = Counter()
        self.moves: Counter[tuple[State, Event]] = Counter()
        self.jobs: dict[int, Job] = {}
        self.attempts: dict[int, Attempt] = {}
        self._states: dict[int, State] = {}
        self._completed: set[int] = set()
        self._last_entry = 0
        self._last_token = 0
        self._spawned: set[int] = set()
        # What a client was told of, by seq; and the jobs of each request, by its key.
        self.acknowledged: dict[int, str] = {}
        # The latest that the wall clock ever was: what was due then may start, wherever it was set since.
        self.latest = 0.0
        # How many attempts may live, as of the submission of what runs in the store.
        self.allowed = 0

    def hold(self, rule: int, holds: bool, what: str) -> None:  # noqa: FBT001 - the condition itself
        self.rules[rule] += 1
        if not holds:
            raise BrokenRuleError(f"rule {rule}, {RULES[rule]}: {what}")

    # In the store.

    def claimed(self, job: Job, attempt: Attempt) -> None:
        """A claim, in its transaction."""
        store, now = self._world.store, attempt.claimed_at
        before = [
            other.id
            for other in store._jobs.values()
            if other.state in WAITING and other.due <= now and (other.rank, other.seq) < (job.rank, job.seq)
        ]
        self.hold(8, not before, f"{job.id} starts before {before}")
        live = len([one for one in store._attempts.values() if one.live])
        self.hold(9, live <= self.allowed, f"{live} attempts live, {self.allowed} may")
        self.hold(10, job.due <= self.latest, f"{job.id} starts at {now}, and is due at {job.due}")
        self.hold(10, job.cancel_requested is None, f"{job.id} starts, although its cancel is stored")
        self.hold(6, attempt.token > self._last_token or attempt.token not in self.attempts, "a token comes again")

    def committed(self) -> None:
        """What the store holds is durable now."""
        store = self._world.store
        number = self._last_entry + 1
        revived: set[int] = set()
        moved: dict[int, list[Entry]] = {}
        while (entry := store._entries.get(number)) is not None:
            self._entry(entry)
            if entry.event == Event.REVIVE.value and entry.seq is not None:
                revived.add(entry.seq)
            moved.setdefault(entry.seq or 0, []).append(entry)
            self._last_entry = number
            number += 1
        for token in sorted(store.touched_attempts):
            # A claim that did not fit on the disk leaves none.
            if token in store._attempts:
                self._attempt(store._attempts[token])
        for seq in sorted(store.touched_jobs):
            if seq in store._jobs:
                self._job(store._jobs[seq], moved.get(seq, []))
        store.touched_attempts.clear()
        store.touched_jobs.clear()

    def _entry(self, entry: Entry) -> None:
        seq = entry.seq or 0
        self.hold(14, SECRET.encode() not in msgspec.json.encode(entry), f"a secret in {entry}")
        if entry.event == "job.enqueued":
            self.hold(2, seq not in self._states, f"{entry.job} was enqueued twice")
            self._states[seq] = State.PENDING
            return
        if entry.event not in _MOVES:
            self.hold(7, entry.state == self._states[seq], f"{entry.event} of {entry.job} tells of {entry.state}")
            return
        event, was = Event(entry.event), self._states[seq]
        self.hold(7, entry.was == was, f"{entry.job} was {was}, its event says {entry.was}")
        self.hold(7, NEXT[was].get(event) == entry.state, f"{entry.job}: {was} to {entry.state} by {event}")
        self.moves[was, event] += 1
        self._states[seq] = NEXT[was][event]
        if event is Event.COMPLETE:
            self.hold(5, seq not in self._completed, f"{entry.job} completes twice")
            self._completed.add(seq)
        elif event is Event.REVIVE:
            self._completed.discard(seq)
        elif was in FINAL:
            self.hold(5, event in {Event.DISCARD, Event.UNDELETE}, f"{entry.job} leaves {was} by {event}")

    def _job(self, job: Job, moved: list[Entry]) -> None:
        was = self.jobs.get(job.seq)
        self.jobs[job.seq] = job
        events = [entry.event for entry in moved]
        self.hold(7, self._states.get(job.seq) == job.state, f"{job.id} is {job.state}, and nothing tells of it")
        asked = self._world.asked.get(job.spec.command or "")
        self.hold(2, asked is not None, f"nobody asked for {job.id}")
        if was is None:
            twins = [one.id for one in self.jobs.values() if one.spec.command == job.spec.command]
            self.hold(2, len(twins) == 1, f"asked for once, and stored as {twins}")
            return
        self._counters(job, was, events)
        if was.cancel_requested is not None and events:
            well = job.state in {State.CANCELLED, State.COMPLETED} or Event.REVIVE.value in events
            well = well or set(events) <= {"job.cancel_requested"}
            self.hold(10, well, f"{job.id} is {job.state} by {events}, although its cancel was stored")

    def _counters(self, job: Job, was: Job, events: list[str]) -> None:
        started = events.count(Event.CLAIM.value)
        self.hold(6, job.attempts == was.attempts + started, f"{job.id}: {was.attempts} attempts, then {job.attempts}")
        failed = events.count(Event.RETRY.value)
        if Event.REVIVE.value not in events:
            right = job.retries_spent == was.retries_spent + failed
            self.hold(6, right, f"{job.id}: {was.retries_spent} retries spent, {job.retries_spent} after {events}")

    def _attempt(self, attempt: Attempt) -> None:
        was = self.attempts.get(attempt.token)
        if was is None:
            self.hold(6, attempt.token > self._last_token, f"token {attempt.token} after {self._last_token}")
            self._last_token = max(self._last_token, attempt.token)
            others = [one.token for one in self.attempts.values() if one.job == attempt.job and one.live]
            store = self._world.store
            others = [token for token in others if store._attempts[token].live]
            self.hold(3, not others, f"{attempt.token} begins, {others} of the same job are not over")
        elif not was.live:
            self.hold(4, was.outcome == attempt.outcome, f"the outcome of {attempt.token} changes")
        self.attempts[attempt.token] = attempt
        if attempt.outcome is not None and (was is None or was.live):
            self._ended(attempt)

    def _ended(self, attempt: Attempt) -> None:
        world, outcome = self._world, attempt.outcome
        assert outcome is not None
        alive = [one for one in world.host.of_attempt(attempt.token) if not (one.kept or one.escaped)]
        names = [f"{one.pid} {one.role}" for one in alive]
        self.hold(13, not names, f"{attempt.token} is over ({outcome.reason}), and {names} live")
        if outcome.pid is not None and not outcome.output_unknown:
            written = world.disk.output.get(attempt.token, 0)
            self.hold(12, outcome.output_bytes == written, f"{outcome.output_bytes} bytes told, {written} written")
        if outcome.reason is Reason.LOST and attempt.boot_id == world.host.boot_id:
            worker = world.host.find(attempt.worker_pid, attempt.worker_start)
            self.hold(5, worker is None, f"{attempt.token} counts as lost, and its worker lives")
        if outcome.output_unknown:
            filed = world.disk.outcomes.get(attempt.token)
            held = filed is not None and filed.reason is not outcome.reason and world.filed_before_look(attempt.token)
            self.hold(1, not held, f"{attempt.token} counts as {outcome.reason}, and its outcome lies on the disk")

    # Outside of it.

    def spawned(self, token: int) -> None:
        """A worker is about to start a command."""
        attempt = self.attempts.get(token)
        self.hold(11, attempt is not None, f"{token} runs, and its claim is not durable")
        assert attempt is not None
        self.hold(3, token not in self._spawned, f"{token} runs a second time")
        self._spawned.add(token)
        self.hold(4, attempt.live, f"{token} runs, and is over: {attempt.outcome}")
        world = self._world
        for process in world.host.processes.values():
            if process.token is not None and process.token != token and not (process.kept or process.escaped):
                other = self.attempts[process.token]
                same = other.job == attempt.job
                what = f"{process.role} of {process.token} lives while {token} of the same job starts"
                self.hold(3, not same, what)
        self.rules[3] += 1

    def said(self, message: wire.ToWorker) -> None:
        """The daemon tells a worker something."""
        match message:
            case wire.Run(token=token):
                self.hold(11, token in self.attempts, f"`run` of {token} before its claim is durable")
            case wire.Recorded(token=token, run=run):
                attempt = self.attempts.get(token)
                over = attempt is not None and not attempt.live
                self.hold(11, over, f"`recorded` of {token} before that is durable")
                if run is not None:
                    self.said(run)
            case wire.Stale(token=token):
                attempt = self.attempts.get(token)
                stale = attempt is None or not attempt.live
                self.hold(4, stale, f"`stale` of {token}, which is live")

    def late_answer(self, ending: Any) -> None:
        """The answer to a report that came too late."""
        if not isinstance(ending, BaseException):
            self.hold(4, not ending.recorded and ending.job is None, "a late report counts")

    def unfiled(self, token: int) -> None:
        """The daemon removes the file of an outcome."""
        attempt = self.attempts.get(token)
        self.hold(11, attempt is not None and not attempt.live, f"the file of {token} goes before it is recorded")

    def answered(self, seq: int, job_id: str) -> None:
        """A client is told that its job was taken."""
        self.hold(11, seq in self.jobs, f"{job_id} is acknowledged and not durable")
        self.acknowledged[seq] = job_id

    def nothing_lost(self) -> None:
        """Everything that was acknowledged is there, in one state; called when a daemon begins, and at the end."""
        for seq, job_id in self.acknowledged.items():
            job = self._world.store._jobs.get(seq)
            self.hold(1, job is not None and job.id == job_id, f"{job_id} was acknowledged, and is not there")
        for seq, job in self.jobs.items():
            stored = self._world.store._jobs.get(seq)
            self.hold(1, stored == job, f"{job.id} is not what was committed: {stored}, {job}")
        if not self.acknowledged:
            return
        twins = Counter(job.spec.command for job in self._world.store._jobs.values())
        self.hold(2, all(count == 1 for count in twins.values()), f"{twins}")

    def logged(self, text: object) -> None:
        """Something is logged."""
        if isinstance(text, str):
            self.hold(14, SECRET not in text, f"a secret in the log: {text}")
