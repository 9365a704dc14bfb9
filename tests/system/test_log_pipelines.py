"""The log as administrators get it: through a real journald, rsyslog, syslog-ng and lnav, with the files of deploy/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from queuectld.log_events import CORE, FIELDS
from queuectld.log_line import LINE_MAX
from tests.log_schema import check_line, check_log
from tests.sysbox.box import PROJECT, Box, boot
from tests.system.test_log_file import LOGROTATE
from tests.system.waiting import wait_for

DEPLOY = PROJECT / "deploy"
# Where .ci/run puts packages that cannot be installed beside others.
PACKAGES = PROJECT / ".debs-tests"
LOGS = "/var/log/queuectl"
# Its name in the journal is that of the program.
UNIT = f"""
[Service]
Type=notify
ExecStart={sys.executable} -P -m queuectld.main --system
SyslogIdentifier=queuectld
StateDirectory=queuectl
LogsDirectory=queuectl
Environment=PYTHONPATH={PROJECT} QUEUECTLD_BACKOFF_BASE=0 QUEUECTLD_MAX_RETRIES=1 QUEUECTLD_SHUTDOWN_GRACE=0
Delegate=yes
KillMode=process
"""
# Without what it needs to run.
SPOILT = UNIT.replace("QUEUECTLD_SHUTDOWN_GRACE=0", "QUEUECTLD_WORKERS=many")
PRIORITIES = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}


def installed(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def units(**files: Path) -> dict[str, str]:
    """Return the files of a box: units, and what was shipped, by where it goes."""
    made = {
        "/etc/systemd/system/queuectld.service": UNIT,
        "/etc/systemd/system/queuectld-spoilt.service": SPOILT.replace("Type=notify", "Type=exec"),
    }
    return made | {place.replace("__", "/"): file.read_text() for place, file in files.items()}


def queuectl(box: Box, *words: str) -> str:
    client = (sys.executable, "-P", "-m", "queuectl_cli.main", "--system")
    return box.run("env", f"PYTHONPATH={PROJECT}", "QUEUECTL_AUTOSTART=0", *client, *words, check=False)


def entries(box: Box, unit: str) -> list[dict[str, Any]]:
    """Return what the journal has of a unit's own words."""
    box.run("journalctl", "--sync")
    said = box.run("journalctl", "--output", "json", "--all", "--unit", unit, "_TRANSPORT=stdout")
    return [json.loads(line) for line in said.splitlines()]


def lines(box: Box) -> list[dict[str, Any]]:
    """Return the lines of the daemon's log as the journal has them, each checked with its priority."""
    found = []
    for entry in entries(box, "queuectld"):
        line = check_line(entry["MESSAGE"].encode())
        assert entry["PRIORITY"] == PRIORITIES[line["level"]], entry
        assert entry["SYSLOG_IDENTIFIER"] == "queuectld"
        found.append(line)
    return found


def file_lines(box: Box, name: str) -> list[dict[str, Any]]:
    return check_log((box.run("cat", f"{LOGS}/{name}", check=False) + "\n").lstrip("\n").encode())


