from __future__ import annotations

import time

import pytest

from queuectld.errors import CheckFailedError
from queuectld.server.who import Peer, Role
from queuectld.service import submit

BAD_JOBS = [
    ({}, "bad_request", "$.jobs[0].command"),
    ({"command": ""}, "bad_request", "$.jobs[0].command"),
    ({"command": "true", "priorty": 1}, "bad_request", "$.jobs[0].priorty"),
    ({"command": 5}, "bad_request", "$.jobs[0].command"),
    ({"command": "echo \0"}, "bad_request", "$.jobs[0].command"),
    ({"command": "true", "id": ""}, "bad_request", "$.jobs[0].id"),
    ({"command": "true", "max_retries": -1}, "bad_request", "$.jobs[0].max_retries"),
    ({"command": "true", "queue": "defualt"}, "no_such_queue", "$.jobs[0].queue"),
    ({"command": "true", "hold": True}, "unsupported", "$.jobs[0].hold"),
    ({"command": "true", "stdin": {"staged": "x"}}, "bad_request", "$.jobs[0].stdin.staged"),
    ("true", "bad_request", "$.jobs[0]"),
]


def test_the_server_speaks_first(client):
    assert client.greeting["protocol"] == [1]
    assert client.greeting["limits"] == {"line": 1048576, "inflight": 64}
    assert client.greeting["authenticate"] is False


def test_a_job_is_stored_and_shown(client):
    added = client.ok(op="enqueue", jobs=[{"id": "job1", "command": "echo hello"}])

    assert added["jobs"] == [{"id": "job1", "state": "pending", "created": True, "run_at": None}]
    shown = client.ok(op="get", job="job1")
    assert shown["job"]["command"] == "echo hello"
    assert shown["job"]["waiting"] == "queued"
    assert shown["history"] == []


@pytest.mark.parametrize(("job", "code", "path"), BAD_JOBS)
def test_a_lone_bad_job_is_an_error_that_names_the_field(client, job, code, path):
    error = client.error(op="enqueue", jobs=[job])

    assert (error["code"], error["path"]) == (code, path)
    assert client.ok(op="count")["total"] == 0


def test_a_bad_job_harms_no_other_and_is_named_by_its_place(client):
    jobs = [{"command": "true", "id": f"j{n}"} for n in range(5)]
    jobs[3]["timeout"] = "soon"

    reply = client.ok(op="enqueue", jobs=jobs)

    assert [job["id"] for job in reply["jobs"]] == ["j0", "j1", "j2", "j4"]
    assert [(one["index"], one["code"], one["path"]) for one in reply["refused"]] == [
        (3, "bad_request", "$.jobs[3].timeout")
    ]


def test_an_atomic_request_with_a_bad_job_stores_none(client):
    jobs = [{"command": "true", "id": "a"}, {"command": ""}, {"command": "true", "id": "a"}]

    reply = client.ok(op="enqueue", jobs=jobs, atomic=True)

    assert reply["jobs"] == []
    assert [(one["index"], one["code"]) for one in reply["refused"]] == [(1, "bad_request"), (2, "duplicate_id")]
    assert client.ok(op="count")["total"] == 0


def test_a_dry_run_checks_everything_and_stores_nothing(client):
    client.add(id="taken")

    reply = client.ok(
        op="enqueue", dry_run=True, jobs=[{"command": "true", "id": "new"}, {"command": "true", "id": "taken"}]
    )

    assert [(job["id"], job["created"]) for job in reply["jobs"]] == [("new", False)]
    assert [one["code"] for one in reply["refused"]] == ["duplicate_id"]
    assert client.ok(op="count")["total"] == 1


def test_a_duplicate_id_is_refused(client):
    client.add(id="job1")

    error = client.error(op="enqueue", jobs=[{"command": "true", "id": "job1"}])

    assert (error["code"], error["path"]) == ("duplicate_id", "$.jobs[0].id")


