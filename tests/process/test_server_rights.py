"""Every operation by everybody, on one's own jobs and on those of others, over the wire."""

from __future__ import annotations

import json
import re
import time

import pytest

from queuectld.protocol.messages import REQUESTS
from queuectld.protocol.replies import WorkerView
from queuectld.server.rights import RIGHTS, Right
from queuectld.server.who import Peer, Role
from queuectld.service.output_files import output_base
from queuectld.worker.output import Output
from tests.process.server_rig import Rig

ROOT = Peer(0, "root", Role.ADMIN, "pid 1")
ALICE = Peer(2001, "alice", Role.USER, "pid 2")
BOB = Peer(2002, "bob", Role.USER, "pid 3")
OLGA = Peer(2003, "olga", Role.OBSERVER, "pid 4")
SAM = Peer(2004, "sam", Role.STRANGER, "pid 5")
CARL = Peer(2005, "carl", Role.USER, "pid 6")
EVERYBODY = {Role.ADMIN: ROOT, Role.USER: ALICE, Role.OBSERVER: OLGA, Role.STRANGER: SAM}

# What nobody but bob (and root) may learn of his jobs, from any byte. The exit code is looked for as such.
NEEDLES = re.compile(rb'hush|"(exit_code|signal|attempts?|max_retries)": ?(173|11|4|41)\b')
BOBS = {
    "command": "hush-command",
    "tags": {"hush-key": "hush-value"},
    "env": {"HUSH_hush": "hush-env"},
    "note": "hush-note",
    "cwd": "/hush",
    "max_retries": 41,
    "priority": 41,
}
# What a listing says of others' jobs, and nothing else.
LISTED = {"id", "state", "queue", "owner", "created_at", "updated_at", "run_at", "started_at", "ended_at", "duration"}


def request(op, job):
    """A request of each kind, about that job where there is one."""
    select = {"select": {"ids": [job]}}
    fields = {
        "enqueue": {"jobs": [{"command": "true"}]},
        "stage": {"key": "k", "data": "x"},
        "get": {"job": job},
        "list": select,
        "count": select,
        "logs": {"jobs": [job]},
        "wait": {**select, "until": ["pending", "processing", "completed", "failed", "dead", "cancelled"]},
        "signal": {"job": job, "number": 10},
        **dict.fromkeys(("cancel", "retry", "discard", "undelete"), select),
        "events": {"start": 1, "job": job},
        "config_set": {"key": "max_retries", "value": 3},
        "config_unset": {"key": "max_retries"},
        "stop": {"stream": 99},
        "shutdown": {"mode": "leave"},
    }
    return {"op": op, **fields.get(op, {})}


def all_of(client, **asked):
    """Ask, and return all lines of the answer; the last one is the answer itself."""
    number = client.send(**asked)
    lines = []
    while not lines or "event" in lines[-1]:
        lines.append(client.receive())
        assert lines[-1]["id"] == number
    return lines


@pytest.fixture
def rig(tmp_path):
    with Rig(tmp_path, uid=0) as rig:
        yield rig


def test_each_operation_has_its_rights():
    assert set(RIGHTS) == set(REQUESTS)


@pytest.mark.parametrize("op", REQUESTS)
def test_who_may_look_changes_nothing_and_administrators_may_do_all(op):
    rights = RIGHTS[op]

    assert rights[Role.ADMIN] is Right.ALL
    if REQUESTS[op].changes or op in {"shutdown", "get", "logs", "wait"}:
        assert rights[Role.OBSERVER] is Right.NO
    assert (rights[Role.STRANGER] is Right.NO) == (op not in {"hello", "ping", "status"})


@pytest.mark.parametrize("whose", ["own", "another's"])
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("op", REQUESTS)
def test_everybody_may_do_what_the_table_says_and_no_more(rig, op, role, whose):
    right, peer = RIGHTS[op][role], EVERYBODY[role]
    rig.connect(peer=BOB).add(id="bobs")
    # Somebody without jobs of his own has nothing to tell them from others'.
    own = whose == "own" and role in {Role.ADMIN, Role.USER}
    if own:
        rig.connect(peer=peer).add(id="mine")
    client = rig.connect(peer=peer)

    *events, answer = all_of(client, **request(op, "mine" if own else "bobs"))

    code = answer.get("error", {}).get("code")
    about_others = not own and "bobs" in json.dumps(request(op, "bobs"))
    refused = right is Right.NO or (right is Right.OWN and about_others)
    assert (code == "forbidden") == refused, answer
    told = [*events, *(answer.get("ok", {}).get("jobs", []) if op == "list" else [])]
    told = [line.get("event", line) for line in told]
    if op in {"list", "events"} and not refused:
        hidden = right is Right.LISTING or (right is Right.LISTED and about_others)
        assert told
        assert all(one.get("hidden", False) == hidden for one in told)


