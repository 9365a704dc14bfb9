"""Real people, as the kernel knows them, at a daemon of root's."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.system.livedaemon import LiveDaemon
from tests.system.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

# Groups that there are on every host, whatever they are for.
USERS, ADMINS, OBSERVERS = [group for group in grp.getgrall() if group.gr_gid and not group.gr_mem][:3]
ALICE, BOB, OLGA, ADA, SAM = range(54_321, 54_326)
# Becomes somebody while it is still root's program, connects, and passes lines on.
PERSON: Final = """
import os, socket, sys
path, uid, *groups = sys.argv[1], *map(int, sys.argv[2:])
os.setgroups(groups)
os.setgid(uid)
os.setuid(uid)
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(path)
    except PermissionError:
        sys.exit(13)
    with sock.makefile("rb") as lines:
        print(lines.readline().decode(), end="", flush=True)
        for request in sys.stdin:
            sock.sendall(request.encode())
            print(lines.readline().decode(), end="", flush=True)
"""


class Person:
    """A process of some user with a connection; `groups` are the numbers of the groups that it has beside its own."""

    def __init__(self, path: Path, uid: int, *groups: int) -> None:
        words = [sys.executable, "-c", PERSON, str(path), str(uid), *map(str, groups)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Send a request that has one line as an answer; return that."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"id": 1, "op": op, **fields}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


def code(answer: dict[str, Any]) -> str:
    return str(answer["error"]["code"]) if "error" in answer else "ok"


@pytest.fixture
def open_daemon(new_daemon: Callable[..., LiveDaemon]) -> Iterator[Callable[..., LiveDaemon]]:
    """Start daemons whose socket lies where everybody can go."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)

        def start(**config: Any) -> LiveDaemon:
            daemon = new_daemon(workers=0, socket=f"{place}/socket", socket_group=USERS.gr_name, **config)
            daemon.socket = Path(place, "socket")
            return daemon.start()

        yield start


