"""What must hold afterwards, whatever was done: seen through the protocol, the witness, the kernel and the file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from queuectld.worker import cgroups
from tests.faults.load import Ledger, Told, kinds
from tests.faults.suite import Tally
from tests.system import processes
from tests.system.conftest import SURPRISES
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import Wire
from tests.system.witness import Line, Witness

OVER: Final = frozenset({"completed", "dead", "cancelled"})
# How many of the jobs have their output read again.
_SAMPLE: Final = 100


class Judge:
    """Looks at one state directory; `ledger` is what clients know of it, `witness` what the jobs themselves said."""

    def __init__(self, daemon: LiveDaemon, witness: Witness, ledger: Ledger, tally: Tally) -> None:
        self._daemon, self._witness, self._ledger, self._tally = daemon, witness, ledger, tally

    def look(self, where: str = "", *, outputs: bool = True, undisturbed: bool = False) -> None:
        """With a daemon that runs: wait until all jobs are over, and hold everything to the promises.

        `outputs` says whether what commands wrote must be there, which no disk owes after a power cut; `undisturbed`,
        that nobody laid hands on a worker, so that what began once came to its end.
        """
        seen = len(self._tally.wrong)
        with self._daemon.wire() as wire:
            self._all_over(wire)
            jobs = {job["id"]: job for job in _listed(wire)}
            histories = {name: wire.history(name) for name in jobs}
            events = list(wire.stream("events", start=1))
            self._jobs(jobs)
            self._told(jobs, events)
            self._attempts(jobs, histories)
            if undisturbed:
                self._undisturbed(histories)
            self._replay(jobs, events)
            self._counts(wire, jobs)
            if outputs:
                self._outputs(wire, jobs)
        self._processes()
        self._tally.wrong[seen:] = [one._replace(what=f"{where}: {one.what}") for one in self._tally.wrong[seen:]]

    def _all_over(self, wire: Wire) -> None:
        try:
            wait_for(lambda: wire.counts().keys() <= OVER, "all jobs come to their end", deadline=120)
        except AssertionError:
            stuck = [f"{name} is {wire.state(name)}" for name in wire.ids("pending", "processing", "failed")[:10]]
            self._tally.check("every job comes to its end", lost=stuck)
        else:
            self._tally.check("every job comes to its end")

    def _jobs(self, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        check, ledger = self._tally.check, self._ledger
        check("acknowledged jobs are stored", lost=sorted(ledger.acknowledged.keys() - jobs.keys()))
        check("stored jobs were asked for", doubled=sorted(jobs.keys() - ledger.sent.keys()))
        due = kinds(self._daemon.home)
        check(
            "jobs end as they should",
            other=[
                f"{name} is {job['state']}, reason {job['reason']}"
                for name, job in jobs.items()
                if name in ledger.sent
                and job["state"] != due[ledger.sent[name]].state
                and not (name in ledger.doomed and job["state"] == "cancelled")
            ],
        )

    def _told(self, jobs: Mapping[str, Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> None:
        """Nothing that anybody was told has become untrue."""
        check, ledger = self._tally.check, self._ledger
        now = {name: Told(job["state"], job["exit_code"], job["attempts"]) for name, job in jobs.items()}
        told = [(name, was) for name, was in ledger.waited.items() if now.get(name) != was]
        check("results that were told stand", lost=[f"{name} was {was}, is {now.get(name)}" for name, was in told])
        kept = [name for name in sorted(ledger.cancelled) if name in now and now[name].state != "cancelled"]
        check("what was cancelled stays so", lost=kept)
        numbers = [event["number"] for event in events]
        check("events have no holes", lost=[] if numbers == list(range(1, len(numbers) + 1)) else [str(numbers[:20])])
        stored = dict(zip(numbers, events, strict=True))
        changed = [event for number, event in ledger.events.items() if stored.get(number) != event]
        check("events that were told stand", lost=changed[:20], other=ledger.contradictions[:20])

    def _attempts(self, jobs: Mapping[str, Mapping[str, Any]], histories: Mapping[str, list[dict[str, Any]]]) -> None:
        check, witness = self._tally.check, self._witness
        check("attempts do not overlap", doubled=witness.overlaps())
        check("no attempt and no token begins twice", doubled=witness.repeated())
        known = {one["token"]: (name, one["number"]) for name, history in histories.items() for one in history}
        lines = witness.lines()
        strangers = {f"{line}" for line in lines if known.get(line.token) != (line.job, line.attempt)}
        check("what ran is on record", lost=sorted(strangers)[:20])
        check("counters only grow", other=_counters(jobs, histories))
        check("a job that ended well was seen to", doubled=_unseen(histories, lines))

    def _undisturbed(self, histories: Mapping[str, list[dict[str, Any]]]) -> None:
        began = {line.token for line in self._witness.lines()}
        wrong = [
            f"{name} attempt {one['number']}: {one['reason']}"
            for name, history in histories.items()
            for one in history
            if one["token"] in began and one["reason"] in {"lost", "interrupted", "host_error"}
        ]
        self._tally.check("nothing runs again whose worker lived", doubled=wrong)

    def _replay(self, jobs: Mapping[str, Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> None:
        states: dict[str, str] = {}
        wrong: list[str] = []
        for event in events:
            if "state" not in event:
                continue
            name = event["job"]
            if event.get("was") != states.get(name):
                wrong.append(f"{name} was {states.get(name)} where {event} says otherwise")
            states[name] = event["state"]
        wrong += [
            f"{name} is {jobs[name]['state']}, by its events {states.get(name)}"
            for name in jobs
            if states.get(name) != jobs[name]["state"]
        ]
        self._tally.check("events replay to the states", other=wrong[:20])

    def _counts(self, wire: Wire, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        counted, listed = wire.counts(), dict(Counter(job["state"] for job in jobs.values()))
        self._tally.check("counts are those of the jobs", other=[f"{counted}, {listed}"] if counted != listed else [])

    def _outputs(self, wire: Wire, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        done = [name for name, job in jobs.items() if job["state"] == "completed"]
        self._tally.check(
            "output is complete",
            lost=[name for name in done[-_SAMPLE:] if wire.output(name) != b"said\n"],
        )

    def _processes(self) -> None:
        """Nothing is there but the daemon and its workers, who run nothing."""
        workers = {one["pid"] for one in self._daemon.workers()} | {self._daemon.pid}
        left = [one for one in processes.of(self._daemon.home) if one.pid not in workers]
        # A worker that has just started is not yet counted, or one that ends is not any more.
        left = [one for one in left if "queuectld" not in one.command]
        self._tally.check("no process is left", left_over=left)

    def end(self) -> None:
        """Stop the daemon as a person would: it ends well, nothing is left, and the database is sound."""
        with self._daemon.wire() as wire:
            store = wire.greeting["store"]
        self._tally.runs += len({line.token for line in self._witness.lines()})
        code = self._daemon.stop()
        self._tally.check("a stop ends well", other=[f"exit code {code}"] if code else [])
        self._tally.check("no process is left", left_over=processes.of(self._daemon.home))
        state = self._daemon.state
        files = [file for name in ("outcomes", "input") for file in (state / name).iterdir()]
        self._tally.check("no file is left", left_over=[str(file) for file in files])
        self._tally.check("no cgroup is left", left_over=_groups(store))
        self._tally.check("the database is sound", lost=damage(state / "queue.db"))
        surprises = [line for line in self._daemon.log_lines() if line["event"] in SURPRISES]
        self._tally.check("nothing surprises the daemon", other=surprises[:5])


def _groups(store: str) -> list[str]:
    """Return the cgroups of attempts that are still there."""
    place = cgroups.own()
    return [] if place is None else [str(one) for one in Path(place).glob(f"queuectl.{store[:12]}/*/")]


def damage(database: Path) -> list[str]:
    """Return what is wrong with the file, as SQLite itself sees it."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
    finally:
        connection.close()