def test_an_unknown_queue_is_refused_with_the_nearest(client):
    error = client.error(op="enqueue", jobs=[{"command": "true", "queue": "defualt"}])

    assert "did you mean 'default'?" in error["message"]


def test_a_resent_request_meets_its_first_copy(rig, client):
    first = client.ok(op="enqueue", request="k1", jobs=[{"command": "true"}])
    again = rig.connect().ok(op="enqueue", request="k1", jobs=[{"command": "true"}])

    assert again["jobs"] == [first["jobs"][0] | {"created": False}]
    assert client.ok(op="count")["total"] == 1


def test_staged_jobs_and_inputs_are_taken_up_by_one_request(client):
    client.ok(op="stage", key="in", data="hello ")
    client.ok(op="stage", key="in", b64="d29ybGQ=")
    assert client.ok(op="stage", key="k", jobs=[{"command": "cat", "stdin": {"staged": "in"}}])["jobs"] == 1

    reply = client.ok(op="enqueue", staged="k", jobs=[{"command": "true"}])

    assert len(reply["jobs"]) == 2
    assert client.error(op="enqueue", staged="k")["path"] == "$.staged"


def test_staged_inputs_are_stored_whole(rig, client):
    client.ok(op="stage", key="in", data="hello ")
    client.ok(op="stage", key="in", b64="d29ybGQ=")

    job_id = client.add("cat", stdin={"staged": "in"})

    assert rig.do(lambda store: store.blob(store.get(job_id).stdin)) == b"hello world"


def test_what_the_submitter_brought_along_is_used_where_the_job_says_nothing(rig, client):
    env = {"PATH": "/bin", "TERM": "xterm", "SECRET": "x"}

    reply = client.ok(
        op="enqueue",
        submission={"env": env, "cwd": "/tmp", "umask": 18},
        jobs=[{"command": "true"}, {"command": "true", "cwd": "/", "env_mode": "clean"}],
    )

    first, second = (client.ok(op="get", job=job["id"], with_env=True) for job in reply["jobs"])
    assert (first["spec"]["cwd"], first["spec"]["umask"]) == ("/tmp", 18)
    assert first["env"] == {"PATH": "/bin", "SECRET": "x"}
    assert (second["spec"]["cwd"], second["env"]) == ("/", {})


def test_values_of_environments_are_shown_only_when_asked_for(client):
    reply = client.ok(
        op="enqueue", submission={"env": {"SECRET": "hush"}}, jobs=[{"command": "true", "env": {"TOKEN": "hush"}}]
    )

    shown = client.ok(op="get", job=reply["jobs"][0]["id"])

    assert "hush" not in str(shown)
    assert (shown["env"], shown["spec"]["env"]) == ({"SECRET": None}, {"TOKEN": None})


def test_a_delayed_job_says_when_it_will_run(client):
    reply = client.ok(op="enqueue", jobs=[{"command": "true", "delay": "1h"}, {"command": "true", "run_at": 4e9}])

    assert reply["jobs"][1]["run_at"] == "2096-10-02T07:06:40Z"
    assert [job["waiting"] for job in client.ok(op="list")["jobs"]] == ["not_due", "not_due"]


def test_nobody_to_run_jobs_is_worth_a_warning(rig, client):
    rig.control.limit = 0

    assert "no workers" in client.ok(op="enqueue", jobs=[{"command": "true"}])["warnings"][0]


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "get", "job": "nope"},
        {"op": "logs", "jobs": ["nope"]},
        {"op": "wait", "select": {"ids": ["nope"]}},
        {"op": "cancel", "select": {"ids": ["nope"]}},
        {"op": "retry", "select": {"ids": ["nope"]}},
        {"op": "discard", "select": {"ids": ["nope"]}},
        {"op": "undelete", "select": {"ids": ["nope"]}},
        {"op": "signal", "job": "nope", "number": 15},
        {"op": "list", "select": {"ids": ["nope"]}},
        {"op": "events", "job": "nope"},
    ],
)
def test_an_unknown_job_is_an_error_in_every_request(client, request_):
    assert client.error(**request_)["code"] == "no_such_job"


