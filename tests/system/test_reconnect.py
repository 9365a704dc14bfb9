"""Whoever waits for a job goes on when the daemon was re-executed, restarted, or killed and started again."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.system.gate import Gate
from tests.system.livedaemon import CLI, LiveDaemon
from tests.system.waiting import wait_for

PATIENT = ("queuectl: waiting for queuectld at ", "queuectl: queuectld is back")
Renewal = Callable[[LiveDaemon], None]


def _reexec(daemon: LiveDaemon) -> None:
    done = daemon.cli("daemon", "reexec")
    assert done.code == 0, done


def _restart(daemon: LiveDaemon) -> None:
    done = daemon.cli("daemon", "restart")
    assert done.code == 0, done


def _crash(daemon: LiveDaemon) -> None:
    daemon.again()


renewals = pytest.mark.parametrize(
    "renew", [pytest.param(way, id=way.__name__.strip("_")) for way in (_reexec, _restart, _crash)]
)


@contextmanager
def connected(daemon: LiveDaemon, *lines: tuple[str, ...]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start command lines; go on when all of them have their stream."""
    with daemon.wire() as wire:
        before = wire.call("status")["connections"]
        clients = [daemon.spawn_cli(*words) for words in lines]
        wait_for(lambda: wire.call("status")["connections"] == before + len(lines), "all of them are connected")
    yield clients
    for client in clients:
        client.kill()
        client.communicate()


