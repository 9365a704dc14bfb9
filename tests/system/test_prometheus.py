"""A real Prometheus scrapes a real daemon; the alerts and the dashboard that are shipped ask it."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from queuectld.figures.table import METRICS, Kind
from tests.system.livedaemon import LiveDaemon
from tests.system.scrape import Prometheus, free_port, needs_prometheus
from tests.system.waiting import wait_for
from tests.system.wire import RefusedError

pytestmark = needs_prometheus

SHIPPED = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = SHIPPED / "queuectl.rules.yml"
RULE_TESTS = Path(__file__).with_name("queuectl.rules.test.yml")
DASHBOARD = json.loads((SHIPPED / "queuectl-dashboard.json").read_text())

# What Grafana puts in the place of its variables.
VARIABLES = {"$instance": ".*", "$queue": ".*", "$__rate_interval": "1m"}


class Watched(NamedTuple):
    """A daemon that has done something, and the Prometheus that watches it."""

    daemon: LiveDaemon
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="queuectl-test-") as name:
        home, port = Path(name) / "home", free_port()
        home.mkdir()
        # Its cgroups would outlast the single test.
        daemon = LiveDaemon(home, metrics=f"127.0.0.1:{port}", max_retries=1, backoff_base=0, cgroups="off")
        with daemon, Prometheus(Path(name) / "prometheus", port, RULES) as prometheus:
            daemon.start()
            # Whatever comes before the first scrape is no increase.
            wait_for(lambda: prometheus.value("queuectl_jobs_enqueued_total") == 0, "it is scraped", deadline=30)
            work(daemon)
            wait_for(lambda: prometheus.value('queuectl_jobs{state="dead"}') == 1, "all of it is scraped", deadline=30)
            yield Watched(daemon, prometheus)


def work(daemon: LiveDaemon) -> None:
    """Three jobs end well, one is dead after two attempts, one waits for an hour, and one request is refused."""
    with daemon.wire() as wire:
        jobs = [wire.enqueue("true") for _ in range(3)]
        bad = wire.enqueue("exit 3")
        wire.enqueue("true", delay=3600)
        with pytest.raises(RefusedError):
            wire.enqueue("true", queue="nowhere")
    for job in jobs:
        daemon.wait_for_state(job, "completed")
    daemon.wait_for_state(bad, "dead")


def test_prometheus_shows_what_the_daemon_did(watched: Watched) -> None:
    shown = {
        'up{job="queuectl"}': 1,
        'queuectl_jobs{queue="default",state="completed"}': 3,
        'queuectl_jobs{queue="default",state="pending"}': 1,
        "queuectl_dead_letters_unseen": 1,
        "queuectl_jobs_enqueued_total": 5,
        "queuectl_attempts_started_total": 5,
        "sum(queuectl_attempts_ended_total)": 5,
        'queuectl_attempts_ended_total{reason="exited",state="failed"}': 1,
        "queuectl_retries_total": 1,
        "queuectl_dead_letters_total": 1,
        "queuectl_job_waiting_seconds_count": 5,
        "queuectl_job_running_seconds_count": 5,
        'queuectl_job_running_seconds_bucket{le="+Inf"}': 5,
        'queuectl_requests_total{op="enqueue",result="ok"}': 5,
        'queuectl_requests_total{op="enqueue",result="no_such_queue"}': 1,
        "queuectl_workers_limit": 2,
        "queuectl_ready": 1,
        "queuectl_healthy": 1,
        "queuectl_disk_full": 0,
        "queuectl_config_reload_successful": 1,
    }

    assert {expr: watched.prometheus.value(expr) for expr in shown} == shown
    assert (watched.prometheus.value("queuectl_store_commit_seconds_count") or 0) > 5
    assert (watched.prometheus.value("queuectl_wal_bytes") or 0) > 0
    assert 0 < (watched.prometheus.value("queuectl_disk_free_bytes / queuectl_disk_size_bytes") or 0) < 1


def test_every_alert_is_understood_and_the_only_ones_that_fire_are_those_that_should(watched: Watched) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = watched.prometheus.ask("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_for(lambda: any(rule["state"] == "firing" for rule in rules()), "a dead job is told")
    found = rules()

    assert {rule["health"] for rule in found} == {"ok"}
    assert {rule["name"] for rule in found if rule["state"] == "firing"} == {"QueuectlDeadLettersGrow"}


def expressions() -> list[str]:
    """All that the dashboard asks, with the values of its variables."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    found = panels + [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    for name, value in VARIABLES.items():
        found = [expr.replace(name, value) for expr in found]
    return found


def test_every_panel_of_the_dashboard_has_data(watched: Watched) -> None:
    # But for starts of the daemon, of which there was one.
    asked = [expr for expr in expressions() if not expr.startswith("changes(")]

    assert len(asked) == len(expressions()) - 1
    for expr in asked:
        wait_for(lambda expr=expr: watched.prometheus.query(expr), f"there is data: {expr}")
    assert watched.prometheus.query("changes(queuectl_start_timestamp_seconds[1m])")


def test_the_dashboard_can_be_imported_anywhere() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    sources = [found for panel in DASHBOARD["panels"] for found in (panel, *panel.get("targets", ()))]

    assert DASHBOARD["uid"] == "queuectl"
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    assert {one["datasource"]["uid"] for one in sources if one.get("type") != "row"} == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert "id" not in DASHBOARD
    assert not re.findall(r"\$\w+", " ".join(expressions()))


def named(text: str) -> set[str]:
    """The metrics of ours that a text names, as the table does."""
    families = {name: name for name in METRICS}
    for name, metric in METRICS.items():
        if metric.kind is Kind.HISTOGRAM:
            families |= {f"{name}_{part}": name for part in ("bucket", "sum", "count")}
    return {families[name] for name in re.findall(r"\bqueuectl_\w+", text)}


def test_alerts_and_dashboard_name_only_what_there_is() -> None:
    assert named(RULES.read_text())
    assert named(" ".join(expressions()))


def test_promtool_takes_the_files_that_are_shipped() -> None:
    for check in (["rules", RULES], ["config", SHIPPED / "prometheus.yml"]):
        ran = subprocess.run(["promtool", "check", *check], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_fires_when_it_should_and_is_silent_when_it_should_not() -> None:
    ran = subprocess.run(["promtool", "test", "rules", RULE_TESTS], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tests = RULE_TESTS.read_text()
    for alert in alerts:
        told = re.findall(rf"alertname: {alert}\n +exp_alerts:(.*)", tests)
        assert any(one.strip() == "" for one in told), f"no test in which {alert} fires"
        assert any(one.strip() == "[]" for one in told), f"no test in which {alert} is silent"