def test_lists_go_by_pages(client):
    client.ok(op="enqueue", jobs=[{"command": "true", "id": f"job-{n}"} for n in range(25)])

    pages, after = [], None
    while True:
        page = client.ok(op="list", limit=10, after=after)
        pages.append([job["id"] for job in page["jobs"]])
        if (after := page["next"]) is None:
            break

    assert [job for page in pages for job in page] == [f"job-{n}" for n in range(25)]
    assert client.error(op="list", after="x")["path"] == "$.after"


def test_counts_are_by_state(client):
    for number in range(3):
        client.add(id=f"job{number}", tags={"team": "a"} if number else {})
    client.ok(op="cancel", select={"ids": ["job1"]})

    assert client.ok(op="count") == {"total": 3, "states": {"pending": 2, "cancelled": 1}}
    assert client.ok(op="count", select={"state": ["cancelled"]})["total"] == 1
    assert client.ok(op="count", select={"tags": ["team=a"]}) == {"total": 2, "states": {"pending": 1, "cancelled": 1}}


def test_a_waiting_job_is_cancelled_at_once(client):
    job_id = client.add()

    assert client.ok(op="cancel", select={"ids": [job_id]}, reason="typo")["jobs"] == [job_id]

    job = client.ok(op="get", job=job_id)["job"]
    assert (job["state"], job["reason"], job["error"]) == ("cancelled", "cancelled", "typo")


def test_a_running_job_is_cancelled_when_its_last_process_is_gone(rig, client):
    job_id = client.add()
    token = rig.start_job().attempt.token

    number = client.send(op="cancel", select={"ids": [job_id]}, kill_after=3)
    # Nobody's answer waits for it.
    assert client.ok(op="get", job=job_id)["job"]["waiting"] == "cancelling"
    assert ("cancel", token, 3.0) in rig.control.asked
    rig.end_job(token, reason="signalled", signal=15, exit_code=None)

    assert client.receive() == {"id": number, "ok": {"jobs": [job_id], "count": 1, "refused": [], "pending": []}}
    assert client.ok(op="get", job=job_id)["job"]["state"] == "cancelled"


def test_a_job_that_ends_well_first_was_not_cancelled(rig, client):
    job_id = client.add()
    token = rig.start_job().attempt.token

    number = client.send(op="cancel", select={"ids": [job_id]})
    assert client.ok(op="ping")
    rig.end_job(token)

    answer = client.receive()
    assert (answer["id"], answer["error"]["code"]) == (number, "wrong_state")


def test_a_cancel_that_takes_too_long_says_what_holds_it_up(rig, client, monkeypatch):
    monkeypatch.setattr("queuectld.server.bulk.PATIENCE", 0.05)
    job_id = client.add()
    token = rig.start_job().attempt.token
    rig.control.held_up[token] = "process 7 is stuck in the kernel"

    reply = client.ok(op="cancel", select={"ids": [job_id]}, kill_after=0)

    assert reply["pending"] == [f"{job_id}: process 7 is stuck in the kernel"]


def test_a_running_job_cannot_be_retried(rig, client):
    job_id = client.add()
    rig.start_job()

    error = client.error(op="retry", select={"ids": [job_id]})

    assert error["code"] == "wrong_state"


def test_of_many_ids_the_wrong_ones_are_named(rig, client):
    for number in range(3):
        client.add(id=f"job{number}")
    client.ok(op="cancel", select={"ids": ["job2"]})

    reply = client.ok(op="retry", select={"ids": ["job0", "nope", "job2"]})

    assert reply["jobs"] == ["job2"]
    assert [(one["index"], one["code"]) for one in reply["refused"]] == [(0, "wrong_state"), (1, "no_such_job")]