def test_of_the_jobs_of_others_a_listing_tells_where_they_stand(rig):
    rig.connect(peer=BOB).add(id="bobs", **{name: value for name, value in BOBS.items() if name != "command"})
    client = rig.connect(peer=ALICE)
    client.add("mine-command", id="mine")

    bobs, mine = client.ok(op="list")["jobs"]

    assert {name for name, value in bobs.items() if value is not None} <= LISTED | {"hidden"}
    assert (bobs["owner"], bobs["state"], bobs["hidden"]) == ("bob", "pending", True)
    assert (mine["command"], mine["hidden"]) == ("mine-command", False)
    assert bobs.keys() == mine.keys()


@pytest.mark.parametrize(
    "condition",
    [{"tags": ["team=a"]}, {"command": "*"}, {"exit_code": 0}, {"seen": False}],
    ids=lambda one: next(iter(one)),
)
def test_conditions_that_would_tell_more_than_a_listing_meet_only_own_jobs(rig, condition):
    fields = {"tags": {"team": "a"}}
    for who in (ALICE, BOB):
        rig.connect(peer=who).add("true", id=f"{who.user}s", **fields)
        rig.end_job(rig.start_job().attempt.token)
    alice = rig.connect(peer=ALICE)

    for more in ({}, {"owner": "alice"}, {"state": ["completed"]}):
        assert [job["id"] for job in alice.ok(op="list", select=condition | more)["jobs"]] == ["alices"]
        assert alice.ok(op="count", select=condition | more)["total"] == 1
    assert alice.ok(op="list", select=condition | {"owner": "bob"})["jobs"] == []
    assert alice.ok(op="count", select=condition | {"ids": ["bobs"]})["total"] == 0
    error = rig.connect(peer=OLGA).error(op="list", select=condition)
    assert (error["code"], error["path"]) == ("forbidden", f"$.select.{next(iter(condition))}")
    assert rig.connect(peer=ROOT).ok(op="count", select=condition)["total"] == 2


@pytest.mark.parametrize("select", [{}, {"queue": ["default"]}, {"state": ["pending"]}, {"command": "*"}, {"since": 0}])
def test_a_change_of_many_means_ones_own(rig, select):
    rig.connect(peer=BOB).add(id="bobs")
    alice = rig.connect(peer=ALICE)
    alice.add(id="mine")

    assert alice.ok(op="cancel", select=select, dry_run=True)["jobs"] == ["mine"]
    assert alice.ok(op="cancel", select=select)["jobs"] == ["mine"]
    assert alice.error(op="cancel", select=select | {"owner": "bob"})["code"] == "forbidden"
    assert rig.connect(peer=ROOT).ok(op="count", select={"state": ["cancelled"]})["total"] == 1


def test_of_several_ids_those_of_others_are_refused_by_name(rig):
    rig.connect(peer=BOB).add(id="bobs")
    alice = rig.connect(peer=ALICE)
    alice.add(id="mine")

    reply = alice.ok(op="cancel", select={"ids": ["bobs", "mine", "none"]})

    assert reply["jobs"] == ["mine"]
    assert [(one["index"], one["code"]) for one in reply["refused"]] == [(0, "forbidden"), (2, "no_such_job")]
    assert "belongs to bob" in reply["refused"][0]["message"]


def test_a_wait_for_all_waits_for_ones_own(rig):
    rig.connect(peer=BOB).add(id="bobs")
    alice = rig.connect(peer=ALICE)
    alice.add(id="mine")
    alice.ok(op="cancel", select={})

    *events, answer = all_of(alice, op="wait", select={})

    assert [event["event"]["id"] for event in events] == ["mine"]
    assert answer["ok"]["count"] == 1


def test_ids_of_others_do_not_get_into_the_way_of_ones_own(rig):
    bob, alice = rig.connect(peer=BOB), rig.connect(peer=ALICE)
    alice.add(id="build-mine")
    bob.add(id="build-bobs")
    bob.add(id="build-more")
    bob.add(id="deploy-1")

    assert alice.ok(op="get", job="build")["job"]["id"] == "build-mine"
    assert alice.ok(op="get", job="@last")["job"]["id"] == "build-mine"
    assert alice.error(op="get", job="deploy")["code"] == "forbidden"
    assert alice.ok(op="cancel", select={"ids": ["build"]})["jobs"] == ["build-mine"]
    assert bob.error(op="get", job="build")["code"] == "ambiguous_id"
    assert rig.connect(peer=CARL).error(op="get", job="@last")["code"] == "no_such_job"


