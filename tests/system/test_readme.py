"""The README says nothing that is not so: its tour is walked, its diagram and its tables are those of the code."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from queuectld.config import load
from queuectld.domain import diagram
from queuectld.domain.durations import format_duration
from queuectld.domain.sizes import format_size
from queuectld.figures.table import as_markdown
from queuectld.keys import KEYS
from queuectld.server import rights
from tests.system.livedaemon import LiveDaemon

README = (Path(__file__).parents[2] / "README.md").read_text()
# Stands for anything in an output that is shown.
ANYTHING = "…"
MARK = "\x1e"


class Step(NamedTuple):
    command: str
    output: str


def tour() -> list[Step]:
    """Return the commands of the console blocks, each with the output that is shown."""
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            steps.append(Step(command, output.strip()))
    return steps


def as_script(steps: list[Step]) -> str:
    """Return one shell session, in which `$?` is what it would be if the commands were typed."""
    lines = ["code=0"]
    for step in steps:
        lines += [f"printf '{MARK}'", "(exit $code)", step.command, "code=$?"]
    return "\n".join(lines) + "\n"


def on_a_terminal(daemon: LiveDaemon, script: str) -> list[str]:
    """Run a script in bash on a terminal; return what each command leaves to be read there."""
    main, terminal = os.openpty()
    env = daemon.env | {"NO_COLOR": "1", "COLUMNS": "120", "TERM": "xterm"}
    del env["QUEUECTL_AUTOSTART"]
    words = f"exec bash -c {shlex.quote(script)}"
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", f"cd {daemon.home}; {words}"],
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, terminal, 1),
            (os.POSIX_SPAWN_DUP2, terminal, 2),
        ],
        setsid=True,
    )
    os.close(terminal)
    said = b"".join(iter(lambda: _read(main), b""))
    os.close(main)
    os.waitpid(pid, 0)
    parts = said.decode().replace("\r\n", "\n").replace("\x1b[K", "").split(MARK)[1:]
    # A line about progress is written over by the next.
    return [re.sub(r"^.*\r", "", part, flags=re.MULTILINE).strip() for part in parts]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # So a terminal tells that nobody has it open any more.
        return b""


# What varies from run to run and from place to place, and what it is taken for in both.
VARYING = {
    r"\(pid \d+, [a-z_][\w-]*\)": "(pid PID, USER)",
    r"\bpid \d+": "pid PID",
    r"(?<![\w/])(/[\w.-]+)+": "/PATH",
    r"\b(?=[a-z]*\d)[0-9a-hjkmnp-tv-z]{8}\b": "ID",
    r"\bnow\b(?! \d)|\b[\d.]+ ?(ms|s)\b": "SPAN",
    r"\b[\d.]+ MiB": "SIZE",
    r"\s+": " ",
}


def masked(text: str) -> str:
    for pattern, mask in VARYING.items():
        text = re.sub(pattern, mask, text)
    return text.strip()


def as_pattern(shown: str) -> str:
    return ".*".join(re.escape(masked(piece)).join(("\\s?", "\\s?")) for piece in shown.split(ANYTHING))


@pytest.mark.slow
def test_the_tour_says_what_it_is_shown_to_say(new_daemon: Callable[..., LiveDaemon]) -> None:
    steps = tour()

    said = on_a_terminal(new_daemon(), as_script(steps))

    assert len(said) == len(steps) > 10
    for step, output in zip(steps, said, strict=True):
        assert re.fullmatch(as_pattern(step.output), masked(output)), f"$ {step.command}\n{output}"
        assert "Error:" not in output


def between(mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", README, re.DOTALL)
    assert found, f"the README has no part marked {mark}"
    return found[1].strip()


def test_the_diagram_is_the_one_of_the_transition_table() -> None:
    assert between("states") == diagram.block()


def test_the_table_of_rights_is_the_one_by_which_requests_are_admitted() -> None:
    assert between("rights") == rights.table().strip()


def test_the_table_of_configuration_names_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", between("configuration"), re.MULTILINE)

    assert [name for name, _ in rows] == [key.name for key in KEYS.values()]
    for (name, default), key in zip(rows, KEYS.values(), strict=True):
        assert default == shown_default(key.default, key.unit), name


def shown_default(value: object, unit: str | None) -> str:
    match unit, value:
        case _, None:
            shown = "none"
        case "mode", int(mode):
            shown = f"`{mode:04o}`"
        case "bytes", int(size):
            shown = format_size(size)
        case "seconds", int(span) | float(span):
            shown = format_duration(span)
        case _, bool():
            shown = str(value).lower()
        case _, int() | float():
            shown = f"{value:,}".removesuffix(".0")
        case _:
            shown = f"`{value}`"
    return shown


def test_the_table_of_what_is_measured_is_the_one_of_the_code() -> None:
    assert between("metrics") == as_markdown().strip()


def test_the_configuration_that_turns_figures_on_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(metrics = .*?)^```", README, re.DOTALL | re.MULTILINE)
    (tmp_path / "queuectld.toml").write_text(block)

    config = load(tmp_path / "queuectld.toml", tmp_path / "overrides", {}).config

    assert config.metrics
    assert config.metrics_file


def test_the_figures_are_a_table_and_say_where_they_were_measured() -> None:
    table, _, source = between("figures").partition("\n\n")

    for what in ("drain: queuectl", "drain: xargs", "enqueue in bulk", "enqueue to start", "memory of a worker"):
        assert f"| {what}" in table
    assert re.match(r"Measured on \d{4}-\d\d-\d\d with version \d", source)


def test_every_program_the_readme_tells_people_to_run_is_there() -> None:
    for program in ("deploy/demo", "deploy/debian/build", "tests/run"):
        assert os.access(Path(__file__).parents[2] / program, os.X_OK), program
        assert program in README
