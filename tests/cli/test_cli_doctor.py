"""`doctor` really looks: each thing that can be wrong is made wrong, and found; `status` fits a screen."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from queuectl_cli.doctor import daemon as doctor_of_daemon
from queuectl_cli.doctor import host, place
from queuectl_cli.doctor.finding import FAIL, OK, WARN
from queuectl_cli.doctor.place import Place
from tests.cli.scripted import STATUS
from tests.cli.test_cli_errors import as_somebody_else


@pytest.fixture(autouse=True)
def checked(monkeypatch) -> list[tuple[int, list[str]]]:
    """What `queuectld --check` is made to say; tests of the real one are with the real daemon."""
    answer = [(0, [])]
    monkeypatch.setattr(place, "examine", lambda *_: answer[-1])
    return answer


def found(call, *words: str) -> dict[str, dict]:
    """Return what the doctor says, by check; of several the worst."""
    rows = sorted(call("doctor", "--json", *words).json, key=lambda row: [OK, WARN, FAIL].index(row["state"]))
    return {row["check"]: row for row in rows}


def status(daemon, **fields) -> None:
    daemon.answers["status"] = {"ok": {**STATUS, **fields}}


def test_where_all_is_well_every_check_has_looked_and_the_exit_code_is_0(daemon, call, tmp_path) -> None:
    status(daemon, state_dir=str(tmp_path / "state"))

    called = call("doctor")

    assert called.status == 0
    words = [line.split()[:2] for line in called.out.splitlines() if line.startswith(("ok", "warn", "fail"))]
    assert [check for _, check in words] == [
        *("program", "libraries", "kernel", "socket", "daemon", "loop", "isolation", "files", "state", "disk"),
        "configuration",
    ]


def test_without_a_daemon_it_looks_at_what_there_is(call, tmp_path) -> None:
    called = call("doctor")

    assert called.status == 0
    assert "there is no such socket" in called.out
    assert "queuectl daemon start" in called.out
    assert f"{tmp_path}/state is not there yet" in called.out


def test_a_stale_socket_is_a_failure(call, tmp_path) -> None:
    (tmp_path / "state").mkdir()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "state" / "queuectl.sock"))

    assert call("doctor").status == 1
    assert found(call)["socket"]["state"] == FAIL


def test_a_socket_for_others_is_told_apart(daemon, call) -> None:
    Path(daemon.path).chmod(0o600)
    with as_somebody_else():
        told = found(call)["socket"]

    assert told["state"] == FAIL
    assert "permission denied" in told["message"]


def test_another_version_is_worth_knowing(daemon, call) -> None:
    status(daemon, version="0.9.0")

    told = found(call)["daemon"]

    assert told["state"] == WARN
    assert "queuectl daemon reexec" in told["hint"]


def test_what_the_daemon_says_is_wrong_is_wrong(daemon, call) -> None:
    status(daemon, problems=["the disk is full"])

    assert found(call)["daemon"] | {"hint": None} == {
        "check": "daemon",
        "state": FAIL,
        "message": "the disk is full",
        "hint": None,
    }


def test_no_cgroups_and_why_and_a_late_loop_are_worth_knowing(daemon, call) -> None:
    status(
        daemon,
        isolation={"cgroup": None, "controllers": [], "reason": "read-only"},
        loop={"lag": 2.5, "max_lag": 3.0, "stalls": 1},
    )

    told = found(call)

    assert (told["isolation"]["state"], told["loop"]["state"]) == (WARN, WARN)
    assert "read-only" in told["isolation"]["message"]
    assert call("doctor").status == 0


def test_an_older_daemon_need_not_tell_of_these(daemon, call) -> None:
    daemon.answers["status"] = {"ok": {k: v for k, v in STATUS.items() if k not in {"isolation", "loop"}}}

    assert call("doctor").status == 0
    assert call("status").status == 0


def test_a_state_directory_that_others_may_write_to_is_a_failure(daemon, call, tmp_path) -> None:
    status(daemon, state_dir=str(tmp_path / "state"))
    (tmp_path / "state").chmod(0o770)

    told = found(call)["state"]

    assert told["state"] == FAIL
    assert "chmod 700" in told["hint"]


def test_a_state_directory_in_a_place_where_none_can_be_made_is_a_failure(call, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QUEUECTL_STATE_DIR", str(tmp_path / "file" / "state"))

    assert found(call)["state"]["state"] == FAIL


def test_who_holds_the_state_directory_without_answering_is_named(call, tmp_path) -> None:
    (tmp_path / "state").mkdir()
    descriptor = os.open(tmp_path / "state" / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    told = found(call)["lock"]

    os.close(descriptor)
    assert told["state"] == FAIL
    assert f"process {os.getpid()}" in told["message"]


def test_a_file_that_is_no_database_is_a_failure(call, tmp_path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "queue.db").write_bytes(b"garbage")

    assert found(call)["database"]["state"] == FAIL


@pytest.mark.parametrize(("code", "check"), [(78, "configuration"), (65, "database"), (1, "configuration")])
def test_what_the_program_of_the_daemon_refuses_is_quoted(code, check, call, checked) -> None:
    checked.append((code, ["queuectld: the reason"]))

    told = found(call)[check]

    assert told["state"] == FAIL
    assert told["message"].endswith(f"(exit {code}): the reason")
    assert call("doctor").status == 1


def test_the_configuration_that_is_checked_is_the_one_that_the_daemon_reads(
    daemon, call, monkeypatch, tmp_path
) -> None:
    asked = []
    monkeypatch.setattr(place, "examine", lambda _app, config: asked.append(config) or (0, []))
    (tmp_path / "other.toml").touch()
    status(daemon, config_file=str(tmp_path / "other.toml"), state_dir=str(tmp_path / "state"))

    told = found(call)["configuration"]

    assert asked == [f"{tmp_path}/other.toml"]
    assert told["message"] == f"{tmp_path}/other.toml"


def test_little_space_and_a_network_share_are_told(tmp_path, monkeypatch) -> None:
    here = Place(str(tmp_path), "", named=False, answers=False)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(place, "_LITTLE_SPACE", 1 << 60)
    assert [finding.state for finding in place.state(here)] == [OK, WARN]
    monkeypatch.setattr(place, "_FEW_INODES", 1 << 60)
    assert "more files only" in list(place.state(here))[1].message
    monkeypatch.setattr(place, "file_system", lambda _path: "nfs4")
    assert [finding.state for finding in place.state(here)] == [OK, FAIL]


def test_the_kind_of_file_system_is_the_kernels_own_word() -> None:
    assert place.file_system("/proc") == "proc"


def test_a_library_that_is_missing_or_too_old_is_named(monkeypatch) -> None:
    wanted = ["click>=8.2", "apsw >=99 ; python_version >= '3.11'", "no-such-library>=1", "ruff>=1; extra == 'test'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _name: wanted)

    (finding,) = host.libraries()

    assert finding.state == FAIL
    assert finding.message.startswith("apsw is ")
    assert finding.message.endswith("99 is the least; no-such-library is missing")


def test_few_files_and_a_kernel_without_pidfds_are_told(monkeypatch) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(host.resource, "prlimit", lambda *_: (256, 256))
    assert [finding.state for finding in host.open_files(1)] == [WARN]
    monkeypatch.setattr(host.os, "pidfd_open", refuse)
    assert [finding.state for finding in host.kernel()] == [FAIL]


def test_elsewhere_it_looks_only_at_what_can_be_seen_from_here(call, tmp_path) -> None:
    told = {row["check"] for row in call("doctor", "--json", "-H", f"unix://{tmp_path}/none.sock").json}

    assert told == {"program", "libraries", "kernel", "socket", "files"}


# Status.


def test_status_tells_how_jobs_are_isolated_and_fits_a_screen(daemon, call) -> None:
    shown = call("status").out.splitlines()

    assert "isolation: cgroup v2, so that what detaches still ends with its job; memory limits by the kernel" in shown
    assert len(shown) <= 24


def test_status_says_nothing_of_what_strangers_are_not_told(daemon, call) -> None:
    veiled = {"cgroup": None, "controllers": [], "reason": "not told to strangers"}
    daemon.answers["status"] = {"ok": {**STATUS, "state_dir": "", "isolation": veiled}}

    said = call("status").out

    assert "isolation" not in said
    assert "at /s\n" in said


def test_status_tells_why_there_are_no_cgroups_and_that_the_daemon_is_late(daemon, call) -> None:
    status(
        daemon,
        isolation={"cgroup": None, "controllers": [], "reason": "read-only"},
        loop={"lag": 2.5, "max_lag": 3.0, "stalls": 1},
        problems=["the disk is full"],
    )

    shown = call("status").out

    assert "isolation: no cgroups (read-only), only process groups, sessions and a subreaper" in shown
    assert "! the disk is full\n! the daemon is late by 2.5 s" in shown


@pytest.mark.parametrize(("days", "state"), [(13, WARN), (15, OK), (-1, WARN)])
def test_a_certificate_that_ends_soon_is_to_know(days, state) -> None:
    shown = {"notAfter": "Dec  1 09:00:00 2026 GMT"}
    end = 1_796_115_600

    (finding,) = doctor_of_daemon.certificate(shown, end - days * 86400)

    assert finding.state == state
    assert "Dec  1 09:00:00 2026" in finding.message
    assert not list(doctor_of_daemon.certificate({}, end))
