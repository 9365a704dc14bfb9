"""What must hold, checked at every event that could break it. Breaking a rule raises `BrokenRuleError`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from queuectld.domain.attempt import NOT_THE_JOBS_FAULT, Attempt, Reason
from queuectld.domain.job import FINAL, WAITING, Job, State
from queuectld.domain.transitions import NEXT, Event
from queuectld.errors import WrongStateError
from queuectld.protocol import worker_messages as wire
from queuectld.service.attempts import Ending
from queuectld.store.base import Entry
from tests.simulation.figures import RULES

if TYPE_CHECKING:
    from tests.simulation.host import Process
    from tests.simulation.world import World

SECRET: Final = "s3cr3t"
_MOVES: Final = frozenset(event.value for event in Event)


class BrokenRuleError(AssertionError):
    """A promise was not kept."""


class Checker:
    """Knows what is durable, from the commits alone, and holds everything else against it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._figures = world.figures
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
        # How many attempts may live, and which do not count, as of the submission of what runs in the store.
        self.bound: tuple[int, frozenset[int]] = (0, frozenset())
        # Attempts lost one after the other, by job.
        self._losses: Counter[int] = Counter()

    def hold(self, rule: int, holds: bool, what: str) -> None:  # noqa: FBT001 - the condition itself
        self._figures.rule(rule)
        if not holds:
            error = BrokenRuleError(f"rule {rule}, {RULES[rule]}: {what}")
            # Told to the world as well: whoever is in between may take it for an error of a request.
            self._world.fail(error)
            raise error

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
        most, lent = self.bound
        live = [one.token for one in store._attempts.values() if one.live and one.token not in lent]
        self.hold(9, len(live) <= most, f"{live} live, where {most} may, beside {set(lent)}")
        self.hold(10, job.due <= self.latest, f"{job.id} starts at {now}, and is due at {job.due}")
        self.hold(10, job.cancel_requested is None, f"{job.id} starts, although its cancel is stored")
        self.hold(6, attempt.token > self._last_token or attempt.token not in self.attempts, "a token comes again")

    def committed(self) -> None:
        """What the store holds is durable now."""
        store = self._world.store
        number = self._last_entry + 1
        moved: dict[int, list[Entry]] = {}
        while (entry := store._entries.get(number)) is not None:
            self._entry(entry)
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
        self._figures.move(was, event)
        self._states[seq] = NEXT[was][event]
        self._judged(entry, was, event)
        if event is Event.COMPLETE:
            self.hold(5, seq not in self._completed, f"{entry.job} completes twice")
            self._completed.add(seq)
        elif event is Event.REVIVE:
            self._completed.discard(seq)
        elif was in FINAL:
            self.hold(5, event in {Event.DISCARD, Event.UNDELETE}, f"{entry.job} leaves {was} by {event}")

    def _judged(self, entry: Entry, was: State, event: Event) -> None:
        """What the end of an attempt means for its job, counted here once more."""
        seq = entry.seq or 0
        if event is Event.REVIVE and was is not State.FAILED:
            self._losses[seq] = 0
        if was is not State.PROCESSING:
            return
        attempt = self._world.store._attempts[entry.token or 0]
        assert attempt.outcome is not None
        self._figures.end(attempt.outcome.reason)
        if event is Event.COMPLETE or attempt.outcome.reason not in NOT_THE_JOBS_FAULT | {Reason.CANCELLED}:
            self._losses[seq] = 0
        elif event is not Event.CANCEL:
            self._given_back(attempt, event)

    def _given_back(self, attempt: Attempt, event: Event) -> None:
        """An attempt ended that says nothing about its job, unless that is dangerous, or must not run twice."""
        outcome, host = attempt.outcome, self._world.host
        assert outcome is not None
        lost, rebooted = outcome.reason is Reason.LOST, attempt.boot_id != host.boot_id
        once = self._world.store._jobs[attempt.job].spec.rerun == "never"
        began = lost or (outcome.reason is Reason.INTERRUPTED and outcome.pid is not None)
        self._losses[attempt.job] += lost and not rebooted
        poison = lost and not rebooted and self._losses[attempt.job] >= self._world.policy.max_lost
        right = Event.BURY if poison or (once and began) else Event.REQUEUE
        what = f"{event} after {outcome.reason} ({self._losses[attempt.job]} in a row, rerun {not once})"
        self.hold(6, event is right, f"{attempt.token}: {what}")
        for so, case in (
            (poison, "poison: lost so often in a row that the job is dead"),
            (once and began and not poison, "`rerun = never`: dead, for it may have begun"),
            (once and not began, "`rerun = never`: given back, for it cannot have begun"),
            (lost and rebooted, "the host goes down under an attempt: that says nothing against the job"),
        ):
            if so:
                self._figures.case(case)

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
            held = filed is not None and filed.reason is not outcome.reason
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
        self._figures.rule(3)

    def slain(self, process: Process) -> None:
        """The daemon kills what it takes for the rest of an attempt whose worker is dead."""
        attempt = self.attempts.get(process.token or 0)
        worker = attempt and self._world.host.find(attempt.worker_pid, attempt.worker_start)
        what = f"{process.pid} {process.role} of {process.token} is killed"
        self.hold(13, attempt is not None and worker is None, f"{what}, whose worker lives")
        self.hold(13, not process.kept, f"{what}, which is to be kept")

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

    def refused(self, state: State, event: Event, error: Exception) -> None:
        """Somebody asked for a move, and was told that it cannot be."""
        if event not in NEXT[state]:
            self._figures.move(state, event, refused=True)
        else:
            self.hold(
                7, not isinstance(error, WrongStateError), f"{event} of a job that is {state} is refused: {error}"
            )

    def late(self, state: State, event: Event, ending: Ending) -> None:
        """A report came of an attempt that ended long ago, of a job that is in this state now."""
        self.hold(
            4, not ending.recorded and ending.job is None, f"a late report counts: {event} of a job that is {state}"
        )
        if event not in NEXT[state]:
            self._figures.move(state, event, refused=True)

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

    def logged(self, event: str, fields: dict[str, object]) -> None:
        """Something is logged."""
        for text in fields.values():
            if isinstance(text, str):
                self.hold(14, SECRET not in text, f"a secret in the log: {text}")
        if event == "Worker does not come back":
            self._given_up(str(fields["worker_id"]))

    def _given_up(self, name: str) -> None:
        """A lost connection is no death: who can come back does, and nobody gives it up."""
        world = self._world
        daemon = world.daemon
        assert daemon is not None
        worker = daemon.supervisor._crew.named(name)
        process = worker and world.host.find(worker.pid, worker.start)
        if process is not None and not process.dying:
            since = world.scheduler.now - world.holder.config.adopt_timeout
            kept = process.still or max(process.woken, daemon.process.woken) > since
            self.hold(5, kept, f"{name} ({process.pid}) is given up, and nothing keeps it from coming back")
