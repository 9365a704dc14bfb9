"""What users get wrong: each mistake is named, nothing of it is stored, and the daemon goes on."""

from __future__ import annotations

import json
import socket

import pytest

from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError

BAD_JOBS = {
    "invalid JSON": "{'id': 'x'}",
    "missing command": '{"id":"x"}',
    "empty command": '{"command":"  "}',
    "unknown field": '{"command":"true","priorty":1}',
    "wrong type": '{"command":["true"]}',
    "NUL byte": '{"command":"echo \\u0000"}',
    "empty id": '{"id":"","command":"true"}',
    "negative retries": '{"command":"true","max_retries":-1}',
    "not a number": '{"command":"true","backoff_base":NaN}',
    "relative path": '{"command":"true","cwd":"here"}',
    "a field of later versions": '{"command":"true","slots":2}',
}


@pytest.mark.parametrize("mistake", BAD_JOBS)
def test_a_bad_job_is_refused_with_2_and_stores_nothing(daemon: LiveDaemon, mistake: str) -> None:
    done = daemon.cli("enqueue", BAD_JOBS[mistake])

    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("Error: ")
    assert "Traceback" not in done.err
    assert daemon.counts() == {}


def test_a_field_that_is_nearly_right_is_told_how_it_is_written(daemon: LiveDaemon) -> None:
    done = daemon.cli("enqueue", BAD_JOBS["unknown field"])

    assert "priorty" in done.err
    assert "did you mean `priority`?" in done.err


def test_an_id_that_exists_is_refused_with_4_and_the_first_job_stays(daemon: LiveDaemon) -> None:
    daemon.cli("enqueue", '{"id":"job1","command":"echo first"}')

    done = daemon.cli("enqueue", '{"id":"job1","command":"echo second"}')

    assert done.code == 4, done
    assert "job1" in done.err
    daemon.wait_for_state("job1", "completed")
    assert daemon.output("job1") == b"first\n"


def test_a_queue_that_does_not_exist_is_refused_with_3(daemon: LiveDaemon) -> None:
    done = daemon.cli("enqueue", "--queue", "nowhere", "true")

    assert done.code == 3, done
    assert "nowhere" in done.err
    assert daemon.counts() == {}


UNKNOWN = [
    ("show", "nope"),
    ("logs", "nope"),
    ("cancel", "nope"),
    ("retry", "nope"),
    ("dlq", "show", "nope"),
    ("dlq", "retry", "nope"),
    ("dlq", "discard", "nope"),
    ("list", "nope"),
    ("undelete", "nope"),
    ("events", "--job", "nope"),
]


@pytest.mark.parametrize("words", UNKNOWN, ids=" ".join)
def test_an_id_that_does_not_exist_ends_with_3(daemon: LiveDaemon, words: tuple[str, ...]) -> None:
    done = daemon.cli(*words)

    assert done.code == 3, done
    assert "nope" in done.err


@pytest.mark.parametrize("words", [("wait", "nope"), ("logs", "--exit-status", "nope")], ids=" ".join)
def test_in_commands_that_end_as_the_job_does_an_unknown_id_ends_with_125(
    daemon: LiveDaemon, words: tuple[str, ...]
) -> None:
    done = daemon.cli(*words)

    assert done.code == 125, done
    assert "nope" in done.err


def test_a_running_job_cannot_be_retried(daemon: LiveDaemon, gate: Gate) -> None:
    daemon.cli("enqueue", "--id", "busy", gate.wait())
    daemon.wait_for_state("busy", "processing")

    done = daemon.cli("retry", "busy")
    gate.open()

    assert done.code == 4, done
    assert daemon.wait_for_state("busy", "completed")["attempts"] == 1


NEEDS_DAEMON = [("status",), ("list",), ("cancel", "x"), ("worker", "list"), ("ping",), ("enqueue", "true"), ("dlq",)]


@pytest.mark.parametrize("words", NEEDS_DAEMON, ids=" ".join)
def test_without_a_daemon_commands_end_with_69_and_say_how_to_start_it(new_daemon, words: tuple[str, ...]) -> None:
    daemon: LiveDaemon = new_daemon()

    done = daemon.cli(*words)

    assert done.code == 69, done
    assert "queuectl daemon start" in done.err


@pytest.mark.parametrize("words", [("run", "true"), ("wait", "x"), ("logs", "--exit-status", "x")], ids=" ".join)
def test_without_a_daemon_commands_that_end_as_the_job_does_end_with_125(new_daemon, words: tuple[str, ...]) -> None:
    daemon: LiveDaemon = new_daemon()

    done = daemon.cli(*words)

    assert done.code == 125, done
    assert "queuectl daemon start" in done.err