def test_dead_jobs_are_retried_discarded_and_brought_back(rig, client):
    client.add(id="job1", max_retries=0)
    rig.end_job(rig.start_job().attempt.token, exit_code=3)
    assert client.ok(op="list", select={"state": ["dead"]})["jobs"][0]["exit_code"] == 3

    assert client.ok(op="discard", select={}, dry_run=True)["count"] == 1
    assert client.ok(op="discard", select={})["count"] == 1
    assert client.error(op="get", job="job1")["code"] == "no_such_job"
    assert client.ok(op="undelete", select={"ids": ["job1"]})["count"] == 1
    assert client.ok(op="retry", select={"state": ["dead"]})["count"] == 1

    assert client.ok(op="get", job="job1")["job"]["state"] == "pending"


def test_retry_of_all_leaves_what_was_completed_or_cancelled_alone(rig, client):
    client.add(id="done")
    rig.end_job(rig.start_job().attempt.token)
    client.add(id="off")
    client.ok(op="cancel", select={"ids": ["off"]})

    assert client.ok(op="retry", select={})["count"] == 0
    assert client.ok(op="retry", select={"state": ["completed"]})["count"] == 1


def test_many_jobs_change_in_steps(client):
    client.ok(op="enqueue", jobs=[{"command": "true"} for _ in range(1201)])

    assert client.ok(op="cancel", select={})["count"] == 1201
    assert client.ok(op="count")["states"] == {"cancelled": 1201}
    assert client.ok(op="retry", select={"state": ["cancelled"]}, limit=700)["count"] == 700


def test_a_signal_is_passed_on(rig, client):
    job_id = client.add()
    assert client.error(op="signal", job=job_id, number=10)["code"] == "wrong_state"
    token = rig.start_job().attempt.token

    client.ok(op="signal", job=job_id, number=10)

    assert ("signal", token, 10) in rig.control.asked


def test_the_bound_of_the_pool_is_an_override(rig, client):
    client.ok(op="worker_start", count=3)

    assert client.ok(op="config_list", keys=["workers"])["settings"][0]["origin"] == "override"
    assert ("start_workers", 2) in rig.control.asked
    assert (rig.state / "overrides.json").exists()


def test_workers_stop_and_start_again(rig, client):
    client.ok(op="worker_stop", now=True)
    assert client.ok(op="config_list", keys=["workers"])["settings"][0]["value"] == 0
    assert ("interrupt_all",) in rig.control.asked

    client.ok(op="worker_start")

    assert client.ok(op="config_list", keys=["workers"])["settings"][0]["origin"] == "default"


def test_workers_start_again_as_many_as_there_were(rig, client):
    client.ok(op="worker_start", count=3)
    client.ok(op="worker_stop")
    client.ok(op="worker_start")

    assert client.ok(op="config_list", keys=["workers"])["settings"][0]["value"] == 3


def test_keys_are_set_and_unset(client):
    setting = client.ok(op="config_set", key="max-retries", value="5")["settings"][0]
    assert (setting["value"], setting["origin"]) == (5, "override")
    client.add(id="job1")
    assert client.ok(op="get", job="job1")["job"]["max_retries"] == 5

    assert client.ok(op="config_unset", key="max_retries")["settings"][0]["value"] == 3


def test_bad_keys_and_values_are_refused(client):
    assert client.error(op="config_set", key="max_retrys", value=1)["code"] == "no_such_key"
    assert client.error(op="config_set", key="max_retries", value="many")["code"] == "bad_config"


def test_status_counts_without_reading_jobs(client):
    client.add()
    client.add(delay=3600)

    status = client.ok(op="status")

    assert status["states"]["pending"] == 2
    assert status["next_due"] is not None
    assert status["phase"] == "running"
    assert status["connections"] == 1


def test_while_draining_questions_are_answered_and_changes_refused(rig, client):
    job_id = client.add()
    rig.control.draining = True

    assert client.error(op="enqueue", jobs=[{"command": "true"}])["code"] == "draining"
    assert client.error(op="cancel", select={"ids": [job_id]})["code"] == "draining"
    assert client.ok(op="get", job=job_id)
    assert client.ok(op="status")["phase"] == "draining"


