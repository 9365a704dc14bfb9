from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld import log_events, log_line
from queuectld.domain.transitions import Event
from queuectld.log_ecs import to_ecs
from queuectld.protocol.worker_messages import WORKER_SOCKET
from tests import log_table
from tests.log_schema import SCHEMA, check_line, check_log, complaints

ROOT = Path(__file__).parents[2]

START = """
import os, structlog
from queuectld.log import set_up
logs = set_up(environ=os.environ, **OPTIONS)
log = structlog.get_logger()
"""


@pytest.fixture
def logged(tmp_path):
    """Run a program that logs; return what it wrote to stderr, which is a file."""

    def run(program: str, *, environ: dict[str, str] | None = None, **options) -> bytes:
        path = tmp_path / "log"
        source = START.replace("OPTIONS", repr(options)) + textwrap.dedent(program)
        with path.open("wb") as stderr:
            found = os.fstat(stderr.fileno())
            variables = {
                name: value.format(stream=f"{found.st_dev}:{found.st_ino}") for name, value in (environ or {}).items()
            }
            subprocess.run(
                [sys.executable, "-c", source], stderr=stderr, env=os.environ | variables, check=False, timeout=60
            )
        return path.read_bytes()

    return run


def test_a_line_is_one_flat_object_with_the_common_fields_first(logged):
    (line,) = check_log(
        logged("""log.info("Job finished", event_name="job.finished", job_id="a", exit_code=0, signal=None)""")
    )

    assert line.pop("timestamp").endswith("Z")
    assert line.pop("pid") > 0
    assert line.pop("version")
    assert line == {
        "level": "info",
        "message": "Job finished",
        "event": "job.finished",
        "service": "queuectld",
        "job_id": "a",
        "exit_code": 0,
    }


def test_what_is_not_important_enough_is_left_out_and_that_can_change(logged):
    lines = check_log(
        logged("""
        log.debug("1", event_name="job.finished")
        logs.set_level("debug")
        log.debug("2", event_name="job.finished")
        logs.set_level("error")
        log.warning("3", event_name="job.finished")
        log.error("4", event_name="job.finished")
        log.critical("5", event_name="job.finished")
        """)
    )

    assert [(line["level"], line["message"]) for line in lines] == [("debug", "2"), ("error", "4"), ("critical", "5")]


def test_an_exception_is_told_in_fields_without_the_values_of_variables(logged):
    (line,) = check_log(
        logged("""
        def fail(password):
            raise ValueError("it broke")
        try:
            fail("hunter" + str(2))
        except ValueError:
            log.exception("The daemon cannot go on", event_name="daemon.failed")
        """)
    )

    assert (line["level"], line["error_type"], line["error_message"]) == ("error", "ValueError", "it broke")
    assert "in fail" in line["traceback"]
    assert "hunter2" not in json.dumps(line)


def test_libraries_warnings_and_unhandled_errors_take_the_same_way(logged):
    lines = check_log(
        logged("""
        import asyncio, logging, threading, warnings
        logging.getLogger("watchdog").warning("lost %s", "sight")
        logging.getLogger("watchdog").info("watching")
        logging.getLogger("asyncio").debug("using epoll")
        logging.getLogger("bad").error("no %d", "number")
        warnings.warn("careful")

        async def forgotten():
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        asyncio.run(forgotten())
        thread = threading.Thread(target=lambda: {}["thread"])
        thread.start()
        thread.join()

        class Bad:
            def __del__(self):
                raise OSError("in __del__")

        Bad()
        raise RuntimeError("the end")
        """)
    )

    told = [(line["event"], line.get("logger"), line["level"], line.get("error_type")) for line in lines]
    assert told == [
        ("library.message", "watchdog", "warning", None),
        ("library.message", "watchdog", "info", None),
        ("library.message", "bad", "error", None),
        ("library.warning", "py.warnings", "warning", None),
        ("library.message", "asyncio", "error", "ZeroDivisionError"),
        ("uncaught", None, "critical", "KeyError"),
        ("uncaught", None, "critical", "OSError"),
        ("uncaught", None, "critical", "RuntimeError"),
    ]
    assert lines[0]["message"] == "lost sight"
    assert lines[2]["message"] == "no %d"


def test_long_values_are_cut_and_the_line_stays_whole(logged):
    lines = check_log(
        logged("""
        log.info("1", event_name="job.finished", error="x" * 100_000)
        log.info("2" * 99_999, event_name="job.finished", job_id="a", error="\\0" * 9_999, leftovers=["y" * 999] * 99)
        log.info("3", event_name="job.finished", **{f"field{n}": "z" * 60 for n in range(3_000)})
        """)
    )

    assert all(line["truncated"] for line in lines)
    assert len(lines[0]["error"]) > 4000
    assert lines[1]["job_id"] == "a"
    assert lines[2]["message"] == "3"


