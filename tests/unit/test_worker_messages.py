"""What the daemon believes of what comes over the socket of its workers, which any command of its user can find."""

from __future__ import annotations

import json

import msgspec
import pytest

from queuectld.protocol.worker_messages import Ended, decode_from_worker

HELLO = {
    "msg": "hello",
    "protocol": 2,
    "store": "0" * 32,
    "name": "w1",
    "pid": 10,
    "pid_start": 20,
    "state": {"type": "idle"},
}
OUTCOME = {"reason": "exited", "ended_at": 1_800_000_000.0, "exit_code": 7, "output_bytes": 5, "message": "x"}


def ended(**changes):
    return json.dumps({"msg": "ended", "token": 1, "outcome": OUTCOME | changes}).encode()


def test_an_end_is_read():
    message = decode_from_worker(ended())

    assert isinstance(message, Ended)
    assert message.outcome.exit_code == 7


@pytest.mark.parametrize(
    "change",
    [
        {"exit_code": 10**30},
        {"exit_code": 256},
        {"exit_code": -1},
        {"signal": 0},
        {"signal": 65},
        {"ended_at": 1e308},
        {"ended_at": -1.0},
        {"started_at": 1e20},
        {"cpu_seconds": -1.0},
        {"cpu_seconds": 1e300},
        {"peak_memory": 2**63},
        {"output_bytes": -1},
        {"output_missing": 10**30},
        {"pid": -1},
        {"reason": "boredom"},
        {"message": 5},
    ],
)
def test_an_end_that_no_store_could_take_or_no_command_could_have_is_refused(change):
    with pytest.raises(msgspec.MsgspecError):
        decode_from_worker(ended(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "two\nlines"},
        {"name": "x" * 65},
        {"name": ""},
        {"pid": -1},
        {"pid_start": 10**30},
        {"state": {"type": "running", "token": 2**63}},
        {"state": {"type": "running", "token": -1}},
    ],
)
def test_a_hello_that_no_worker_says_is_refused(change):
    with pytest.raises(msgspec.MsgspecError):
        decode_from_worker(json.dumps(HELLO | change).encode())


@pytest.mark.parametrize(
    "line",
    [
        b'{"msg":"beat","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"msg":"hello","name":"\xff"}',
        b'{"msg":"hello","name":"\\ud800"}',
        b"",
        b"[]",
    ],
)
def test_rubbish_is_an_error_of_one_kind(line):
    with pytest.raises(msgspec.MsgspecError):
        decode_from_worker(line)