def test_a_shutdown_is_answered_when_it_is_under_way(rig, client):
    assert client.ok(op="shutdown", mode="wait") == {}

    assert ("shutdown", "wait") in rig.control.asked


def test_a_new_program_takes_over_once_it_has_checked_itself(rig, client):
    assert client.ok(op="reexec") == {}

    assert rig.control.asked == [("reexec",)]


def test_a_new_program_that_fails_its_check_is_named_with_the_reason(rig, client):
    rig.reexec_fails = CheckFailedError("the new program cannot take over: exit code 78: no such key")

    assert client.error(op="reexec")["code"] == "check_failed"


def test_a_daemon_that_is_stopping_is_not_replaced(rig, client):
    rig.control.draining = True

    assert client.error(op="reexec")["code"] == "draining"


@pytest.mark.parametrize("number", [-1, 256, 10**30])
def test_exit_codes_that_cannot_be_are_refused(client, number):
    assert client.error(op="list", select={"exit_code": number})["path"] == "$.select.exit_code"


def test_one_request_names_ten_thousand_jobs_at_most(client):
    answer = client.ok(op="cancel", select={"ids": [f"job{number}" for number in range(10_000)]})
    refusal = client.error(op="cancel", select={"ids": ["x"] * 10_001})

    assert len(answer["refused"]) == 10_000
    assert (refusal["code"], refusal["path"]) == ("bad_request", "$.select.ids")


def test_what_is_sent_behind_a_change_of_the_configuration_goes_by_it(client):
    client.send(op="config_set", key="queues", value="open")
    client.send(op="config_list", keys=["queues"])
    client.send(op="enqueue", jobs=[{"command": "true", "queue": "new"}])
    answers = [client.receive() for _ in range(3)]

    assert [answers[place]["ok"]["settings"][0]["value"] for place in (0, 1)] == ["open", "open"]
    assert len(answers[2]["ok"]["jobs"]) == 1


def test_a_megabyte_of_bad_jobs_holds_nobody_up(rig, client):
    jobs = [{"commnad": "true", f"f{number}": 1} for number in range(20_000)]

    client.send(op="enqueue", jobs=jobs)
    begin = time.monotonic()
    rig.connect().ok(op="status")
    took = time.monotonic() - begin

    refused = client.receive()["ok"]["refused"]
    assert len(refused) == len(jobs)
    assert "did you mean" in refused[0]["message"]
    assert took < 2


@pytest.mark.parametrize(
    "request_",
    [
        {"op": "ping", "x" * 900_000: 1},
        {"op": "get", "job": "x" * 900_000},
        {"op": "x" * 900_000},
        {"op": "config_list", "keys": ["x" * 900_000]},
        {"op": "list", "select": {"command": "x" * 900_000}},
        {"op": "enqueue", "jobs": [{"command": "true", "x" * 900_000: 1}]},
    ],
)
def test_what_is_wrong_with_a_megabyte_is_told_in_a_few_words(client, request_):
    error = client.error(**request_)

    assert len(error["message"]) <= 1000
    assert len(error.get("path") or "") <= 256


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "3000-01-01T00:00:00Z"])
def test_a_time_that_no_clock_will_show_is_refused(client, moment):
    error = client.error(op="enqueue", jobs=[{"command": "true", "run_at": moment}])

    assert (error["code"], error["path"]) == ("bad_request", "$.jobs[0].run_at")


def test_a_key_that_comes_back_with_other_jobs_is_refused(client):
    client.ok(op="enqueue", request="k", jobs=[{"command": "true"}])

    other = client.error(op="enqueue", request="k", jobs=[{"command": "false"}])
    same = client.ok(op="enqueue", request="k", jobs=[{"command": "true"}])

    assert (other["code"], other["path"]) == ("duplicate_key", "$.request")
    assert [job["created"] for job in same["jobs"]] == [False]
    assert client.ok(op="count")["total"] == 1


