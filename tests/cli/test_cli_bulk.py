"""Jobs by the thousand: lines, batches, resending, all or none."""

from __future__ import annotations

import json

from queuectl_cli.forms import Line
from queuectl_cli.submission import batches
from tests.cli.scripted import HANG_UP, enqueued


def lines_of(count, **special):
    return [
        special.get(f"line{number}", json.dumps({"id": f"j{number}", "command": "true"}))
        for number in range(1, count + 1)
    ]


def refusing(word, message):
    def answer(request):
        jobs, refused = [], []
        for place, spec in enumerate(request["jobs"]):
            if word in spec:
                refused.append({"index": place, "code": "bad_request", "message": message, "path": f"$.{word}"})
            else:
                jobs.append({"id": spec["id"], "state": "pending", "created": True, "run_at": None})
        if request.get("atomic") and refused:
            jobs = []
        return {"ok": {"jobs": jobs, "refused": refused, "warnings": []}}

    return answer


BAD = '{"id":"j17","command":"true","priorty":1}'
MESSAGE = "unknown field `priorty` (did you mean `priority`?)"


def test_one_bad_line_among_ten_thousand_is_named_and_the_others_are_stored(daemon, call, stdin):
    daemon.answers["enqueue"] = refusing("priorty", MESSAGE)
    stdin("\n".join(lines_of(10_000, line17=BAD)).encode())

    called = call("enqueue", "-")

    assert called.status == 1
    assert called.err.splitlines()[0] == f"line 17: {MESSAGE}"
    assert "1 line refused, 9,999 jobs stored" in called.err
    assert len(called.out.splitlines()) == 9_999
    assert len(daemon.of("enqueue")) > 1
    assert len({request["request"] for request in daemon.of("enqueue")}) == len(daemon.of("enqueue"))


def test_a_line_that_is_not_json_is_named_and_the_others_are_stored(daemon, call, stdin):
    stdin("\n".join(lines_of(5, line2="{oops", line4="[1]")).encode())

    called = call("enqueue", "-")

    assert called.status == 1
    assert called.out.split() == ["j1", "j3", "j5"]
    assert called.err.startswith("line 2: not JSON: ")
    assert "line 4: a job is a JSON object" in called.err


def test_with_atomic_a_bad_line_stores_none(daemon, call, stdin):
    stdin("\n".join(lines_of(5, line2="{oops")).encode())

    called = call("enqueue", "--atomic", "-")

    assert (called.status, called.out, daemon.of("enqueue")) == (1, "", [])
    assert "nothing was stored" in called.err


def test_with_atomic_more_than_a_request_holds_is_staged_and_committed_at_once(daemon, call, stdin):
    def committed(request):
        assert request["staged"]
        jobs = [{"id": f"j{number}", "state": "pending", "created": True, "run_at": None} for number in range(1, 5001)]
        return {"ok": {"jobs": jobs, "refused": [], "warnings": []}}

    daemon.answers["enqueue"] = committed
    stdin("\n".join(lines_of(5000)).encode())

    called = call("enqueue", "--atomic", "-")

    assert called.status == 0
    assert len(called.out.split()) == 5000
    assert sum(len(request["jobs"]) for request in daemon.of("stage")) == 5000
    assert len(daemon.of("enqueue")) == 1


def test_with_atomic_the_line_that_the_daemon_refuses_is_named(daemon, call, stdin):
    daemon.answers["enqueue"] = {"error": {"code": "bad_request", "message": MESSAGE, "path": "$.jobs[16].priorty"}}
    stdin("\n".join(lines_of(20, line17=BAD)).encode())

    called = call("enqueue", "--atomic", "-")

    assert (called.status, called.out) == (1, "")
    assert called.err.startswith(f"line 17: {MESSAGE}")


