"""``queuectl show``: everything about a job."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.errors import RefusedError
from queuectl_cli.options import App, common
from queuectl_cli.render import COLOURS, Column, Output, Row, clean, command_of, exit_of, paint, plain, sized, spanned
from queuectl_cli.selection import resolve_last
from queuectl_cli.times import epoch, spoken
from queuectld.domain.durations import format_duration

# Fields of the spec that the head of the page tells already.
_TOLD: Final = frozenset({"id", "command", "argv", "queue", "priority", "tags", "max_retries", "run_at", "delay"})
_FORMS: Final[dict[str, Callable[[Any], str]]] = {
    "umask": "{:04o}".format,
    **dict.fromkeys(("retry_for", "backoff_max", "timeout", "silent_timeout", "kill_after"), spanned),
    "success_codes": lambda codes: ", ".join(map(str, codes)),
    "no_retry_on": lambda words: ", ".join(map(str, words)),
    "env": lambda env: ", ".join(
        f"{name}={value}" if value is not None else name for name, value in sorted(env.items())
    ),
}
_LIMITS: Final[dict[str, Callable[[Any], str]]] = {"memory": sized, "cpu": spanned, "output": sized}
# Reasons that the state, or the exit code beside it, tells already.
_USUAL: Final = frozenset({None, "exited", "signalled", "cancelled"})


def _span(seconds: float | None) -> str:
    return "" if seconds is None else format_duration(seconds)


def _history(output: Output) -> list[Column]:
    return [
        Column("RUN", lambda row: str(row["number"]), right=True),
        Column("WORKER", lambda row: str(row["worker"])),
        Column("STARTED", lambda row: output.when(row["started_at"]), right=True),
        Column("TOOK", lambda row: _span(row["duration"]), right=True),
        Column("ENDED BY", lambda row: plain(row["reason"] or "(runs)")),
        Column("EXIT", exit_of, dull="", right=True),
        Column("CPU", lambda row: _span(row["cpu_seconds"]), dull="", right=True),
        Column("MEMORY", lambda row: _size(row["peak_memory"]), dull="", right=True),
        Column("OUTPUT", lambda row: _size(row["output_bytes"]), dull="0 B", right=True),
        Column("MESSAGE", lambda row: row["message"] or "", dull="", stretches=True),
    ]


def _size(count: int | None) -> str:
    from queuectld.domain.sizes import format_size  # noqa: PLC0415  (only for the page for people)

    return "" if count is None else format_size(count)


@click.command
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--with-env", is_flag=True, help="The values of its environment, too.")
@click.option("-n", "--lines", default=10, type=click.IntRange(0, 1000), metavar="N", help="Last lines of output.")
@common()
@click.pass_obj
def show(app: App, ids: tuple[str, ...], *, with_env: bool, lines: int) -> None:
    """Show everything about jobs: what was asked for, each attempt, the end of the output."""
    client = app.connect()
    details = [
        detail(client, name, tail=lines, with_env=with_env) for name in resolve_last(client, {"ids": list(ids)})["ids"]
    ]
    print_details(app, details)


def detail(client: Client, name: str, **options: Any) -> Message:
    """Return everything about one job."""
    try:
        return client.request("get", job=name, **options)
    except RefusedError as error:
        error.message = error.message if name in error.message else f"{error.message} ({name})"
        raise


def print_details(app: App, details: list[Message]) -> None:
    """Print jobs: always an array in JSON, however few they are."""
    output = Output(app)
    if output.format in {"json", "jsonl", "name"} or app.fields:
        output.rows([as_one(found) for found in details], ())
        return
    for number, found in enumerate(details):
        output.lines([""] * bool(number))
        output.lines(_page(found, output))


def as_one(found: Message) -> Row:
    """Return the promised form of a job: its fields, with ``history`` and all else beside them."""
    return {**found["job"], **{name: value for name, value in found.items() if name != "job"}}


def _page(found: Message, output: Output) -> list[str]:
    job = found["job"]
    head = [(name, value) for name, value in _head(job, found["spec"], output) if value]
    if found["env"]:
        head.append(("Environment", _environment(found["env"])))
    width = max(12, *(len(name) for name, _ in head))
    lines = [f"{name:<{width}} {value}" for name, value in head]
    if found["history"]:
        from queuectl_cli.render import table  # noqa: PLC0415  (beside its only use)

        lines += ["", *table(found["history"], _history(output), wide=False)]
        lines += _left(found["history"])
    if found["output_tail"]:
        lines += ["", f"Output (its end; all of it: queuectl logs {job['id']}):"]
        lines += [f"  {clean(line)}" for line in found["output_tail"].splitlines()]
    elif found["history"] and found["history"][-1].get("output_removed"):
        lines += ["", "Its output was removed to make room for newer ones (retention.output)."]
    return lines


def _left(history: list[Row]) -> list[str]:
    """Return a line for each attempt that left processes running."""
    lines = [
        f"Left by run {attempt['number']}, and ended unless kept: {clean(', '.join(attempt['leftovers']))}"
        for attempt in history
        if attempt["leftovers"]
    ]
    return ["", *lines] if lines else []


def _head(job: Row, spec: Row, output: Output) -> list[tuple[str, str]]:
    state = paint(job["state"], COLOURS.get(job["state"]), sys.stdout)
    return [
        ("Job", clean(job["id"])),
        ("Command", clean(command_of(job))),
        ("State", state + (f" ({plain(job['reason']).replace('_', ' ')})" if job["reason"] not in _USUAL else "")),
        ("Waiting", plain(job["waiting"]).replace("_", " ") if job["waiting"] else ""),
        ("Due", _when(job["run_at"], output) if job["waiting"] in {"not_due", "retry_wait"} else ""),
        ("Queue", f"{job['queue']}, priority {job['priority']}"),
        ("Owner", job["owner"]),
        ("Attempts", f"{job['attempts']}, {job['retries_left']} of {job['max_retries']} retries left"),
        ("Added", _when(job["created_at"], output)),
        ("Started", _when(job["started_at"], output)),
        ("Ended", _when(job["ended_at"], output)),
        ("Took", _span(job["duration"])),
        ("Exit", exit_of(job)),
        ("Error", clean(job["error"] or "")),
        ("Tags", ", ".join(f"{key}={value}" for key, value in job["tags"].items())),
        *_asked_for(spec),
    ]


def _asked_for(spec: Row) -> list[tuple[str, str]]:
    """Return what else the job asks for, each in the form in which a flag takes it."""
    flat = {name: value for name, value in spec.items() if name not in _TOLD and name != "limits"}
    limits = dict(spec.get("limits") or {})
    told = [(name, clean(_FORMS.get(name, plain)(value))) for name, value in flat.items()]
    action = limits.pop("output_action", "trim")
    bounds = {name: _LIMITS.get(name, plain)(value) for name, value in limits.items()}
    if action == "end":
        bounds["output"] = f"{bounds.get('output', 'as configured')}, more ends it"
    told += [(f"{name} limit", text) for name, text in bounds.items()]
    return [(name.replace("_", " ").capitalize(), text) for name, text in told]


def _when(text: str | None, output: Output) -> str:
    return spoken(epoch(text), output.now) if text and not output.app.utc else text or ""


def _environment(env: Row) -> str:
    if any(value is not None for value in env.values()):
        return "".join(f"\n  {clean(name)}={clean(plain(value))}" for name, value in sorted(env.items()))
    return f"{len(env)} variables (--with-env shows them)"