def _listed(wire: Wire) -> Iterator[dict[str, Any]]:
    after: Any = None
    while True:
        page = wire.call("list", select={}, limit=1000, **({"after": after} if after else {}))
        yield from page["jobs"]
        if (after := page["next"]) is None:
            return


def _counters(jobs: Mapping[str, Mapping[str, Any]], histories: Mapping[str, list[dict[str, Any]]]) -> list[str]:
    """Attempts are numbered without holes, tokens grow with them, and none belongs to two."""
    wrong = []
    for name, history in histories.items():
        numbers, tokens = [one["number"] for one in history], [one["token"] for one in history]
        if numbers != list(range(1, jobs[name]["attempts"] + 1)) or tokens != sorted(set(tokens)):
            wrong.append(f"{name} has attempts {numbers} of {jobs[name]['attempts']}, tokens {tokens}")
    times = Counter(one["token"] for history in histories.values() for one in history)
    return wrong + [f"token {token} belongs to {count} attempts" for token, count in times.items() if count > 1]


def _unseen(histories: Mapping[str, list[dict[str, Any]]], lines: Iterable[Line]) -> list[str]:
    """Return the attempts on record as run to their end of which the witness does not know start and end."""
    told: dict[int, list[str]] = defaultdict(list)
    for line in lines:
        told[line.token].append(line.what)
    return [
        f"{name} attempt {one['number']}: {told[one['token']]}"
        for name, history in histories.items()
        for one in history
        if one["reason"] == "exited" and told[one["token"]] != ["start", "end"]
    ]