def test_a_discarded_job_of_somebody_else_is_none(rig):
    alice, bob = rig.connect(peer=ALICE), rig.connect(peer=BOB)
    for client, code in ((alice, 3), (bob, 4)):
        client.add("false", id="same", max_retries=0)
        rig.end_job(rig.start_job().attempt.token, exit_code=code)
        client.ok(op="discard", select={"ids": ["same"]})

    # The newest of that name is bob's; each brings back his own.
    assert alice.ok(op="undelete", select={"ids": ["same"]})["count"] == 1
    assert rig.connect(peer=ROOT).ok(op="get", job="same")["job"]["exit_code"] == 3
    assert bob.error(op="undelete", select={"ids": ["same"]})["code"] == "duplicate_id"
    carl = rig.connect(peer=CARL)
    assert carl.error(op="undelete", select={"ids": ["same"]})["code"] == "forbidden"
    alice.ok(op="discard", select={"ids": ["same"]})
    gone, none = (carl.error(op="undelete", select={"ids": [name]}) for name in ("same", "none"))
    assert gone["code"] == none["code"] == "no_such_job"
    assert gone["message"].replace("same", "none") == none["message"]


def test_of_a_worker_others_are_told_which_job_it_has_and_no_more(rig):
    told = {"name": "w1", "pid": 7, "phase": "running", "since": "", "started_at": "", "jobs_done": 0}
    spent = {"memory": None, "descriptors": None, "cpu_seconds": None}
    rig.control.pool = [WorkerView(job="bobs", attempt=4, **told, **spent)]

    seen = {peer.user: rig.connect(peer=peer).ok(op="worker_list")["workers"][0] for peer in (ROOT, ALICE, OLGA)}

    assert {user: (one["job"], one["attempt"]) for user, one in seen.items()} == {
        "root": ("bobs", 4),
        "alice": ("bobs", None),
        "olga": ("bobs", None),
    }


def test_only_the_attempt_of_an_own_job_can_be_lent(rig):
    bob, alice = rig.connect(peer=BOB), rig.connect(peer=ALICE)
    bob.add(id="bobs")
    token = rig.start_job().attempt.token
    alice.add(id="mine")
    text = f"{rig.desk.facts.store}/{token}"

    error = alice.error(op="wait", select={"ids": ["mine"]}, lend=text)

    assert (error["code"], error["path"]) == ("forbidden", "$.lend")
    assert alice.error(op="logs", jobs=["mine"], follow=True, lend=text)["code"] == "forbidden"
    assert rig.control.lent == []
    assert bob.ok(op="logs", jobs=["bobs"], lend=text)


def test_a_stranger_learns_that_the_daemon_lives_and_how_to_get_in(rig):
    rig.connect(peer=BOB).add(id="bobs")
    sam = rig.connect(peer=SAM)

    told = sam.ok(op="status")

    assert (told["phase"], told["queues"], told["state_dir"], told["config_file"]) == ("running", [], "", None)
    assert "root" in sam.error(op="list")["message"]


def test_what_a_job_runs_is_not_told_by_the_problems_of_the_daemon(rig):
    rig.control.trouble = ["attempt 7 cannot be ended: 4711 (hush)"]

    told = {peer.user: rig.connect(peer=peer).ok(op="status")["problems"] for peer in (ROOT, ALICE, OLGA, SAM)}

    assert told["root"] == rig.control.trouble
    assert told["alice"] == told["olga"] == ["attempt 7 cannot be ended"]
    assert "told only to those who may" in told["sam"][0]


