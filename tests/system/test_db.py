"""`queuectld db`: what a person does with the database while no daemon has it, and a copy at any time."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import processes
from tests.system.gate import Gate
from tests.system.livedaemon import DAEMON, LiveDaemon, Ran
from tests.system.waiting import wait_for


def db(daemon: LiveDaemon, *words: str | Path, prefix: tuple[str, ...] = ()) -> Ran:
    """Run `queuectld db` for the state directory of a daemon."""
    done = daemon.run([*prefix, *DAEMON, "db", *map(str, words)])
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def daemon(new_daemon: Callable[..., LiveDaemon]) -> LiveDaemon:
    return new_daemon().start()


def test_as_long_as_a_daemon_has_the_database_it_is_told_to_stop_it_first(daemon: LiveDaemon, home: Path) -> None:
    (home / "copy").write_bytes(b"")

    for words in (["counts"], ["check"], ["restore", "copy"]):
        refused = db(daemon, *words)
        assert (refused.code, refused.out) == (75, "")
        assert f"(process {daemon.pid})" in refused.err
        assert "queuectl daemon stop" in refused.err


def test_jobs_are_counted_and_the_database_is_checked(daemon: LiveDaemon) -> None:
    with daemon.wire() as wire:
        wire.enqueue("true", delay=3600)
        done = wire.enqueue("exit 1", max_retries=0)
    daemon.wait_for_state(done, "dead")
    daemon.stop()

    counted, checked = db(daemon, "counts"), db(daemon, "check")

    assert counted == Ran(0, "default pending 1\ndefault dead 1\ntotal 2\n", "")
    assert checked == Ran(0, f"The database {daemon.state / 'queue.db'} is in order.\n", "")


def test_without_a_queue_there_is_nothing_to_look_after(home: Path, new_daemon: Callable[..., LiveDaemon]) -> None:
    done = db(new_daemon(), "counts")

    assert done.code == 74
    assert done.err == f"queuectld: there is no state directory {home / 'state'}\n"
    assert not (home / "state").exists()


def test_a_damaged_database_is_told_in_detail_with_65(daemon: LiveDaemon) -> None:
    daemon.stop()
    database = daemon.state / "queue.db"
    with database.open("r+b") as file:
        file.truncate(database.stat().st_size - 4096)
    before = database.read_bytes()

    found = [db(daemon, *words) for words in (["check"], ["counts"], ["backup", "copy"])]

    assert [done.code for done in found] == [65, 65, 65]
    assert all("is cut off" in done.err for done in found)
    assert database.read_bytes() == before
    assert not (daemon.home / "copy").exists()


def test_a_copy_of_a_busy_queue_is_whole_and_nobody_is_held_up(daemon: LiveDaemon, home: Path) -> None:
    with daemon.wire() as wire:
        jobs = [wire.enqueue("true") for _ in range(100)]
        copied = db(daemon, "backup", home / "copy.db")
        jobs += [wire.enqueue("true") for _ in range(100)]
        wait_for(lambda: wire.counts() == {"completed": 200}, "all have run")

    assert copied == Ran(0, f"Written to {home / 'copy.db'}.\n", "")
    assert db(daemon, "check", home / "copy.db").code == 0
    assert (home / "copy.db").stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in home.glob("*copy*")) == ["copy.db"]
    assert daemon.stop() == 0


def test_a_copy_overwrites_nothing(daemon: LiveDaemon, home: Path) -> None:
    (home / "precious").write_text("precious")

    refused = db(daemon, "backup", home / "precious")

    assert refused.code == 2
    assert "not overwritten: name a file that is not there yet" in refused.err
    assert (home / "precious").read_text() == "precious"


def test_a_copy_that_cannot_be_written_blames_its_directory(daemon: LiveDaemon, home: Path) -> None:
    refused = db(daemon, "backup", home / "nowhere" / "copy.db")

    assert refused == Ran(
        2,
        "",
        f"queuectld: there is no directory {home / 'nowhere'}: make it first, or name a file somewhere else\n",
    )


def test_a_copy_for_which_there_is_no_space_is_not_there_at_all(
    daemon: LiveDaemon, home: Path, mount_small: Callable[[Path, str], Path]
) -> None:
    small = mount_small(home / "small", "16k")

    refused = db(daemon, "backup", small / "copy.db")

    assert refused.code == 74
    assert "full" in refused.err
    assert list(small.iterdir()) == []


def test_a_restored_queue_is_what_it_was_then_and_nothing_of_later_runs(
    daemon: LiveDaemon, home: Path, gate: Gate
) -> None:
    with daemon.wire() as wire:
        store = wire.call("status")["store"]
        done = wire.enqueue("echo done")
        daemon.wait_for_state(done, "completed")
        running = wire.enqueue(f"{gate.wait()}; echo then")
        wait_for(lambda: wire.history(running)[-1:], "it runs")
        assert db(daemon, "backup", home / "copy.db").code == 0
        later = wire.enqueue(f"setsid sh -c 'touch {home}/away; exec sleep 1000' & {gate.wait()}; echo later")
        wait_for((home / "away").exists, "the later one runs")
    daemon.kill()

    restored = db(daemon, "restore", home / "copy.db")

    assert restored.code == 0, restored
    assert "Ended 2 workers" in restored.out
    assert "1 of them ran then" in restored.out
    assert processes.of(home) == []
    kept = daemon.state / "queue.db.replaced.1"
    assert str(kept) in restored.out
    assert db(daemon, "check", kept).code == 0
    assert db(daemon, "check").code == 0
    gate.open()
    daemon.start()
    daemon.wait_for_state(running, "completed")
    with daemon.wire() as wire:
        assert wire.call("status")["store"] != store
        assert set(wire.ids()) == {done, running}
        assert [attempt["reason"] for attempt in wire.history(running)] == ["lost", "exited"]
        assert wire.output(done) == b"done\n"
        assert wire.output(running) == b"then\n"
        # Its number in the queue is given to nobody else.
        assert wire.enqueue("true") != later


def test_what_is_no_whole_copy_changes_nothing(daemon: LiveDaemon, home: Path) -> None:
    with daemon.wire() as wire:
        job = wire.enqueue("true", delay=3600)
    assert db(daemon, "backup", home / "copy.db").code == 0
    daemon.stop()
    before = (daemon.state / "queue.db").read_bytes()
    with (home / "copy.db").open("r+b") as file:
        file.truncate(40960)
    (home / "text").write_text("text")
    newer = shutil.copy(daemon.state / "queue.db", home / "newer")
    with Path(newer).open("r+b") as file:
        file.seek(60)
        file.write((1000).to_bytes(4, "big"))

    (home / "empty").touch()
    names = {"copy.db": "is cut off", "text": "is not a database", "empty": "is empty", "newer": "has format 1000"}

    refused = {name: db(daemon, "restore", home / name) for name in names}

    assert {done.code for done in refused.values()} == {65}
    for name, what in names.items():
        assert f"{home / name} {what}" in refused[name].err or name == "newer", refused[name]
        assert what in refused[name].err
        assert "move it" not in refused[name].err
    assert "it is no backup of a queue, and nothing was changed" in refused["empty"].err
    assert (daemon.state / "queue.db").read_bytes() == before
    assert not list(daemon.state.glob("queue.db.*"))
    daemon.start()
    assert daemon.state_of(job) == "pending"


def test_what_is_no_file_at_all_is_bad_input_for_a_restore(daemon: LiveDaemon, home: Path) -> None:
    daemon.stop()
    (home / "place").mkdir()

    refused = [db(daemon, "restore", home / name) for name in ("nothing", "place")]

    assert [done.code for done in refused] == [2, 2]
    assert f"{home / 'nothing'} is not there: name a file" in refused[0].err
    assert f"{home / 'place'} is a directory: name a file" in refused[1].err


def test_a_damaged_database_is_replaced_and_kept(daemon: LiveDaemon, home: Path) -> None:
    with daemon.wire() as wire:
        job = wire.enqueue("true", delay=3600)
    assert db(daemon, "backup", home / "copy.db").code == 0
    daemon.stop()
    (daemon.state / "queue.db").write_bytes(b"damaged")

    assert db(daemon, "restore", home / "copy.db").code == 0

    assert (daemon.state / "queue.db.replaced.1").read_bytes() == b"damaged"
    daemon.start()
    assert daemon.state_of(job) == "pending"


# Cut short.

KILLED = ("strace", "-f", "-qq", "-o", "/dev/null", "-e")


def every(daemon: LiveDaemon, copy: Path, calls: str) -> Iterator[int]:
    """Kill a restore at each of these calls, with the same state before each, until one is through."""
    before = daemon.home / "before"
    shutil.copytree(daemon.state, before, ignore=shutil.ignore_patterns("*.sock", "worker*"))
    for number in range(1, 100):
        shutil.rmtree(daemon.state)
        shutil.copytree(before, daemon.state)
        done = db(daemon, "restore", copy, prefix=(*KILLED, f"inject={calls}:signal=SIGKILL:when={number}"))
        if "strace:" in done.err:
            pytest.skip("strace cannot be used here")
        if done.code == 0:
            return
        assert done.code in {-signal.SIGKILL, 137}, done
        yield number
    raise AssertionError("there is no end to it")


@pytest.mark.parametrize("calls", ["rename,renameat,renameat2", "link,linkat,unlink,unlinkat", "fsync,fdatasync"])
def test_a_restore_that_is_killed_leaves_the_old_queue_or_the_new_one(
    daemon: LiveDaemon, home: Path, calls: str
) -> None:
    with daemon.wire() as wire:
        wire.enqueue("true", id="both", delay=3600)
        assert db(daemon, "backup", home / "copy.db").code == 0
        wire.enqueue("true", id="later", delay=3600)
    # What is only in the log belongs to the old one, too.
    daemon.kill()
    wait_for(lambda: not processes.of(home), "idle workers end", deadline=30)
    seen = set()

    for number in every(daemon, home / "copy.db", calls):
        counted = db(daemon, "counts")
        assert counted.code == 0, (number, counted)
        assert db(daemon, "check").code == 0, number
        seen.add(counted.out)
        kept = list(daemon.state.glob("queue.db.replaced.?"))
        assert len(kept) == (counted.out == "default pending 1\ntotal 1\n"), number

    assert seen <= {"default pending 2\ntotal 2\n", "default pending 1\ntotal 1\n"}
    assert "default pending 2\ntotal 2\n" in seen


def test_a_job_cannot_restore_the_queue_that_runs_it(daemon: LiveDaemon, home: Path) -> None:
    assert db(daemon, "backup", home / "copy.db").code == 0
    daemon.stop()

    done = daemon.run([*DAEMON, "db", "restore", str(home / "copy.db")], env={"QUEUECTL_ATTEMPT_TOKEN": "x/1"})

    assert done.returncode == 74
    assert b"within a job" in done.stderr
    assert not list(daemon.state.glob("queue.db.*"))


def test_a_restore_ends_workers_also_if_the_state_directory_is_called_by_another_name(
    daemon: LiveDaemon, home: Path, gate: Gate
) -> None:
    with daemon.wire() as wire:
        worker = daemon.worker_of(wire.enqueue(gate.wait()))
    assert db(daemon, "backup", home / "copy.db").code == 0
    daemon.kill()
    (home / "link").symlink_to(daemon.state)
    daemon.env["QUEUECTL_STATE_DIR"] = str(home / "link")

    assert db(daemon, "restore", home / "copy.db").code == 0

    assert not processes.alive(worker)
    assert processes.of(home) == []


def test_of_a_database_that_is_damaged_within_no_copy_is_made(daemon: LiveDaemon, home: Path) -> None:
    with daemon.wire() as wire:
        wire.call("enqueue", jobs=[{"command": f": {'x' * 2000}", "delay": 3600}] * 400)
    daemon.stop()
    database = daemon.state / "queue.db"
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 40_960)

    done = db(daemon, "backup", "copy")

    assert (done.code, done.out) == (65, "")
    assert "is damaged, and no copy was made" in done.err
    assert [path.name for path in home.iterdir() if "copy" in path.name] == []
