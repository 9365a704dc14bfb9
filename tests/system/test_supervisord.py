"""Under a real supervisord, with the section that is shipped: kept up, stopped, killed, and never there twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.log_schema import check_log
from tests.system.gate import Gate
from tests.system.livedaemon import LiveDaemon
from tests.system.supervisord import SECTION, Supervisord, daemons, missing
from tests.system.test_log_file import LOGROTATE, finished
from tests.system.waiting import wait_for

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def new(new_daemon: Callable[..., LiveDaemon]) -> Iterator[Callable[..., Supervisord]]:
    """A supervisord with this configuration of the daemon, not started. At the end all it logged was pure JSON."""
    made: list[Supervisord] = []

    def make(**config: object) -> Supervisord:
        made.append(Supervisord(new_daemon(**config)))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.kill()
        one.daemon.clean()
        check_log(one.daemon.log.read_bytes())


def start_job(keeper: Supervisord, gate: Gate, name: str) -> None:
    with keeper.daemon.wire() as wire:
        wire.enqueue(gate.wait(), id=name)
    keeper.daemon.wait_for_state(name, "processing")
    keeper.daemon.worker_of(name)


def test_stop_drains_start_begins_again_and_restart_is_a_stop(new, gate: Gate) -> None:
    keeper = new(shutdown_grace=0.1).started()
    assert keeper.state() == "RUNNING"
    first = keeper.pid()
    start_job(keeper, gate, "job1")

    assert "stopped" in keeper.ctl("stop", "queuectld")

    assert keeper.state() == "STOPPED"
    assert daemons(keeper.daemon) == []
    assert "started" in keeper.ctl("start", "queuectld")
    wait_for(keeper.answers, "the daemon answers")
    # It was ended, and begins again.
    keeper.daemon.wait_for_state("job1", "processing")
    wait_for(lambda: len(keeper.daemon.history("job1")) == 2, "it has begun again")
    assert keeper.daemon.history("job1")[0]["reason"] == "interrupted"

    assert "started" in keeper.ctl("restart", "queuectld")
    wait_for(keeper.answers, "the daemon answers")
    gate.open()
    assert keeper.daemon.wait_for_state("job1", "completed")["attempts"] == 3
    assert [one["reason"] for one in keeper.daemon.history("job1")][:2] == ["interrupted", "interrupted"]
    assert len({first, keeper.pid()}) == 2
    keeper.end()
    assert daemons(keeper.daemon) == []


def test_a_daemon_that_is_killed_is_started_again_and_takes_its_jobs_over(new, gate: Gate) -> None:
    keeper = new().started()
    start_job(keeper, gate, "job1")
    first = keeper.pid()

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: keeper.state() == "RUNNING" and keeper.pid() != first, "it is started again")
    wait_for(keeper.answers, "the daemon answers")
    gate.open()
    assert keeper.daemon.wait_for_state("job1", "completed")["attempts"] == 1
    assert "not expected" in keeper.told()


def test_a_daemon_that_outlives_its_supervisord_stays_the_only_one(new, gate: Gate) -> None:
    keeper = new().started()
    start_job(keeper, gate, "job1")
    first = keeper.pid()

    keeper.kill()
    assert keeper.answers()
    keeper.start()

    wait_for(lambda: keeper.state() == "EXITED", "the second one gives up")
    wait_for(lambda: "exit status 75; expected" in keeper.told(), "with the code for that")
    # It stays down: a process that is started again says so.
    assert keeper.told().count("spawned: 'queuectld'") == 2
    assert daemons(keeper.daemon) == [first]
    gate.open()
    keeper.daemon.wait_for_state("job1", "completed")

    # And this is the way out.
    assert keeper.daemon.cli("daemon", "stop", "--leave").code == 0
    keeper.ctl("start", "queuectld")
    wait_for(keeper.answers, "the daemon answers")
    assert daemons(keeper.daemon) == [keeper.pid()] != [first]


def test_a_bad_configuration_and_a_damaged_database_stay_down_until_they_are_mended(new) -> None:
    keeper = new()
    keeper.daemon.configure(wrokers=2)
    keeper.start()

    wait_for(lambda: "exit status 78; expected" in keeper.told(), "it ends with 78")
    assert keeper.state() == "EXITED"
    assert "did you mean `workers`?" in keeper.daemon.log_lines()[-1]["error"]

    keeper.daemon.configure(workers=2)
    database = keeper.daemon.state / "queue.db"
    keeper.daemon.state.mkdir(mode=0o700)
    database.write_bytes(b"this is no database at all" * 1000)
    keeper.ctl("start", "queuectld")
    wait_for(lambda: "exit status 65; expected" in keeper.told(), "it ends with 65")
    assert keeper.state() == "EXITED"

    database.unlink()
    keeper.ctl("start", "queuectld")
    wait_for(keeper.answers, "the daemon answers")
    assert keeper.told().count("spawned: 'queuectld'") == 3


def test_a_disk_that_fails_is_tried_again_until_it_does_not(new) -> None:
    keeper = new()
    keeper.daemon.state.mkdir()
    # Refused with 74, as whatever the host may mend.
    keeper.daemon.state.chmod(0o777)
    keeper.start()
    wait_for(lambda: keeper.told().count("exit status 74; not expected") >= 2, "it is tried again")

    keeper.daemon.state.chmod(0o700)

    wait_for(keeper.answers, "the daemon answers")
    assert keeper.state() == "RUNNING"


@pytest.mark.parametrize("how", ["reexec", "restart"])
def test_another_program_takes_over_in_the_same_process_and_jobs_go_on(new, gate: Gate, how: str) -> None:
    keeper = new().started()
    start_job(keeper, gate, "job1")
    first = keeper.pid()
    with keeper.daemon.wire() as wire:
        before = wire.call("status")
    assert before["service_manager"] == "supervisord"

    done = keeper.daemon.cli("daemon", how)

    assert done.code == 0, done
    with keeper.daemon.wire() as wire:
        after = wire.call("status")
    assert (after["pid"], keeper.state(), keeper.pid()) == (first, "RUNNING", first)
    assert after["started_at"] > before["started_at"]
    assert after["service_manager"] == "supervisord"
    gate.open()
    assert keeper.daemon.wait_for_state("job1", "completed")["attempts"] == 1


def test_a_stop_by_hand_stays_one(new) -> None:
    keeper = new().started()

    assert keeper.daemon.cli("daemon", "stop").code == 0

    wait_for(lambda: keeper.state() == "EXITED", "it is down")
    assert "exit status 0; expected" in keeper.told()
    assert daemons(keeper.daemon) == []


def test_jobs_and_workers_know_nothing_of_supervisord(new) -> None:
    keeper = new().started()
    daemon = keeper.daemon
    told = {name for name in environment(keeper.pid()) if name.startswith("SUPERVISOR_")}
    assert "SUPERVISOR_ENABLED" in told

    for words in ([], ["--clean-env"]):
        done = daemon.cli("run", *words, 'env; exec sh -c \'tr "\\0" "\\n" </proc/$PPID/environ\'')
        assert done.code == 0, done
        assert "PATH=" in done.out
        assert "SUPERVISOR_" not in done.out
    for worker in daemon.workers():
        assert not {name for name in environment(worker["pid"]) if name.startswith("SUPERVISOR_")}


def environment(pid: int) -> list[str]:
    return [line.partition(b"=")[0].decode() for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]


@pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed; Debian has it in logrotate")
@pytest.mark.parametrize("writer", ["supervisord", "queuectld"])
def test_the_real_logrotate_turns_the_file_whoever_writes_it(new, home: Path, writer: str) -> None:
    own = home / "logs" / "queuectld.jsonl"
    own.parent.mkdir(mode=0o755)
    keeper = new(**({"log_file": str(own)} if writer == "queuectld" else {})).started()
    daemon = keeper.daemon
    log = own if writer == "queuectld" else daemon.log
    rules = home / "logrotate.conf"
    rules.write_text(shipped_rules(writer, log))
    rules.chmod(0o644)

    with daemon.wire() as wire:
        jobs = [wire.enqueue("true") for _ in range(60)]
        # supervisorctl finds its supervisord by the configuration in the directory where it is.
        turn = [LOGROTATE, "--force", "-s", rules.with_suffix(".state"), rules]
        subprocess.run(turn, check=True, timeout=60, cwd=home)

        def written() -> bool:
            jobs.append(wire.enqueue("true"))
            return log.exists() and bool(log.read_bytes())

        wait_for(written, "the new file is written to", every=0.05)
        wire.call("wait", select={"ids": jobs})
    keeper.end()

    old = log.with_name(f"{log.name}.1")
    lines = check_log(old.read_bytes() + log.read_bytes())
    assert finished(lines) == sorted(jobs)


def shipped_rules(writer: str, log: Path) -> str:
    place = "/var/log/supervisor/queuectld.jsonl" if writer == "supervisord" else "/var/log/queuectl/*.jsonl"
    shipped = (SECTION.parents[1] / "logrotate" / "queuectl").read_text()
    (text,) = re.findall(rf"^{re.escape(place)} .*?^}}", shipped, re.DOTALL | re.MULTILINE)
    text = text.replace(place, str(log)).replace(" root adm", "")
    return text.replace("/run/supervisord.pid", str(log.parent / "supervisord.pid")) + "\n"