def ten_thousand_with_a_bad_one() -> str:
    lines = [json.dumps({"id": f"n{i}", "command": "true"}) for i in range(10_000)]
    lines[4999] = '{"id":"n4999","command":"true","priorty":1}'
    return "\n".join(lines) + "\n"


def test_one_bad_line_among_ten_thousand_is_named_and_the_others_are_stored(daemon: LiveDaemon) -> None:
    daemon.cli("worker", "stop")

    done = daemon.cli("enqueue", "-", stdin=ten_thousand_with_a_bad_one())

    assert done.code == 1, done.err
    assert "line 5000" in done.err
    assert "priorty" in done.err
    assert done.out.split() == [f"n{i}" for i in range(10_000) if i != 4999]
    assert daemon.counts() == {"pending": 9999}


def test_with_atomic_one_bad_line_among_ten_thousand_stores_none(daemon: LiveDaemon) -> None:
    daemon.cli("worker", "stop")

    done = daemon.cli("enqueue", "--atomic", "-", stdin=ten_thousand_with_a_bad_one())

    assert done.code in {1, 2}, done.err
    assert "line 5000" in done.err
    assert done.out == ""
    assert daemon.counts() == {}


# On the wire.


def test_a_line_of_two_megabytes_is_refused_and_the_connection_lives(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.raw(b'{"id":1,"op":"ping","x":"' + b"x" * 2_000_000 + b'"}\n')
        assert wire.line()["error"]["code"] == "line_too_long"

        assert wire.call("ping")["pid"]


def test_half_a_line_and_then_silence_disturbs_nobody(daemon: LiveDaemon) -> None:
    with daemon.wire() as silent, daemon.wire() as other:
        silent.raw(b'{"id":1,"op":"pi')

        assert other.call("ping")["pid"]

        silent.raw(b'ng"}\n')
        assert silent.line()["ok"]["pid"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\xff\xfe\x00\x01", "bad_json"),
        (b"\x00" * 100, "bad_json"),
        (b"[" * 5000, "bad_request"),
        (b"hello?", "bad_json"),
        (b"[]", "bad_request"),
        (b'{"op":"ping"}', "bad_request"),
        (b'{"id":1,"op":"fly"}', "unknown_op"),
        (b'{"id":1,"op":"ping","extra":1}', "bad_request"),
        (b'{"id":1,"op":"get","job":5}', "bad_request"),
        (b'{"id":1,"op":"get","job":"\\ud800"}', "bad_json"),
    ],
)
def test_rubbish_is_answered_and_the_connection_lives(daemon: LiveDaemon, line: bytes, code: str) -> None:
    with daemon.wire() as wire:
        wire.raw(line + b"\n")
        answer = wire.line()

        assert answer["error"]["code"] == code
        assert wire.call("ping")["pid"]


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(daemon: LiveDaemon) -> None:
    with daemon.wire() as watcher:
        before = watcher.call("status")["connections"]
        for _ in range(20):
            with daemon.wire() as wire:
                wire.raw(b'{"id":1,"op":"events","follow":true}\n{"id":2,"op":"enqueue","jobs":[{"comm')

        wait_for(lambda: watcher.call("status")["connections"] == before, "the daemon has let go of them")
        assert daemon.counts() == {}


def test_over_tcp_nothing_is_answered_before_the_right_token(new_daemon, home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = home / "token"
    token.write_text("correct-horse-battery-staple\n")
    token.chmod(0o600)
    daemon: LiveDaemon = new_daemon(tcp=f"127.0.0.1:{port}", token_file=str(token)).start()
    wrong = home / "wrong"
    wrong.write_text("incorrect\n")
    wrong.chmod(0o600)
    url = f"tcp://127.0.0.1:{port}"

    right = daemon.cli("-H", url, "--token-file", str(token), "ping")
    refused = daemon.cli("-H", url, "--token-file", str(wrong), "ping")
    without = daemon.cli("-H", url, "ping")

    assert right.code == 0, right
    assert refused.code == 77, refused
    assert without.code == 77, without


def test_with_a_token_for_all_to_read_a_daemon_starts_nothing(new_daemon, home) -> None:
    token = home / "token"
    token.write_text("correct-horse-battery-staple\n")
    token.chmod(0o644)
    daemon: LiveDaemon = new_daemon(tcp="127.0.0.1:0", token_file=str(token))

    daemon.launch()

    assert daemon.process is not None
    assert daemon.process.wait(20) == 78
    assert "can be read by everybody" in daemon.log_tail()
    assert [line["event"] for line in daemon.log_lines()] == ["daemon.failed"]
    assert processes.of(home) == []


def test_an_error_names_its_place_in_a_request(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire, pytest.raises(RefusedError) as refused:
        wire.call("list", select={"sate": []})

    assert refused.value.code == "bad_request"
    assert "sate" in f"{refused.value.path} {refused.value.message}"