def attempts(found: list[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    return [line for line in found if line["event"] == "job.finished" and line["job_id"] == job]


def run_as_program(box: Box, program: str) -> list[dict[str, Any]]:
    """Run Python in a service with the log set up; return the entries that the journal has of it."""
    start = "import os, structlog\nfrom queuectld.log import set_up\nset_up(level='debug', environ=os.environ)\n"
    source = f"{start}log = structlog.get_logger()\n{program}"
    name = f"program-{len(program)}.service"
    box.run(
        *("systemd-run", "--quiet", "--wait", "--unit", name, "--property", "SyslogIdentifier=queuectld"),
        *("--setenv", f"PYTHONPATH={PROJECT}", sys.executable, "-P", "-c", source.replace("$", "$$")),
        check=False,
    )
    return entries(box, name)


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    if installed("rsyslogd") is None or LOGROTATE is None:
        pytest.skip("rsyslog and logrotate are not installed; Debian has them in packages of these names")
    files = {
        "__etc__rsyslog.d__30-queuectl.conf": DEPLOY / "log" / "rsyslog.conf",
        "__etc__logrotate.d__queuectl": DEPLOY / "logrotate" / "queuectl",
    }
    with boot(units(**files)) as found:
        found.run("systemctl", "start", "rsyslog", "queuectld")
        yield found


def test_the_journal_has_one_line_an_attempt_with_its_priority_and_fields(box: Box) -> None:
    queuectl(box, "run", "--id", "well", "echo hello")
    queuectl(box, "run", "--id", "badly", "--max-retries", "1", "exit 3")

    (well,) = attempts(lines(box), "well")
    assert (well["level"], well["state"], well["attempt"], well["exit_code"]) == ("info", "completed", 1, 0)
    assert {"queue", "owner", "worker_id", "duration_ms", "cpu_ms", "peak_memory", "output_bytes"} <= well.keys()
    assert well["output_bytes"] == len("hello\n")
    first, second = attempts(lines(box), "badly")
    assert [(one["attempt"], one["state"], one["level"]) for one in (first, second)] == [
        (1, "failed", "warning"),
        (2, "dead", "warning"),
    ]
    least = ("-p", "warning", "-o", "cat", "-u", "queuectld", "_TRANSPORT=stdout")
    assert {json.loads(line)["level"] for line in box.run("journalctl", *least).splitlines()} == {"warning"}


def test_names_that_are_no_utf_8_come_as_text(box: Box) -> None:
    command = r"cp /bin/sleep /tmp/$(printf 'caf\351'); setsid /tmp/caf? 1000 & sleep 0.1"
    queuectl(box, "run", "--id", "odd", command)

    (line,) = attempts(lines(box), "odd")
    assert any("caf" in one for one in line["leftovers"]), line


LONG = f"""
from queuectld.log_line import encode_line
said = dict(timestamp="2026-11-24T07:00:00.000000Z", level="error", message="x", event="uncaught", service="queuectld",
            version=__import__("queuectld.protocol.words").protocol.words.VERSION, pid=os.getpid(), error="")
log.error("x", event_name="uncaught", error="y" * ({LINE_MAX} - len(encode_line(said))))
log.error("x", event_name="uncaught", error="z" * 100_000)
log.error("multi\\nline", event_name="uncaught", path=b"caf\\xe9".decode(errors="surrogateescape"))
def fail(): raise OSError("it\\nbroke")
try: fail()
except OSError: log.exception("x", event_name="uncaught")
import warnings, logging, threading
warnings.warn("careful")
logging.getLogger("asyncio").critical("help")
threading.Thread(target=fail).start()
fail()
"""


def test_long_lines_stacks_and_what_libraries_say_are_one_entry_each_and_whole(box: Box) -> None:
    found = run_as_program(box, LONG)

    told = [check_line(entry["MESSAGE"].encode()) for entry in found]
    assert len(found[0]["MESSAGE"]) == LINE_MAX
    assert (told[0]["error"].strip("y"), told[1]["truncated"]) == ("", True)
    assert (told[2]["message"], told[2]["path"]) == ("multi\nline", "caf?")
    assert told[3]["traceback"].count("\n") > 3
    assert [line["event"] for line in told[3:]] == [
        "uncaught",
        "library.warning",
        "library.message",
        "uncaught",
        "uncaught",
    ]
    assert [entry["PRIORITY"] for entry in found] == ["3", "3", "3", "3", "4", "2", "2", "2"]
    # And rsyslog has them as whole.
    wait_for(lambda: [one for one in file_lines(box, "rsyslog.jsonl") if one in told] == told, "rsyslog wrote them")


def test_a_daemon_that_cannot_start_says_so_in_a_line_of_its_log(box: Box) -> None:
    box.run("systemctl", "start", "queuectld-spoilt", check=False)

    (entry,) = wait_for(lambda: entries(box, "queuectld-spoilt"), "the journal has it")
    line = check_line(entry["MESSAGE"].encode())
    assert (line["event"], line["level"], line["exit_code"], entry["PRIORITY"]) == (
        "daemon.failed",
        "critical",
        78,
        "2",
    )
    assert "QUEUECTLD_WORKERS" in line["error"]
    wait_for(lambda: box.property("queuectld-spoilt", "ExecMainStatus") == "78", "it ended with 78")


# All that systemd says to a service like this one.
OF_SYSTEMD = {
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "STATE_DIRECTORY",
    "LOGS_DIRECTORY",
}


def test_jobs_and_workers_are_told_nothing_that_systemd_tells_the_daemon(box: Box) -> None:
    daemon = box.run("cat", f"/proc/{box.property('queuectld', 'MainPID')}/environ")
    assert names(daemon.split("\0")) >= OF_SYSTEMD

    for words in ([], ["--clean-env"]):
        said = queuectl(box, "run", *words, "env; tr '\\0' '\\n' </proc/$PPID/environ")
        assert "QUEUECTL_JOB_ID=" in said
        assert not names(said.splitlines()) & OF_SYSTEMD


def names(lines: list[str]) -> set[str]:
    return {line.partition("=")[0] for line in lines}


def test_rsyslog_takes_the_fields_out_and_leaves_what_is_no_json_apart(box: Box) -> None:
    queuectl(box, "run", "--id", "routed", "--max-retries", "0", "exit 7")
    box.run("logger", "--tag", "queuectld", "Fatal Python error: no JSON at all")

    def row() -> list[str]:
        return [line for line in box.run("cat", f"{LOGS}/jobs.log", check=False).splitlines() if " routed " in line]

    (found,) = wait_for(row, "rsyslog wrote the row")
    (line,) = attempts(lines(box), "routed")
    assert found == (
        f"{line['timestamp']} routed attempt=1 state=dead reason=exited exit_code=7 signal= "
        f"duration_ms={line['duration_ms']} queue=default owner=root"
    )
    wait_for(lambda: "no JSON" in box.run("cat", f"{LOGS}/rsyslog-other.log", check=False), "text goes elsewhere")
    assert line in file_lines(box, "rsyslog.jsonl")


def test_logrotate_as_shipped_turns_the_log_file_of_a_service(box: Box) -> None:
    file = f"{LOGS}/queuectld.jsonl"
    box.run("mkdir", "--parents", "/etc/queuectl")
    box.run("sh", "-c", f"echo 'log_file = \"{file}\"' >/etc/queuectl/queuectld.toml")
    box.run("systemctl", "restart", "queuectld")
    queuectl(box, "run", "--id", "before", "true")

    box.run("logrotate", "--force", "/etc/logrotate.d/queuectl")

    wait_for(lambda: file_lines(box, "queuectld.jsonl"), "the daemon writes to the new file")
    queuectl(box, "run", "--id", "after", "true")
    old, new = file_lines(box, "queuectld.jsonl.1"), file_lines(box, "queuectld.jsonl")
    assert (len(attempts(old, "before")), len(attempts(new, "after"))) == (1, 1)
    assert box.run("stat", "--format", "%a %U %G", file) == "640 root adm"
    box.run("rm", "/etc/queuectl/queuectld.toml")
    box.run("systemctl", "restart", "queuectld")


def unpack(box: Box) -> None:
    """Put the packages that were only fetched into the machine; what is installed there stays outside as it is."""
    each = "dpkg-deb --fsys-tarfile $package | tar --extract --keep-directory-symlink --directory /"
    box.run("sh", "-ec", f"for package in {PACKAGES}/*.deb; do {each}; done; systemctl daemon-reload")


@pytest.fixture(scope="module")
def syslog_ng() -> Iterator[Box]:
    fetched = list(PACKAGES.glob("syslog-ng-core_*.deb"))
    if not fetched and installed("syslog-ng") is None:
        pytest.skip(f"syslog-ng-core is not installed, and not fetched into {PACKAGES} as .ci/run does")
    with boot(units(**{"__etc__syslog-ng__conf.d__queuectl.conf": DEPLOY / "log" / "syslog-ng.conf"})) as found:
        if fetched:
            unpack(found)
        found.run("systemctl", "start", "syslog-ng", "queuectld")
        yield found


def test_syslog_ng_takes_the_fields_out_and_leaves_what_is_no_json_apart(syslog_ng: Box) -> None:
    box = syslog_ng
    queuectl(box, "run", "--id", "routed", "--max-retries", "0", "exit 7")
    box.run("logger", "--tag", "queuectld", "Fatal Python error: no JSON at all")

    def row() -> str:
        return box.run("cat", f"{LOGS}/jobs.log", check=False)

    found = wait_for(row, f"syslog-ng wrote the row: {box.journal('syslog-ng')}")
    (line,) = attempts(lines(box), "routed")
    beginning, _, rest = found.partition(" duration_ms=")
    assert beginning == f"{line['timestamp']} routed attempt=1 state=dead reason=exited exit_code=7 signal="
    duration, *others = rest.split()
    # Its JSON parser writes six decimals.
    assert (float(duration), others) == (line["duration_ms"], ["queue=default", "owner=root"])
    wait_for(lambda: "no JSON" in box.run("cat", f"{LOGS}/syslog-ng-other.log", check=False), "text goes elsewhere")
    assert file_lines(box, "syslog-ng.jsonl") == lines(box)


def test_syslog_ng_keeps_long_lines_whole(syslog_ng: Box) -> None:
    found = run_as_program(syslog_ng, LONG)

    told = [check_line(entry["MESSAGE"].encode()) for entry in found]
    wait_for(lambda: [one for one in file_lines(syslog_ng, "syslog-ng.jsonl") if one in told] == told, "it wrote them")


LNAV = DEPLOY / "log" / "lnav.json"
COMMON = {"service": "queuectld", "version": "1", "pid": 7}
SAMPLE = [
    {"timestamp": "2026-11-24T07:00:00.000001Z", "level": "info", "message": "Ready", "event": "daemon.ready"} | COMMON,
    {"timestamp": "2026-11-24T07:00:01.000002Z", "level": "warning", "message": "Job finished", "event": "job.finished"}
    | COMMON
    | {"job_id": "a", "attempt": 2, "state": "dead", "exit_code": 3, "duration_ms": 1.5},
    {
        "timestamp": "2026-11-24T07:00:02.000003Z",
        "level": "critical",
        "message": "Cannot go on",
        "event": "daemon.failed",
    }
    | COMMON
    | {"error": "x"},
]


@pytest.mark.skipif(installed("lnav") is None, reason="lnav is not installed; Debian has it in lnav")
@pytest.mark.parametrize("piped", [False, True], ids=["a file", "journalctl -o cat |"])
def test_lnav_answers_questions_about_the_log(tmp_path: Path, *, piped: bool) -> None:
    log = tmp_path / "queuectld.jsonl"
    sample = "".join(f"{json.dumps(line)}\n" for line in SAMPLE).encode()
    check_log(sample)
    log.write_bytes(sample)
    environ = os.environ | {"HOME": str(tmp_path), "TERM": "dumb"}
    subprocess.run(["lnav", "-i", LNAV], env=environ, check=True, capture_output=True, timeout=60)

    question = ";SELECT log_level, event, job_id, exit_code, duration_ms FROM queuectl_log WHERE log_level >= 'warning'"
    asked = subprocess.run(
        ["lnav", "-n", "-c", question, "-c", ":write-json-to -", *([] if piped else [log])],
        env=environ,
        input=sample if piped else b"",
        capture_output=True,
        timeout=60,
        check=True,
    )

    assert [tuple(row.values()) for row in json.loads(asked.stdout)] == [
        ("warning", "job.finished", "a", 3, 1.5),
        ("critical", "daemon.failed", None, None, None),
    ]


KINDS = {"string": "string", "integer": "integer", "number": "float"}


def test_lnav_is_told_the_types_that_the_fields_have() -> None:
    values = json.loads(LNAV.read_text())["queuectl_log"]["value"]
    types = {name: rule.get("type", "string") for name, rule in {**CORE, **FIELDS}.items()}

    assert values
    for name, value in values.items():
        assert value["kind"] == KINDS[types[name]], name