def test_in_json_the_answer_is_an_array_and_the_refusals_are_one_object(daemon, call, stdin):
    daemon.answers["enqueue"] = refusing("priorty", MESSAGE)
    stdin("\n".join(lines_of(20, line17=BAD)).encode())

    called = call("enqueue", "--json", "-")

    assert len(called.json) == 19
    assert json.loads(called.err)["error"]["refused"] == [
        {"line": 17, "code": "bad_request", "message": MESSAGE, "path": "$.priorty"}
    ]


def test_after_a_lost_connection_the_same_requests_are_sent_again(daemon, call, stdin):
    left = iter([HANG_UP])

    def answer(request):
        return [HANG_UP] if next(left, None) else enqueued(request)

    daemon.answers["enqueue"] = answer
    stdin("\n".join(lines_of(5000)).encode())

    called = call("enqueue", "-")

    assert called.status == 0
    assert called.out.split() == [f"j{number}" for number in range(1, 5001)]
    keys = [request["request"] for request in daemon.of("enqueue")]
    assert keys[0] in keys[1:]
    assert len(set(keys)) == 3


def test_a_single_job_is_sent_again_under_the_same_key(daemon, call):
    left = iter([HANG_UP])
    daemon.answers["enqueue"] = lambda request: [HANG_UP] if next(left, None) else enqueued(request)

    assert call("enqueue", "--id", "a", "true").out == "a\n"

    first, second = daemon.of("enqueue")
    assert first["request"] == second["request"]


def test_lines_are_shell_commands_with_the_flags_of_all(daemon, call, tmp_path):
    (tmp_path / "commands").write_text("echo a\n\n# a remark\necho b && false\n")

    assert call("enqueue", "--lines", "--queue", "q", f"@{tmp_path}/commands").status == 0

    assert daemon.of("enqueue")[0]["jobs"] == [
        {"command": "echo a", "queue": "q"},
        {"command": "echo b && false", "queue": "q"},
    ]


def test_a_daemon_that_is_stopping_ends_a_bulk_with_75_and_says_how_far_it_came(daemon, call, stdin):
    answers = iter([enqueued, lambda _request: {"error": {"code": "draining", "message": "it is stopping"}}])
    current = {"answer": None}

    def answer(request):
        current["answer"] = next(answers, current["answer"])
        return current["answer"](request)

    daemon.answers["enqueue"] = answer
    stdin("\n".join(lines_of(5000)).encode())

    called = call("enqueue", "-")

    assert called.status == 75
    assert "2,000 jobs had been stored before" in called.err


def test_a_disk_that_fills_up_within_a_request_ends_a_bulk_with_75_and_the_ids_of_what_was_stored(daemon, call, stdin):
    def answer(request):
        reply = enqueued(request)
        full = {"code": "disk_full", "message": "the disk is full"}
        refused = [{"index": index, **full} for index in range(700, len(request["jobs"]))]
        return {"ok": {**reply["ok"], "jobs": reply["ok"]["jobs"][:700], "refused": refused}}

    daemon.answers["enqueue"] = answer
    stdin("\n".join(lines_of(1500)).encode())

    called = call("enqueue", "-")

    assert called.status == 75
    assert called.out.split() == [f"j{number}" for number in range(1, 701)]
    assert called.err.count("the disk is full") == 1
    assert "700 jobs had been stored before" in called.err


def test_batches_hold_no_more_than_fits_and_lose_nothing():
    lines = [Line(number, {"command": "x" * (number % 300)}, None) for number in range(1, 5001)]
    bad = []

    found = list(batches(lines, 10_000, {}, bad))

    assert [number for batch in found for number, _ in batch] == list(range(1, 5001))
    assert all(sum(len(job) + 1 for _, job in batch) <= 10_001 for batch in found)
    assert bad == []


def test_a_job_longer_than_a_line_is_refused_alone():
    bad = []

    found = list(batches([Line(1, {"command": "x" * 99}, None), Line(2, {"command": "y"}, None)], 50, {}, bad))

    assert [number for batch in found for number, _ in batch] == [2]
    assert bad[0].number == 1