def test_a_key_that_comes_back_with_other_staged_jobs_is_refused(client):
    client.ok(op="stage", key="s", jobs=[{"command": "true"}])
    client.ok(op="enqueue", request="k", staged="s", jobs=[{"command": "last"}])
    client.ok(op="stage", key="s", jobs=[{"command": "true"}, {"command": "more"}])

    assert client.error(op="enqueue", request="k", staged="s", jobs=[{"command": "last"}])["code"] == "duplicate_key"


def test_a_count_by_a_rare_condition_looks_at_all_pages(client):
    for _ in range(3):
        client.ok(op="enqueue", jobs=[{"command": "true"}] * 900 + [{"command": "false", "tags": {"rare": "yes"}}])
    client.ok(op="cancel", select={"ids": ["@last"]}, no_wait=True)

    assert client.ok(op="count", select={"tags": ["rare=yes"]}) == {
        "total": 3,
        "states": {"pending": 2, "cancelled": 1},
    }


def test_events_far_ahead_begin_with_the_next_one(client):
    client.add()

    assert client.ok(op="events", start=10**30) == {"next": 2, "stopped": False}


def test_a_priority_above_the_cap_is_refused(client):
    client.ok(op="config_set", key="max_priority", value=5)

    assert client.add(priority=5)
    assert client.error(op="enqueue", jobs=[{"command": "true", "priority": 6}])["path"] == "$.jobs[0].priority"


def test_there_is_an_end_to_the_queues_that_the_jobs_of_users_make(rig, client, monkeypatch):
    monkeypatch.setattr(submit, "MOST_QUEUES", 4)
    client.ok(op="config_set", key="queues", value="open")
    ann = rig.connect(peer=Peer(1000, "ann", Role.USER, "pid 1"))

    told = ann.ok(op="enqueue", jobs=[{"command": "true", "queue": f"q{number}"} for number in range(5)])

    assert len(told["jobs"]) == 3
    assert [refused["path"] for refused in told["refused"]] == ["$.jobs[3].queue", "$.jobs[4].queue"]
    ann.add(queue="q0")
    assert ann.error(op="enqueue", jobs=[{"command": "true", "queue": "more"}])["code"] == "bad_request"
    client.add(queue="more")


def test_open_queues_are_made_when_they_are_named(client):
    client.ok(op="config_set", key="queues", value="open")

    client.add(queue="fresh")

    assert [queue["name"] for queue in client.ok(op="status")["queues"]] == ["default", "fresh"]


def test_many_waiting_jobs_are_worth_a_warning(client):
    client.ok(op="enqueue", jobs=[{"command": "true"} for _ in range(1500)])

    # The count may be a second old.
    end = time.monotonic() + 10
    while not (warnings := client.ok(op="enqueue", jobs=[{"command": "true"}])["warnings"]):
        assert time.monotonic() < end

    assert "jobs wait in queue 'default' already" in warnings[0]


def test_jobs_of_the_same_request_are_not_ahead_of_it(client):
    first = client.ok(op="enqueue", jobs=[{"command": "true"} for _ in range(1500)])

    assert first["warnings"] == []


def test_many_jobs_are_read_in_parts_and_answered_as_one_request(client):
    good, wrong = {"command": "true"}, {"comand": "true"}
    jobs = [wrong if number % 3 == 0 else good for number in range(2500)]

    reply = client.ok(op="enqueue", jobs=jobs)

    assert len(reply["jobs"]) == 1666
    assert [one["index"] for one in reply["refused"]] == list(range(0, 2500, 3))
    assert reply["refused"][-1]["path"].startswith("$.jobs[2499]")
    # What may have been meant is told of the first hundred only, however they are cut.
    assert sum("did you mean" in one["message"] for one in reply["refused"]) == 100
    assert client.ok(op="count", select={})["total"] == 1666


def test_of_many_jobs_none_is_stored_when_all_were_to_be_and_one_is_wrong(client):
    client.send(op="enqueue", jobs=[{"command": "true"}] * 2000 + [{}], atomic=True)
    client.send(op="count", select={})

    assert (client.receive()["ok"]["jobs"], client.receive()["ok"]["total"]) == ([], 0)
