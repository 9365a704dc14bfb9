from __future__ import annotations

import json
import os

import pytest

from queuectl_cli import launch
from queuectl_cli.service import installing, systemd
from queuectl_cli.target import resolve


@pytest.fixture
def no_systemd(monkeypatch):
    monkeypatch.setattr(installing, "systemd_runs", lambda: False)


@pytest.fixture
def programs(monkeypatch):
    """As if it were installed."""
    monkeypatch.setattr(installing, "programs", lambda: "/opt/queuectl/bin")
    monkeypatch.setattr(installing, "version", lambda: 252)
    monkeypatch.setattr(installing, "check_no_package", lambda _: None)


def test_where_systemd_does_not_run_there_is_nothing_to_install_in(call, no_systemd):
    called = call("--user", "daemon", "install")

    assert called.status == 1
    assert "systemd does not run here" in called.err
    assert "queuectl daemon start" in called.err


def test_only_root_installs_for_the_system(call, monkeypatch):
    monkeypatch.setattr(installing, "systemd_runs", lambda: True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    called = call("--system", "daemon", "install")

    assert (called.status, "sudo queuectl daemon install" in called.err) == (77, True)


def test_a_queue_of_its_own_is_no_service(call):
    called = call("daemon", "install", "-n")

    assert (called.status, "QUEUECTL_STATE_DIR" in called.err) == (2, True)


def test_a_dry_run_shows_files_and_commands_and_does_nothing(call, no_systemd, programs, monkeypatch):
    monkeypatch.setattr(installing, "carry_out", lambda _: pytest.fail("something was done"))

    called = call("--system", "daemon", "install", "-n")

    assert called.status == 0
    assert "# /etc/systemd/system/queuectld.service\n" in called.out
    assert "ExecStart=/opt/queuectl/bin/queuectld --system\n" in called.out
    assert "$ systemctl enable queuectld.service queuectld.socket\n" in called.out


def test_a_program_gets_the_same_as_json(call, no_systemd, programs):
    shown = json.loads(call("--user", "daemon", "install", "-n", "--json").out)

    assert [file["path"].rpartition("/")[2] for file in shown["files"]] == sorted(
        ["queuectld.service", "queuectld.socket", "queuectld-sweep.service", "queuectld-sweep-now.service"]
    )
    assert ["systemctl", "--user", "daemon-reload"] in shown["commands"]


def test_a_dry_run_of_the_removal_of_nothing_shows_nothing_that_is_removed(call, no_systemd, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert call("--user", "daemon", "uninstall", "-n").out == "$ systemctl --user daemon-reload\n"


def why_not(scope=None):
    return launch.why_not(resolve(None, scope, {"HOME": "/home/ann", "XDG_RUNTIME_DIR": "/nowhere"}))


@pytest.fixture
def somebody(monkeypatch):
    monkeypatch.delenv("QUEUECTL_AUTOSTART")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    monkeypatch.setattr(systemd, "systemd_runs", lambda: True)


def test_no_daemon_is_started_beside_a_service(somebody, monkeypatch):
    monkeypatch.setattr(systemd.Manager, "installed", lambda self, _: self.user)
    assert "a service of yours" in why_not()

    monkeypatch.setattr(systemd.Manager, "installed", lambda self, _: not self.user)
    assert "--user is for a queue of your own" in why_not()
    assert why_not("user") is None


def test_where_there_is_no_service_a_daemon_is_started(somebody, monkeypatch):
    monkeypatch.setattr(systemd.Manager, "installed", lambda *_: False)

    assert why_not() is None