def test_the_socket_is_for_its_group_and_for_nobody_else(open_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = open_daemon()

    assert daemon.socket.stat().st_mode & 0o777 == 0o660
    with Person(daemon.socket, SAM) as sam, Person(daemon.socket, ALICE, USERS.gr_gid) as alice:
        assert sam.process.wait() == 13
        assert alice.ask("enqueue", jobs=[{"command": "true"}])["ok"]["jobs"]


def test_two_people_have_their_own_jobs_and_nothing_of_the_other(open_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = open_daemon()
    with Person(daemon.socket, ALICE, USERS.gr_gid) as alice, Person(daemon.socket, BOB, USERS.gr_gid) as bob:
        job = {"id": "bobs", "command": "hush", "tags": {"hush": "hush"}, "env": {"HUSH": "hush"}}
        assert code(bob.ask("enqueue", jobs=[job])) == "ok"
        assert code(alice.ask("enqueue", jobs=[{"id": "mine", "command": "true"}])) == "ok"

        answers = [
            *(alice.ask(op, job="bobs", **more) for op, more in (("get", {}), ("signal", {"number": 9}))),
            *(alice.ask(op, select={"ids": ["bobs"]}) for op in ("cancel", "retry", "discard", "undelete", "wait")),
            alice.ask("logs", jobs=["bobs"]),
        ]
        listed = alice.ask("list")

        assert {code(answer) for answer in answers} == {"forbidden"}
        assert [(one["id"], one["owner"], one["command"]) for one in listed["ok"]["jobs"]] == [
            ("bobs", str(BOB), None),
            ("mine", str(ALICE), "true"),
        ]
        assert "hush" not in str((answers, listed))
        assert alice.ask("cancel", select={})["ok"]["jobs"] == ["mine"]
        assert bob.ask("get", job="bobs")["ok"]["job"]["command"] == "hush"
        _every_refusal_is_on_record(daemon, alice, len(answers))


def _every_refusal_is_on_record(daemon: LiveDaemon, alice: Person, number: int) -> None:
    def refused() -> list[dict[str, Any]]:
        lines = [line for line in daemon.log_lines() if line["event"] == "audit.request"]
        return [line for line in lines if line["result"] == "forbidden"]

    wait_for(lambda: sum(line["requests"] for line in refused()) == number, "all are on record")
    for line in refused():
        assert line["level"] == "warning"
        assert (line["user"], line["peer_uid"], line["role"]) == (str(ALICE), ALICE, "user")
        assert (line["origin"], line["jobs"]) == (f"pid {alice.process.pid}", ["bobs"])


def test_groups_make_administrators_observers_and_strangers(open_daemon: Callable[..., LiveDaemon]) -> None:
    daemon = open_daemon(socket_mode="0666", admin_group=ADMINS.gr_name, observer_group=OBSERVERS.gr_name)
    with daemon.wire() as root:
        root.enqueue("hush", id="roots")
    ada = Person(daemon.socket, ADA, ADMINS.gr_gid)
    olga = Person(daemon.socket, OLGA, OBSERVERS.gr_gid)
    sam = Person(daemon.socket, SAM)
    with ada, olga, sam:
        assert ada.ask("get", job="roots")["ok"]["job"]["command"] == "hush"
        assert code(ada.ask("enqueue", jobs=[{"id": "given", "command": "true", "as": "nobody"}])) == "ok"
        assert ada.ask("get", job="given")["ok"]["job"]["owner"] == "nobody"
        assert [job["hidden"] for job in olga.ask("list")["ok"]["jobs"]] == [True, True]
        assert code(olga.ask("cancel", select={})) == "forbidden"
        assert code(sam.ask("ping")) == "ok"
        told = sam.ask("list")["error"]

    assert told["code"] == "forbidden"
    assert f"usermod -aG {USERS.gr_name}" in told["message"]
    assert "log in again" in told["message"]


def test_a_group_that_is_named_while_the_daemon_runs_counts_from_the_next_connection(
    open_daemon: Callable[..., LiveDaemon],
) -> None:
    daemon = open_daemon(socket_mode="0666")
    with Person(daemon.socket, ADA, ADMINS.gr_gid) as before, daemon.wire() as root:
        root.call("config_set", key="admin_group", value=ADMINS.gr_name)

        with Person(daemon.socket, ADA, ADMINS.gr_gid) as after:
            assert code(after.ask("worker_stop")) == "ok"
        assert code(before.ask("worker_stop")) == "forbidden"


@pytest.mark.parametrize("key", ["admin_group", "observer_group", "socket_group"])
def test_a_group_that_there_is_not_is_an_error_of_the_configuration(
    new_daemon: Callable[..., LiveDaemon], key: str
) -> None:
    daemon = new_daemon(**{key: "no-such-group"})

    daemon.launch()

    assert daemon.process is not None
    assert daemon.process.wait() == 78
    assert "there is no group 'no-such-group'" in daemon.log_tail()


def test_a_group_that_there_is_not_cannot_be_set(daemon: LiveDaemon) -> None:
    ran = daemon.cli("config", "set", "admin_group", "no-such-group")

    assert ran.code == 78, ran
    assert "there is no group 'no-such-group'" in ran.err


def test_the_command_line_gives_jobs_away_and_says_whose_they_are(daemon: LiveDaemon) -> None:
    assert daemon.cli("enqueue", "--as", "nobody", "--in", "1h", "--id", "given", "true").code == 0
    assert daemon.cli("enqueue", "--in", "1h", "--id", "kept", "true").code == 0

    listed = daemon.cli("list")
    refused = daemon.cli("enqueue", "--as", "no-such-user", "true")

    heading, *rows = [line.split() for line in listed.out.splitlines()]
    assert [row[heading.index("OWNER")] for row in rows] == ["nobody", "root"]
    assert refused.code == 2
    assert "there is no user 'no-such-user'" in refused.err