def test_odd_values_become_something_json_can_hold(logged):
    (line,) = check_log(
        logged(r"""
        import enum, pathlib
        Colour = enum.Enum("Colour", "RED")
        log.info("x\ny", event_name="job.finished", path=pathlib.Path("/a"), raw=b"\xff", lone="\udcff", big=1 << 80,
                 nan=float("nan"), colour=Colour.RED, pair=(1, None), nested={"a": 1}, **{"a.b": 1})
        """)
    )

    odd = {name: line[name] for name in ("path", "raw", "lone", "big", "nan", "colour", "pair", "nested", "a_b")}
    assert odd == {
        "path": "/a",
        "raw": "�",
        "lone": "?",
        "big": str(1 << 80),
        "nan": "nan",
        "colour": 1,
        "pair": [1, "None"],
        "nested": "{'a': 1}",
        "a_b": 1,
    }


def test_environments_are_never_told(logged):
    raw = logged("""log.info("x", event_name="job.finished", env={"TOKEN": "hunter2"}, environment="hunter2")""")

    assert b"hunter2" not in raw
    check_log(raw)


def test_the_common_fields_cannot_be_overwritten(logged):
    (line,) = check_log(logged("""log.info("x", event_name="job.finished", pid=-5, service="other", version=1)"""))

    assert line["service"] == "queuectld"
    assert line["pid"] > 0


PROGRAM = """
for level in ("debug", "info", "warning", "error", "critical"):
    getattr(log, level)("x", event_name="job.finished")
"""


def test_the_priority_stands_in_front_only_where_the_journal_reads(logged):
    journal = logged(PROGRAM, environ={"JOURNAL_STREAM": "{stream}"}, level="debug")
    file = logged(PROGRAM, environ={"JOURNAL_STREAM": "1:2"}, level="debug")

    assert [line[:3] for line in journal.splitlines()] == [b"<7>", b"<6>", b"<4>", b"<3>", b"<2>"]
    assert [check_line(line[3:])["level"] for line in journal.splitlines()] == [
        "debug",
        "info",
        "warning",
        "error",
        "critical",
    ]
    assert len(check_log(file)) == 5


def test_the_console_form_is_for_people_and_plays_no_tricks_with_the_terminal(logged):
    raw = logged("""log.info("Job \\x1b[31m finished", event_name="job.finished", job_id="a\\rb")""", form="console")

    assert re.search(rb"\[info +\] Job \\x1b\[31m finished", raw)
    assert b"event=job.finished" in raw
    assert b"\x1b" not in raw
    assert b"\r" not in raw


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colours_unless_it_does_not_want_them(variables, coloured):
    controller, terminal = pty.openpty()
    source = START.replace("OPTIONS", "{}") + 'log.info("Job finished", event_name="job.finished")'
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | variables
    subprocess.run([sys.executable, "-c", source], stderr=terminal, env=environ, check=True, timeout=60)

    written = os.read(controller, 10_000)
    os.close(controller)
    os.close(terminal)

    assert b"Job finished" in written
    assert (b"\x1b[" in written) == coloured


def test_a_log_that_cannot_be_written_stops_nobody():
    source = START.replace("OPTIONS", "{}") + 'log.info("x", event_name="job.finished"); print("on")'
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=writer, check=True, timeout=60)
    os.close(writer)

    assert done.stdout == b"on\n"


def test_elastic_gets_its_own_names_and_nothing_else_differs(logged):
    program = """
    try:
        raise OSError("it broke")
    except OSError:
        log.exception("Job finished", event_name="job.finished", job_id="a", exit_code=3, leftovers=["x"], error="y")
    """
    (line,) = (json.loads(raw) for raw in logged(program, form="ecs").splitlines())

    assert line.pop("@timestamp").endswith("Z")
    assert line.pop("error.stack_trace").startswith("Traceback")
    assert line.pop("process.pid") > 0
    assert line.pop("service.version")
    assert line == {
        "log.level": "error",
        "message": "Job finished",
        "event.action": "job.finished",
        "service.name": "queuectld",
        "queuectl.job_id": "a",
        "queuectl.exit_code": 3,
        "queuectl.leftovers": ["x"],
        "queuectl.error": "y",
        "error.type": "OSError",
        "error.message": "it broke",
        "ecs.version": "8.11.0",
    }
    assert list(json.loads(logged(program, form="ecs").splitlines()[0]))[:3] == ["@timestamp", "log.level", "message"]