@pytest.fixture
def bobs_life(rig):
    """Jobs of bob in every state, full of secrets; with one that goes on while others look."""
    bob = rig.connect(peer=BOB)

    def run(job, **outcome):
        rig.connect(peer=BOB).ok(op="enqueue", jobs=[BOBS | {"id": job} | outcome.pop("fields", {})])
        claimed = rig.start_job()
        base = output_base(rig.state / "output", claimed.job.seq, claimed.job.attempts)
        base.parent.mkdir(parents=True, exist_ok=True)
        output = Output(str(base), 1 << 20)
        output.take(b"hush-output\n", 1, time.time())
        output.finish(time.time())
        if outcome:
            rig.end_job(claimed.attempt.token, **outcome)
        return claimed

    run("bob-completed", exit_code=0, message="hush-message")
    run("bob-dead", exit_code=173, message="hush-message", fields={"max_retries": 0})
    run("bob-gone", exit_code=173, message="hush-message", fields={"max_retries": 0})
    bob.ok(op="discard", select={"ids": ["bob-gone"]})
    run("bob-failed", exit_code=173, message="hush-message")
    run("bob-killed", reason="signalled", exit_code=None, signal=11, message="hush-message")
    claimed = run("bob-runs")
    bob.ok(
        op="enqueue",
        request="hush-request",
        jobs=[BOBS | {"id": "bob-waits", "delay": 1000}, {"argv": ["hush-argv", "x"], "id": "bob-argv", "delay": 1000}],
        submission={"env": {"ALSO_hush": "hush-captured"}, "cwd": "/hush-cwd"},
    )
    bob.ok(op="cancel", select={"ids": ["bob-argv"]}, reason="hush-reason")
    return bob, claimed


JOBS = ["bob-completed", "bob-dead", "bob-gone", "bob-failed", "bob-killed", "bob-runs", "bob-waits", "bob-argv"]


@pytest.mark.parametrize("peer", [ALICE, OLGA, SAM], ids=lambda peer: peer.role.value)
def test_no_byte_that_others_get_has_anything_of_a_job(rig, bobs_life, peer):
    bob, claimed = bobs_life
    watcher, client = rig.connect(peer=peer), rig.connect(peer=peer)
    heard = []
    watching = watcher.send(op="events", start=0, follow=True)
    for job in (*JOBS, "bob-", "bob-wai", "@last"):
        for op in REQUESTS.keys() - {"shutdown", "config_set", "config_unset", "worker_stop"}:
            heard += all_of(client, **request(op, job))
    for select in (
        {},
        {"owner": "bob"},
        {"ids": JOBS[3:]},
        *({"exit_code": code} for code in (0, 173)),
        {"command": "hush*"},
        {"tags": ["hush-key=hush-value"]},
        {"seen": False, "owner": "bob"},
        {"state": ["dead"], "ended_since": 0},
    ):
        for op in ("list", "count", "cancel", "retry", "discard", "wait"):
            heard += all_of(client, op=op, select=select)
    heard += all_of(client, op="enqueue", jobs=[{"command": "true", "id": "bob-runs"}])
    heard += all_of(client, op="enqueue", request="a-request", jobs=[{"command": "true"}])
    # It goes on while somebody watches.
    bob.ok(op="signal", job="bob-runs", number=12)
    rig.end_job(claimed.attempt.token, exit_code=173, message="hush-message")
    bob.ok(op="retry", select={"ids": ["bob-dead"]})
    bob.ok(op="cancel", select={"ids": ["bob-waits"]}, reason="hush-reason")
    seen = []
    while "error" not in (seen[-1] if seen else {}) and not any(
        line.get("event", {}).get("job") == "bob-waits" and line["event"].get("state") == "cancelled" for line in seen
    ):
        seen.append(watcher.receive())
    assert watching == seen[-1]["id"]
    heard += seen

    lines = [json.dumps(line).encode() for line in heard]
    assert [line for line in lines if NEEDLES.search(line)] == []
    # All this would have been there to be had.
    told = json.dumps([all_of(bob, **request("get", job)) for job in JOBS if job != "bob-gone"])
    for secret in ("hush-command", "hush-key", "hush-output", "hush-message", "hush-reason", "hush-argv", "ALSO_hush"):
        assert secret in told
    assert rig.connect(peer=ROOT).ok(op="list", select={"owner": "bob"})["jobs"][0]["command"] == "hush-command"


def test_nothing_that_others_tried_changed_anything(rig, bobs_life):
    root = rig.connect(peer=ROOT)
    before = root.ok(op="list")["jobs"]
    newest = all_of(root, op="events", start=0)[-1]["ok"]["next"]

    for peer in (ALICE, OLGA, SAM):
        client = rig.connect(peer=peer)
        for job in JOBS:
            for op, form in REQUESTS.items():
                if (form.changes or op == "shutdown") and op not in {"enqueue", "stage"}:
                    all_of(client, **request(op, job))
        for op in ("cancel", "retry", "discard"):
            all_of(client, op=op, select={})

    after = root.ok(op="list")["jobs"]
    # Time goes on meanwhile.
    volatile = {"duration", "waiting"}
    assert [{k: v for k, v in job.items() if k not in volatile} for job in after] == [
        {k: v for k, v in job.items() if k not in volatile} for job in before
    ]
    assert all_of(root, op="events", start=0)[-1]["ok"]["next"] == newest
    assert not [asked for asked in rig.control.asked if asked[0] in {"signal", "cancel", "shutdown", "reexec"}]