def ended(client: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Return how it ended, and what it said, but for how long all this takes."""
    out, err = client.communicate(timeout=40)
    said = [line for line in err.decode().splitlines(keepends=True) if not line.startswith(PATIENT)]
    return client.returncode, out.decode(), "".join(said)


@renewals
def test_each_of_those_who_wait_sees_all_of_it_once(daemon: LiveDaemon, renew: Renewal, home) -> None:
    gates = [Gate(home / f"gate{number}") for number in range(2)]
    # The first attempt fails after the first renewal, the second one says more after the second.
    said = "echo out $QUEUECTL_ATTEMPT; echo err $QUEUECTL_ATTEMPT >&2"
    waits = f"until [ -e {home}/gate$(($QUEUECTL_ATTEMPT - 1)) ]; do sleep 0.02; done"
    retry = ("--max-retries", "1", "--backoff-base", "0.1")
    daemon.cli("enqueue", "--id", "job", *retry, f"{said}; {waits}; {said}; exit 7")
    daemon.cli("enqueue", "--id", "other", f"echo other; {gates[1].wait()}; echo over")
    lines = [("logs", "-f", "job"), ("logs", "-f", "other", "job"), ("wait", "job"), ("wait", "job", "other")]
    lines += [("wait", "--state", "processing", "--json"), ("events", "-f", "--from", "1", "--limit", "7", "--json")]
    wait_for(lambda: daemon.output("job").count(b"1") == 2 and daemon.output("other"), "both have said something")
    with connected(daemon, *lines) as clients:
        renew(daemon)
        gates[0].open()
        wait_for(lambda: daemon.output("job").count(b"2") == 2, "the second attempt has said something")
        renew(daemon)
        gates[1].open()
        logs, both, one, two, state, events = (ended(client) for client in clients)

    twice = [f"{stream} {n}\n" for n in (1, 2) for stream in ("out", "err") for _ in range(2)]
    assert logs == (0, "".join(twice[0:2] + twice[4:6]), "".join(twice[2:4] + twice[6:8]))
    assert sorted(both[1].splitlines()) == sorted(
        [*("job   | " + line.strip() for line in twice if "out" in line), "other | other", "other | over"]
    )
    assert (one[0], two[0]) == (7, 1)
    assert (state[0], sorted(job["id"] for job in json.loads(state[1]))) == (1, ["job", "other"])
    assert [json.loads(line)["number"] for line in events[1].splitlines()] == list(range(1, 8))


@renewals
def test_a_run_shows_all_of_it_once_and_its_failure_counts_as_seen(
    daemon: LiveDaemon, renew: Renewal, gate: Gate
) -> None:
    words = ("run", "--id", "job", "--max-retries", "1", "--backoff-base", "0.1")
    with connected(daemon, (*words, f"echo $QUEUECTL_ATTEMPT; {gate.wait()}; echo over; exit 7")) as (run,):
        assert run.stdout is not None
        assert run.stdout.readline() == b"1\n"
        renew(daemon)
        gate.open()
        code, out, err = ended(run)

    assert (code, out) == (7, "over\n2\nover\n")
    assert "attempt 1 failed" in err
    assert daemon.cli("dlq", "list", "--json").out.strip() == "[]"


def test_an_end_that_nobody_was_there_to_tell_is_delivered(daemon: LiveDaemon, gate: Gate) -> None:
    with connected(daemon, ("run", "--id", "job", f"{gate.wait()}; echo over; exit 7")) as (run,):
        daemon.wait_for_state("job", "processing")
        wait_for(lambda: daemon.history("job")[0]["pid"], "the command has started")
        daemon.kill()
        gate.open()
        wait_for(lambda: list((daemon.state / "outcomes").iterdir()), "the worker has written down how it ended")
        daemon.start()
        code, out, _ = ended(run)

    assert (code, out) == (7, "over\n")
    assert daemon.cli("dlq", "list", "--json").out.strip() == "[]"


@renewals
def test_a_signal_right_after_it_goes_to_the_command(daemon: LiveDaemon, renew: Renewal) -> None:
    command = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done"
    with connected(daemon, ("run", "--id", "job", command)) as (run,):
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        renew(daemon)
        run.send_signal(signal.SIGINT)
        code, out, err = ended(run)

    assert (code, out) == (5, "caught\n"), err
    assert daemon.state_of("job") == "dead"


def test_a_signal_while_it_is_away_comes_to_the_command_when_it_is_back(daemon: LiveDaemon) -> None:
    command = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done"
    with connected(daemon, ("run", "--id", "job", command)) as (run,):
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == b"ready\n"
        daemon.kill()
        run.send_signal(signal.SIGINT)
        said = (line for line in run.stderr if not line.startswith(b"queuectl: waiting for queuectld"))
        assert b"SIGINT goes to job job" in next(said)
        daemon.start()
        code, out, err = ended(run)

    assert (code, out) == (5, "caught\n"), err


def test_a_daemon_that_was_stopped_is_not_waited_for_long(daemon: LiveDaemon) -> None:
    daemon.cli("enqueue", "--in", "1h", "--id", "job", "true")
    lines = (("wait", "job"), ("logs", "-f", "job"), ("events", "-f"))
    with connected(daemon, *lines) as clients:
        assert daemon.cli("daemon", "stop").code == 0
        told = [ended(client) for client in clients]

    assert [code for code, _, _ in told] == [125, 69, 69]
    for _, _, err in told:
        assert "was stopped" in err
        assert "queuectl daemon start" in err


def test_a_run_brings_its_killed_daemon_back_where_nobody_else_does(daemon: LiveDaemon, gate: Gate) -> None:
    daemon.env["QUEUECTL_AUTOSTART"] = "1"
    with connected(daemon, ("run", "--id", "job", f"{gate.wait()}; exit 7")) as (run,):
        daemon.wait_for_state("job", "processing")
        daemon.kill()
        gate.open()
        code, _, err = ended(run)

    assert code == 7, err
    assert "Started queuectld" in err


def test_a_bulk_goes_on_after_each_of_many_crashes_and_nothing_is_doubled_or_lost(new_daemon) -> None:
    daemon: LiveDaemon = new_daemon(workers=1).start()
    daemon.cli("worker", "stop")
    names = [f"n{number}" for number in range(30_000)]
    lines = "".join(f'{{"id":"{name}","command":"true"}}\n' for name in names)
    with subprocess.Popen(
        [*CLI, "enqueue", "-"], env=daemon.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as bulk:
        assert bulk.stdin is not None
        assert bulk.stdout is not None
        feeder = threading.Thread(target=_feed, args=(bulk, lines.encode()))
        feeder.start()
        # It is killed each time when some more have been acknowledged.
        told = []
        for crash in range(4):
            told += [line.decode().strip() for line in itertools.islice(bulk.stdout, 5_000)]
            assert len(told) == 5_000 * (crash + 1)
            daemon.again()
        told += [line.decode().strip() for line in bulk.stdout]
        feeder.join()
        assert bulk.stderr is not None
        err = bulk.stderr.read()

    assert bulk.returncode == 0, err
    assert told == names
    with daemon.wire() as wire:
        assert wire.ids() == names


def _feed(bulk: subprocess.Popen[bytes], data: bytes) -> None:
    assert bulk.stdin is not None
    with bulk.stdin:
        bulk.stdin.write(data)


@renewals
def test_a_slot_that_was_lent_is_lent_again(new_daemon, renew: Renewal, gate: Gate) -> None:
    daemon: LiveDaemon = new_daemon(workers=1).start()
    inner = f"queuectl run --id first '{gate.wait()}' && queuectl run --id second 'exit 7'"
    with connected(daemon, ("run", "--id", "outer", inner)) as (run,):
        daemon.wait_for_state("first", "processing")
        renew(daemon)
        gate.open()
        code, _, err = ended(run)

    assert code == 7, err
    assert [daemon.wait_for_state(name, "dead", "completed")["attempts"] for name in ("outer", "first", "second")] == [
        1,
        1,
        1,
    ]


def test_a_daemon_that_is_replaced_tells_so_in_json_and_a_bad_configuration_changes_nothing(daemon: LiveDaemon) -> None:
    before = daemon.pid

    done = daemon.cli("daemon", "reexec", "--json")
    daemon.configure(max_retries="many")
    refused = daemon.cli("daemon", "reexec")

    told = json.loads(done.out)
    assert (told["pid"], told["previous"]["pid"], told["version"]) == (before, before, told["previous"]["version"])
    assert refused.code == 1
    assert "`max_retries` cannot be 'many'" in refused.err
    assert "The daemon that runs goes on" in refused.err
    assert daemon.pid == before


def test_the_doctor_of_a_real_daemon(daemon: LiveDaemon) -> None:
    well = daemon.cli("doctor", "--json")
    daemon.configure(max_retries="many")
    ill = daemon.cli("doctor", "--json")
    daemon.kill()
    dead = daemon.cli("doctor", "--json")

    told = [{row["check"]: row for row in json.loads(ran.out)} for ran in (well, ill, dead)]
    assert (well.code, ill.code, dead.code) == (0, 1, 1), (well, ill, dead)
    assert [row["check"] for row in told[0].values() if row["state"] == "fail"] == []
    assert told[0].keys() >= {"daemon", "isolation", "loop", "lock", "database", "configuration", "disk"}
    assert str(daemon.process and daemon.process.pid) in told[0]["lock"]["message"]
    assert "`max_retries` cannot be 'many'" in told[1]["configuration"]["message"]
    assert "nothing listens there" in told[2]["socket"]["message"]