def test_long_lines_are_cut_in_the_form_for_elastic_as_well(logged):
    lines = check_log(
        logged(
            """
            log.info("1", event_name="job.finished", error="x" * 100_000)
            log.info("2", event_name="job.finished", **{f"f{n}": "z" * 5 for n in range(900)})
            """,
            form="ecs",
        )
    )

    assert [line["truncated"] for line in lines] == [True, True]


names = st.text(min_size=1).filter(lambda name: name not in log_events.CORE and name not in log_events.FIELDS)
things = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9000) | st.binary()
LINE = {
    "timestamp": "2026-11-24T07:00:00.000000Z",
    "level": "info",
    "message": "x",
    "event": "job.finished",
    "service": "queuectld",
    "version": "1",
    "pid": 1,
}


@given(st.dictionaries(names, things | st.lists(things, max_size=40), max_size=20), st.text())
def test_whatever_is_logged_is_a_valid_line(fields, message):
    flat = log_line.flatten(fields | LINE | {"message": message})

    plain = check_line(log_line.encode_line(flat) + b"\n")
    renamed = check_line(log_line.encode_line(flat, to_ecs) + b"\n")

    assert plain == renamed or plain.get("truncated") or renamed.get("truncated")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event", "job.unheard-of"),
        ("level", "loud"),
        ("timestamp", "2026-11-24 07:00"),
        ("pid", True),
        ("job_id", 5),
        ("exit_code", 256),
        ("more", None),
        ("more", {"a": 1}),
        ("more", [[1]]),
        ("leftovers", [1]),
        ("truncated", False),
    ],
)
def test_the_schema_refuses_other_lines(field, value):
    assert not complaints(LINE, SCHEMA)
    assert complaints(LINE | {field: value}, SCHEMA)


def test_the_shipped_schema_is_the_one_of_the_vocabulary():
    assert log_events.schema() == SCHEMA, "python -m queuectld.log_events > queuectld/log.schema.json"


def test_every_field_has_a_meaning_and_there_are_no_others():
    assert list(log_events.MEANINGS) == [*log_events.CORE, *log_events.FIELDS]


def test_the_help_page_has_the_events_and_fields_that_the_code_has():
    text = log_table.PAGE.read_text()

    assert log_table.page(text) == text, "python -m tests.log_table"
    assert "    job.finished         info warning  an attempt is over" in text
    assert max(map(len, text.splitlines())) <= log_table.WIDTH


def test_every_event_of_a_job_has_a_meaning():
    assert {event.value for event in Event} <= set(log_events.EVENTS)


METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
SOURCES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in sorted((ROOT / "queuectld").rglob("*.py"))}


def calls():
    """Every call in the daemon that logs: its place and its keywords."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                keywords = {keyword.arg: keyword.value for keyword in node.keywords}
                if "event_name" in keywords or _is_log(node.func):
                    yield f"{path}:{node.lineno}", keywords


def _is_log(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute) or function.attr not in METHODS:
        return False
    return ast.unparse(function.value).split(".")[-1].lstrip("_") in {"log", "logger", "get_logger()"}


def test_every_line_in_the_code_has_a_name_from_the_vocabulary_and_honest_fields():
    found = list(calls())

    assert found
    for place, keywords in found:
        assert "event_name" in keywords, f"{place} logs without event_name"
        named = [node.value for node in ast.walk(keywords["event_name"]) if isinstance(node, ast.Constant)]
        assert set(named) <= set(log_events.EVENTS), f"{place}: {named} is not in queuectld/log_events.py"
        reserved = set(keywords) & (set(log_events.CORE) | log_line.SECRET)
        assert not reserved, f"{place}: {reserved} cannot be fields of a line"
        untyped = set(keywords) - set(log_events.FIELDS) - {"event_name", "exc_info"}
        assert not untyped, f"{place}: {untyped} have no type in queuectld/log_events.py"


def test_every_name_of_the_vocabulary_is_used_and_there_are_no_others():
    named = re.compile(rf"(?:{'|'.join({name.partition('.')[0] for name in log_events.EVENTS})})(?:\.[a-z_]+)?")
    written = {
        node.value
        for path, tree in SOURCES.items()
        # Elastic's names are none of ours.
        if path.name not in {"log_events.py", "log_ecs.py"}
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and named.fullmatch(node.value)
    }
    used = {name for name in written if "." in name or name in log_events.EVENTS} - {WORKER_SOCKET}

    assert used == set(log_events.EVENTS)


def test_no_other_module_logs_by_itself():
    for path in (ROOT / "queuectld").rglob("*.py"):
        text = path.read_text()
        if path.name != "log.py":
            assert "logging.getLogger" not in text, path
            assert "import logging" not in text, path