def test_a_page_of_somebody_among_the_jobs_of_others_is_bounded(rig):
    bob, alice = rig.connect(peer=BOB), rig.connect(peer=ALICE)
    bob.ok(op="enqueue", jobs=[{"command": "true"}] * 2500)
    alice.add(id="mine")

    page = alice.ok(op="list", limit=10)

    assert len(page["jobs"]) == 10
    assert all(job["hidden"] for job in page["jobs"])


# In somebody else's name.


def test_administrators_have_jobs_run_in_the_names_of_others(rig):
    root = rig.connect(peer=ROOT)

    root.add(id="theirs", **{"as": "daemon"}, env={"A": "1"})

    job = root.ok(op="get", job="theirs")
    assert job["job"]["owner"] == "daemon"
    assert "as" not in job["spec"]
    (entry,) = all_of(root, op="events", start=0, job="theirs")[:-1]
    assert (entry["event"]["owner"], entry["event"]["by"]) == ("daemon", "root")
    # He whose job it is has it.
    assert rig.connect(peer=Peer(1, "daemon", Role.USER, "")).ok(op="cancel", select={})["jobs"] == ["theirs"]


def test_a_job_in_another_name_gets_nothing_of_its_submitters_environment_unless_that_is_said(rig):
    root = rig.connect(peer=ROOT)
    given = {"env": {"MINE": "1"}, "cwd": "/root", "umask": 63}
    root.ok(op="enqueue", submission=given, jobs=[{"command": "true", "id": "a", "as": "daemon"}])
    root.ok(
        op="enqueue", submission=given, jobs=[{"command": "true", "id": "b", "as": "daemon", "env_mode": "capture"}]
    )
    root.ok(op="enqueue", submission=given, jobs=[{"command": "true", "id": "c", "as": "root"}])

    assert root.ok(op="get", job="a")["env"] == {}
    assert root.ok(op="get", job="a")["spec"] == {"command": "true"}
    assert root.ok(op="get", job="b")["env"] == {"MINE": None}
    assert root.ok(op="get", job="c")["spec"] == {"command": "true", "cwd": "/root", "umask": 63}


@pytest.mark.parametrize("name", ["root", "bob", "nobody-of-that-name"])
def test_others_have_jobs_run_only_in_their_own_name(rig, name):
    alice = rig.connect(peer=ALICE)

    error = alice.error(op="enqueue", jobs=[{"command": "true", "as": name}])

    assert (error["code"], error["path"]) == ("forbidden", "$.jobs[0].as")
    assert alice.ok(op="enqueue", jobs=[{"command": "true", "as": "alice"}])


def test_an_unknown_user_is_refused_with_the_path(rig):
    reply = rig.connect(peer=ROOT).ok(
        op="enqueue", jobs=[{"command": "true"}, {"command": "true", "as": "nobody-of-that-name"}]
    )

    assert len(reply["jobs"]) == 1
    assert [(one["code"], one["path"]) for one in reply["refused"]] == [("bad_request", "$.jobs[1].as")]
    assert "there is no user 'nobody-of-that-name'" in reply["refused"][0]["message"]


def test_the_daemon_of_a_user_runs_all_jobs_as_that_user(tmp_path):
    with Rig(tmp_path, uid=1000) as rig:
        root = rig.connect(peer=ROOT)

        error = root.error(op="enqueue", jobs=[{"command": "true", "as": "daemon"}])

        assert (error["code"], error["path"]) == ("bad_request", "$.jobs[0].as")
        assert "runs all jobs as tester" in error["message"]
        root.add(id="a", **{"as": "tester"})
        assert root.ok(op="get", job="a")["job"]["owner"] == "tester"


def test_a_key_belongs_to_whoever_sends_it(rig):
    root = rig.connect(peer=ROOT)
    jobs = [{"command": "true", "as": "daemon"}]

    first = root.ok(op="enqueue", request="k", jobs=jobs)
    again = root.ok(op="enqueue", request="k", jobs=jobs)
    other = rig.connect(peer=Peer(1, "daemon", Role.USER, "")).ok(op="enqueue", request="k", jobs=jobs)

    assert again["jobs"][0]["id"] == first["jobs"][0]["id"]
    assert other["jobs"][0]["created"]
