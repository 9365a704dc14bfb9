"""``queuectl worker``: the processes that run jobs."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.group import Group
from queuectl_cli.narrate import as_worker_line
from queuectl_cli.options import App, common
from queuectl_cli.render import Column, Output, plural
from queuectl_cli.tailing import follow_events, next_event


def _default(args: list[str]) -> str:
    """`worker --count 3` starts workers; `worker` lists them."""
    return "start" if any(word.partition("=")[0] in {"--count", "--follow"} for word in args) else "list"


@click.group(cls=Group, default=_default)
def worker() -> None:
    """Show and set the processes that run jobs, one job each at a time. They start on demand.

    Without a command they are listed; queuectl worker --count N is short for queuectl worker start --count N.
    """


def _columns(output: Output) -> list[Column]:
    return [
        Column("NAME", lambda row: str(row["name"])),
        Column("PHASE", lambda row: str(row["phase"])),
        Column("PID", lambda row: str(row["pid"]), right=True),
        Column("JOB", lambda row: row["job"] or "", dull=""),
        Column("RUN", lambda row: str(row["attempt"] or ""), dull="", right=True),
        Column("SINCE", lambda row: output.when(row["since"]), right=True),
        Column("DONE", lambda row: str(row["jobs_done"]), right=True),
        Column("MEMORY", _memory, dull="", right=True),
        Column(
            "FILES", lambda row: "" if row["descriptors"] is None else str(row["descriptors"]), wide=True, right=True
        ),
        Column(
            "CPU", lambda row: "" if row["cpu_seconds"] is None else f"{row['cpu_seconds']:.1f}s", wide=True, right=True
        ),
    ]


def _memory(row: Any) -> str:
    from queuectld.domain.sizes import format_size  # noqa: PLC0415  (JSON does without it)

    return "" if row["memory"] is None else format_size(row["memory"])


@worker.command("list")
@common()
@click.pass_obj
def list_(app: App) -> None:
    """Show the workers."""
    _print(app, app.connect().request("worker_list"))


@worker.command("start")
@click.option("--count", type=click.IntRange(1, 10_000), metavar="N", help="How many may run at once; kept.")
@click.option("--follow", is_flag=True, help="Show what they do until Ctrl-C, which leaves them running.")
@common()
@click.pass_obj
def start(app: App, *, count: int | None, follow: bool) -> None:
    """Start workers: N of them, or as many as are configured."""
    client = app.connect(start=True)
    begin = next_event(client) if follow else 0
    pool = client.request("worker_start", count=count)
    output = Output(app)
    if output.format == "table":
        output.lines([f"{plural(pool['limit'], 'worker')} may run; {len(pool['workers'])} here:"])
    if pool["workers"] or output.format != "table":
        _print(app, pool)
    if follow:
        sys.stdout.flush()
        _follow(app, client, begin)


@worker.command("stop")
@click.option("--now", is_flag=True, help="Interrupt running jobs; they go back to their queues.")
@common()
@click.pass_obj
def stop(app: App, *, now: bool) -> None:
    """Stop all workers until the next start; running jobs may end first."""
    pool = app.connect().request("worker_stop", now=now or None)
    output = Output(app)
    if output.format == "table":
        busy = sum(row["job"] is not None for row in pool["workers"])
        rest = f" {plural(busy)} still running." if busy else ""
        output.lines([f"No worker takes new jobs.{rest} Start again:  queuectl worker start"])
    else:
        _print(app, pool)


def _print(app: App, pool: Message) -> None:
    output = Output(app)
    limit = pool["limit"]
    empty = (
        f"No workers now; up to {limit:,} start on demand." if limit else "Workers are stopped:  queuectl worker start"
    )
    output.rows(pool["workers"], _columns(output), name="name", empty=empty)


def _follow(app: App, client: Client, begin: int) -> None:
    output = Output(app)
    try:
        for event in follow_events(app, client, begin):
            if output.format in {"json", "jsonl"}:
                output.document(event)
            elif line := as_worker_line(event, time.time()):
                output.lines([line])
            sys.stdout.flush()
    except KeyboardInterrupt:
        app.say("\nThe workers go on; stop them:  queuectl worker stop")
