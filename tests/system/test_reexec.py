"""Another program takes over in the same process: checked first, nothing lost, nobody slips in, jobs notice nothing."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from queuectld.store.migrate import MIGRATIONS
from tests.system import processes
from tests.system.gate import Gate
from tests.system.installation import Installation
from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError
from tests.system.witness import Witness

# What a double-forked process without marker or session of its job does.
ESCAPE = "(cd /; setsid env -i sh -c 'trap \"\" TERM; echo $$ >{}; while :; do sleep 0.1; done' &)"


@pytest.fixture
def installed(new_daemon: Callable[..., LiveDaemon]) -> tuple[LiveDaemon, Installation]:
    """A daemon that runs, and the script that it was started by."""
    daemon = new_daemon(kill_after=0.2)
    installation = Installation(daemon)
    return daemon.start(), installation


def reexec(daemon: LiveDaemon) -> None:
    """Have the program replaced; return when the old one has hung up."""
    with daemon.wire() as wire:
        assert wire.call("reexec") == {}
        with pytest.raises(ConnectionError):
            wire.line()


def in_between(daemon: LiveDaemon, installation: Installation) -> None:
    """Have the program replaced by one that does not begin yet."""
    installation.install_slow()
    reexec(daemon)
    wait_for(installation.arrived.exists, "the new program is there")


def idle_for(daemon: LiveDaemon) -> float:
    """Return for how many seconds all workers have been idle."""
    workers = daemon.workers()
    if {worker["phase"] for worker in workers} != {"idle"}:
        return 0.0
    return min(time.time() - datetime.fromisoformat(worker["since"]).timestamp() for worker in workers)


def test_process_socket_and_running_jobs_stay(daemon: LiveDaemon, witness: Witness, gate: Gate) -> None:
    with daemon.wire() as wire:
        wire.enqueue(witness.command(gate.wait()), id="long")
    worker = daemon.worker_of("long")
    before = daemon.pid, daemon.socket.stat().st_ino

    reexec(daemon)

    assert (daemon.pid, daemon.socket.stat().st_ino) == before
    gate.open()
    assert daemon.wait_for_state("long", "completed")["attempts"] == 1
    assert witness.runs() == {"long": ["1 start", "1 end"]}
    assert worker in [one["pid"] for one in daemon.workers()]
    assert daemon.stop() == 0
    assert processes.of(daemon.home) == []


def test_it_is_the_installed_program_that_takes_over(installed: tuple[LiveDaemon, Installation]) -> None:
    daemon, installation = installed
    installation.install("import queuectld.protocol.words as words\nwords.VERSION = '9.9'")

    reexec(daemon)

    with daemon.wire() as wire:
        assert wire.greeting["queuectld"] == "9.9"


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("import not_installed_any_more", "No module named 'not_installed_any_more'"),
        ("import queuectld.store.migrate as m\nm.MIGRATIONS = Path('/nowhere')", "install the newer QueueCTL again"),
        ("sys.exit(3)", "exit code 3: it said nothing"),
        ("import queuectld.worker\nqueuectld.worker.__path__.append(os.path.dirname(__file__))", "nobody_has_this"),
    ],
    ids=["imports", "database too new", "silent", "half installed"],
)
def test_a_program_that_could_not_start_is_refused_and_nothing_changes(
    installed: tuple[LiveDaemon, Installation], gate: Gate, before: str, why: str
) -> None:
    daemon, installation = installed
    (installation.script.parent / "broken.py").write_text("import nobody_has_this")
    with daemon.wire() as wire:
        job = wire.enqueue(gate.wait())
        installation.install(before)

        with pytest.raises(RefusedError) as refused:
            wire.call("reexec")

        assert refused.value.code == "check_failed"
        assert why in refused.value.message
        # The very connection lives on, and so does everything else.
        assert wire.state(job) in {"processing", "pending"}
    gate.open()
    assert daemon.wait_for_state(job, "completed")["attempts"] == 1


def test_a_configuration_that_is_not_valid_is_refused_and_named(daemon: LiveDaemon) -> None:
    daemon.configure(workers=2, max_retrys=3)

    with daemon.wire() as wire, pytest.raises(RefusedError) as refused:
        wire.call("reexec")

    assert "max_retrys" in refused.value.message
    assert "exit code 78" in refused.value.message


def test_a_port_that_somebody_else_has_is_refused_and_nothing_changes(daemon: LiveDaemon) -> None:
    token = daemon.home / "token"
    token.write_text("a-token-of-more-than-16-characters")
    token.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as other, daemon.wire() as wire:
        daemon.configure(workers=1, tcp=f"127.0.0.1:{other.getsockname()[1]}", token_file=token)

        with pytest.raises(RefusedError) as refused:
            wire.call("reexec")

        assert refused.value.code == "check_failed"
        assert "Address already in use" in refused.value.message
        assert wire.call("ping")
    # Free again.
    reexec(daemon)


def test_a_socket_where_none_can_be_made_is_refused_and_nothing_changes(daemon: LiveDaemon) -> None:
    place = daemon.home / "file"
    place.touch()
    daemon.configure(workers=1, socket=place)

    with daemon.wire() as wire, pytest.raises(RefusedError) as refused:
        wire.call("reexec")

    assert f"{place} exists and is not a socket" in refused.value.message
    assert daemon.answers()


@pytest.mark.parametrize("spoilt", ["queuectld.toml", "state/overrides.json"])
def test_a_configuration_that_is_spoilt_after_the_check_leaves_the_one_in_force(
    new_daemon: Callable[..., LiveDaemon], gate: Gate, spoilt: str
) -> None:
    daemon = new_daemon(workers=3, max_retries=5)
    installation = Installation(daemon)
    daemon.start()
    with daemon.wire() as wire:
        wire.call("config_set", key="priority_step", value=77)
        before = wire.call("config_list")
        job = wire.enqueue(gate.wait())
    daemon.worker_of(job)

    in_between(daemon, installation)
    (daemon.home / spoilt).write_text("max_retrys 3")
    installation.open()

    with daemon.wire() as wire:
        assert wire.call("config_list") == before
        assert spoilt in wire.call("status")["problems"][0]
    [rejected] = [line for line in daemon.log_lines() if line["event"] == "config.rejected"]
    assert spoilt in rejected["error"]
    gate.open()
    assert daemon.wait_for_state(job, "completed")["attempts"] == 1


def test_an_older_database_is_no_reason_to_refuse(installed: tuple[LiveDaemon, Installation]) -> None:
    daemon, installation = installed
    newer = daemon.home / "migrations"
    newer.mkdir()
    for script in MIGRATIONS.glob("*.sql"):
        (newer / script.name).write_text(script.read_text())
    (newer / "9999.sql").write_text("CREATE TABLE future (x INTEGER) STRICT;")
    installation.install(
        "import queuectld.store.migrate as m, queuectld.store.sqlite as s\n"
        f"m.MIGRATIONS = Path({str(newer)!r})\n"
        "s.open_store.__kwdefaults__['migrations'] = m.MIGRATIONS"
    )

    reexec(daemon)

    with daemon.wire() as wire:
        assert wire.state(wire.enqueue("true", delay=3600)) == "pending"
    assert list(daemon.state.glob("queue.db.format*"))


def test_who_connects_in_between_waits_and_is_served(installed: tuple[LiveDaemon, Installation]) -> None:
    daemon, installation = installed
    in_between(daemon, installation)
    early = socket.socket(socket.AF_UNIX)

    with early:
        early.connect(str(daemon.socket))
        early.sendall(b'{"id":1,"op":"ping"}\n')
        installation.open()

        early.settimeout(20)
        lines = early.makefile("rb")
        assert "queuectld" in json.loads(lines.readline())
        assert json.loads(lines.readline())["ok"]["pid"] == daemon.process.pid
        lines.close()


def test_the_port_stays_open_as_well(new_daemon: Callable[..., LiveDaemon]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = new_daemon()
    token = daemon.home / "token"
    token.write_text("a-token-of-more-than-16-characters")
    token.chmod(0o600)
    daemon.configure(workers=1, tcp=f"127.0.0.1:{port}", token_file=token)
    installation = Installation(daemon)
    daemon.start()
    in_between(daemon, installation)

    with socket.create_connection(("127.0.0.1", port), timeout=20) as early:
        early.sendall(b'{"id":1,"op":"hello","token":"a-token-of-more-than-16-characters"}\n')
        installation.open()

        lines = early.makefile("rb")
        assert json.loads(lines.readline())["authenticate"]
        assert json.loads(lines.readline())["ok"]
        lines.close()


def test_no_second_daemon_slips_in(installed: tuple[LiveDaemon, Installation]) -> None:
    daemon, installation = installed
    taken = threading.Event()
    over = threading.Event()

    def try_to_lock() -> None:
        with (daemon.state / "lock").open("rb") as lock:
            while not over.is_set():
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                taken.set()
                return

    burglar = threading.Thread(target=try_to_lock)
    burglar.start()
    try:
        for _ in range(3):
            reexec(daemon)
            with daemon.wire() as wire:
                wire.call("ping")
        in_between(daemon, installation)
        installation.open()
        with daemon.wire() as wire:
            wire.call("ping")
    finally:
        over.set()
        burglar.join()

    assert not taken.is_set()


def test_a_daemon_that_is_started_in_between_is_told_who_holds_the_state(
    installed: tuple[LiveDaemon, Installation],
) -> None:
    daemon, installation = installed
    in_between(daemon, installation)
    installation.install()

    second = daemon.run(daemon.program)

    assert second.returncode == 75
    assert f"process {daemon.process.pid}".encode() in second.stderr
    installation.open()
    with daemon.wire() as wire:
        wire.call("ping")


def test_what_a_worker_leaves_that_is_killed_in_between_is_ended_and_strangers_are_spared(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, gate: Gate
) -> None:
    # With cgroups there would be another way to find it.
    daemon = new_daemon(workers=1, cgroups="off")
    installation = Installation(daemon)
    # The shell that became the daemon has a child of its own.
    daemon.start("sh", "-c", 'sleep 1000 & echo $! >stranger; exec "$@"', "sh")
    stranger = int((daemon.home / "stranger").read_text())
    pid = daemon.home / "pid"
    with daemon.wire() as wire:
        wire.enqueue(witness.command(f"[ -s {pid} ] || {ESCAPE.format(pid)}; {gate.wait()}"), id="job")
    wait_for(lambda: pid.exists() and pid.read_text().strip(), "the command has started")
    escaped, worker = int(pid.read_text()), daemon.worker_of("job")
    in_between(daemon, installation)

    processes.kill(worker)
    wait_for(lambda: escaped in processes.children(daemon.process.pid), "the orphan has come to the daemon")
    installation.open()

    wait_for(lambda: witness.started("job", 2), "the job runs again")
    assert not processes.alive(escaped)
    assert processes.alive(stranger)
    gate.open()
    daemon.wait_for_state("job", "completed")
    assert witness.overlaps() == []
    # And of the worker no zombie is left either.
    assert f"{worker}" not in Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_for_the_end_in_between_is_heard(
    new_daemon: Callable[..., LiveDaemon], witness: Witness, number: signal.Signals
) -> None:
    # Long enough for a worker to notice that there is a daemon again.
    daemon = new_daemon(shutdown_grace=3, kill_after=0.2)
    installation = Installation(daemon)
    daemon.start()
    with daemon.wire() as wire:
        wire.enqueue(witness.command("sleep 1000"), id="long")
    wait_for(lambda: witness.started("long"), "the command has started")
    in_between(daemon, installation)

    daemon.process.send_signal(number)
    assert daemon.process.poll() is None
    installation.open()

    assert daemon.process.wait(20) == 0
    assert processes.of(daemon.home) == []
    installation.install()
    daemon.start()
    assert daemon.history("long")[0]["reason"] == "interrupted"


def test_a_program_that_cannot_be_run_after_all_leaves_its_jobs_to_the_next(
    installed: tuple[LiveDaemon, Installation], witness: Witness, gate: Gate
) -> None:
    daemon, installation = installed
    with daemon.wire() as wire:
        wire.enqueue(witness.command(gate.wait()), id="long")
    wait_for(lambda: witness.started("long"), "the command has started")
    # Gone between its check and its start.
    installation.install("if checking: os.unlink(__file__); sys.exit(0)")

    with daemon.wire() as wire:
        wire.call("reexec")
    code = daemon.process.wait(20)

    assert code == 74
    installation.install()
    daemon.start()
    gate.open()
    assert daemon.wait_for_state("long", "completed")["attempts"] == 1
    assert witness.repeated() == []


def test_streams_end_as_stopped_and_what_is_under_way_is_answered(daemon: LiveDaemon, gate: Gate) -> None:
    with daemon.wire() as follower, daemon.wire() as wire:
        job = wire.enqueue(gate.wait())
        follower.send("wait", select={"ids": [job]})
        numbers = [wire.send("enqueue", jobs=[{"command": "true", "delay": 3600}]) for _ in range(50)]
        wire.send("reexec")

        answers = [wire.line() for _ in numbers]
        ended = follower.line()

    assert [answer["id"] for answer in answers] == numbers
    assert ended["ok"]["stopped"]
    with daemon.wire() as wire:
        assert len(wire.ids()) == 51
    gate.open()


def test_workers_that_somebody_asked_for_stay(new_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = new_daemon(workers=3, worker_idle=0.2, vitals_interval=0.1).start()
    with daemon.wire() as wire:
        wire.call("worker_start", count=3)
    wait_for(lambda: [one["phase"] for one in daemon.workers()] == ["idle"] * 3, "three idle workers")

    reexec(daemon)

    # The health check comes by ten times a second, and ends who has been idle for longer than 0.2 s and is not wanted.
    wait_for(lambda: idle_for(daemon) >= 1.0, "they are back, and have been idle for long")
    assert len(daemon.workers()) == 3


def test_what_the_service_manager_passed_stays_open_and_is_not_for_workers(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon(workers=1)
    (daemon.home / "lent").touch()
    daemon.start("sh", "-c", 'exec 3<lent; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"', "sh")
    worker = wait_for(lambda: [one["pid"] for one in daemon.workers() if one["phase"] == "idle"], "it idles")[0]

    reexec(daemon)

    pid = daemon.pid
    assert Path(f"/proc/{pid}/fd/3").readlink() == daemon.home / "lent"
    assert b"LISTEN_PID=%d" % pid in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"LISTEN_" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert daemon.home / "lent" not in [link.readlink() for link in Path(f"/proc/{worker}/fd").iterdir()]


@pytest.mark.parametrize("data", ["nonsense", '{"lock": 99}', '{"lock": "0"}', "{}"])
def test_what_no_daemon_has_handed_over_is_refused(new_daemon: Callable[..., LiveDaemon], data: str) -> None:
    daemon = new_daemon()

    ended = daemon.run(daemon.program, env={"QUEUECTL_HANDOVER": data})

    assert ended.returncode == 78
    assert b"QUEUECTL_HANDOVER is not what one daemon hands to the next" in ended.stderr
    assert b"unset it" in ended.stderr


def test_a_socket_that_is_configured_elsewhere_now_moves(daemon: LiveDaemon) -> None:
    before, after = daemon.socket, daemon.home / "elsewhere.sock"
    daemon.configure(workers=1, socket=after)

    reexec(daemon)

    daemon.socket = after
    wait_for(daemon.answers, "it answers there")
    assert not before.exists()


def test_a_socket_gets_the_mode_that_is_configured_now(daemon: LiveDaemon) -> None:
    inode = daemon.socket.stat().st_ino
    daemon.configure(workers=1, socket_mode="0660")

    reexec(daemon)

    with daemon.wire() as wire:
        wire.call("ping")
    assert daemon.socket.stat().st_ino == inode
    assert daemon.socket.stat().st_mode & 0o777 == 0o660


def test_a_socket_that_somebody_removed_is_made_anew(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        daemon.socket.unlink()

        wire.call("reexec")

    wait_for(daemon.answers, "it answers")


def test_two_that_ask_at_the_same_time_get_one_new_program(daemon: LiveDaemon) -> None:
    with daemon.wire() as first, daemon.wire() as second:
        numbers = [wire.send("reexec") for wire in (first, second)]

        answers = [wire.line() for wire in (first, second)]

    assert [answer["id"] for answer in answers] == numbers
    with daemon.wire() as wire:
        assert wire.call("ping")["pid"] == daemon.process.pid
    assert [line["event"] for line in daemon.log_lines()].count("daemon.replaced") == 1


def open_files_allowed(pid: int) -> int:
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(int(line.split()[3]) for line in limits.splitlines() if line.startswith("Max open files"))


def test_a_worker_that_dies_in_between_is_reaped_and_the_next_one_has_the_limits_of_the_first(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon(workers=1)
    installation = Installation(daemon)
    daemon.start("sh", "-c", 'ulimit -Sn 512; exec "$@"', "sh")
    worker = wait_for(lambda: [one["pid"] for one in daemon.workers() if one["phase"] == "idle"], "it idles")[0]
    assert open_files_allowed(worker) == 512
    in_between(daemon, installation)

    processes.kill(worker)
    installation.open()

    successor = wait_for(lambda: [one["pid"] for one in daemon.workers() if one["phase"] == "idle"], "another idles")[0]
    assert open_files_allowed(successor) == 512
    assert not Path(f"/proc/{worker}").exists()


def test_a_state_directory_that_was_replaced_is_told_and_never_taken_for_the_one_that_is_held(
    daemon: LiveDaemon, gate: Gate
) -> None:
    with daemon.wire() as wire:
        job = wire.enqueue(gate.wait())
        daemon.worker_of(job)
        away = daemon.home / "away"
        daemon.state.rename(away)
        daemon.state.mkdir()

        with pytest.raises(RefusedError) as refused:
            wire.call("reexec")

        assert refused.value.code == "check_failed"
        assert f"{daemon.state} is not the state directory any more" in refused.value.message
        assert any("it was moved, removed or replaced" in problem for problem in wire.call("status")["problems"])
        daemon.state.rmdir()
        away.rename(daemon.state)
        assert wire.call("status")["problems"] == []
    reexec(daemon)
    gate.open()
    assert daemon.wait_for_state(job, "completed")["attempts"] == 1


def test_a_program_that_is_installed_and_does_not_run_yet_changes_nothing_for_the_one_that_runs(
    new_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = new_daemon()
    migrations = daemon.home / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    installation = Installation(daemon)
    installation.install(f"import queuectld.store.migrate as m\nm.MIGRATIONS = Path({str(migrations)!r})")
    daemon.start()

    (migrations / "9999.sql").write_text("CREATE TABLE future (x INTEGER) STRICT;")

    # The first read of all.
    with daemon.wire() as wire:
        assert wire.call("list")["jobs"] == []
    shutil.rmtree(migrations)
    with daemon.wire() as first, daemon.wire() as second:
        first.send("list")
        second.send("list")
        assert first.line()["ok"]["jobs"] == second.line()["ok"]["jobs"] == []


def test_a_group_that_does_not_exist_is_refused_and_nothing_changes(daemon: LiveDaemon) -> None:
    daemon.configure(workers=1, socket_group="no-such-group")

    with daemon.wire() as wire, pytest.raises(RefusedError) as refused:
        wire.call("reexec")

    assert "there is no group 'no-such-group'" in refused.value.message
    assert daemon.answers()
