"""``status``, ``ping``, ``version``, and nothing heavier."""

from __future__ import annotations

import time
from typing import Final

import click

from queuectl_cli.client import Message
from queuectl_cli.errors import UnreachableError
from queuectl_cli.isolation import in_words
from queuectl_cli.options import App, common
from queuectl_cli.render import Output, paint, plural
from queuectld.protocol.words import PROTOCOL, STATES, VERSION

# Seconds by which a daemon keeps clients waiting who notice it.
LATE: Final = 0.5
_STOPPED: Final = "no workers, so nothing runs:  queuectl worker start"


@click.command
@common()
@click.pass_obj
def ping(app: App) -> None:
    """See whether the daemon answers."""
    begin = time.monotonic()
    client = app.connect()
    pong = client.request("ping")
    took = time.monotonic() - begin
    output = Output(app)
    if output.format in {"json", "jsonl"}:
        output.document({**pong, "seconds": round(took, 6)})
    elif not app.quiet:
        output.lines([f"queuectld {pong['version']} (pid {pong['pid']}) answered in {took * 1000:.1f} ms"])


@click.command
@common()
@click.pass_obj
def version(app: App) -> None:
    """Show the versions of this program and of the daemon, if one answers."""
    try:
        client = app.connect()
        daemon: str | None = client.request("ping")["version"]
    except UnreachableError as error:
        if error.code == "protocol":
            raise
        daemon = None
    output = Output(app)
    if output.format in {"json", "jsonl"}:
        output.document({"queuectl": VERSION, "queuectld": daemon, "protocol": list(PROTOCOL)})
        return
    output.lines([f"queuectl   {VERSION}", f"queuectld  {daemon or '(no daemon answers)'}"])


@click.command
@common()
@click.pass_obj
def status(app: App) -> None:
    """Show how the queue and its daemon are."""
    found = app.connect().request("status")
    output = Output(app)
    if output.format in {"json", "jsonl"} or app.fields:
        output.document(found)
        return
    output.lines([*_head(found), "", *_states(found), *_queues(found)])
    if problems := [*found["problems"], *_lateness(found)]:
        output.lines(["", *(paint(f"! {problem}", "31") for problem in problems)])


def _head(found: Message) -> list[str]:
    from queuectld.domain.durations import format_duration  # noqa: PLC0415  (JSON does without it)

    where = found["socket"] + (f", state in {found['state_dir']}" if found["state_dir"] else "")
    who = f"pid {found['pid']}, {found['user']}"
    lines = [
        f"queuectld {found['version']}, {found['phase']} for {format_duration(found['uptime'])} ({who})",
        f"at {where}",
        f"{found['workers']} of {plural(found['limit'], 'worker')}" if found["limit"] else _STOPPED,
    ]
    # An older daemon does not tell it, and none tells a stranger how or where jobs run.
    if "isolation" in found and found["state_dir"]:
        lines.append(f"isolation: {in_words(found['isolation'])}")
    if found["oldest_waiting"] is not None:
        lines.append(f"the oldest job that could run waits for {format_duration(found['oldest_waiting'])}")
    if found["next_due"]:
        from queuectl_cli.times import distance, epoch  # noqa: PLC0415  (same)

        lines.append(f"the next job is due {distance(epoch(found['next_due']) - time.time())}")
    return lines


def _lateness(found: Message) -> list[str]:
    """Say that the daemon is late now; that it once was is in what `doctor` says."""
    lag = found["loop"]["lag"] if "loop" in found else 0.0
    return [f"the daemon is late by {lag:.1f} s: the host or its disk is overloaded"] if lag > LATE else []


def _states(found: Message) -> list[str]:
    from queuectl_cli.render import COLOURS  # noqa: PLC0415  (beside its only use)

    return [f"{found['states'].get(state, 0):>9,} {paint(state, COLOURS.get(state))}" for state in STATES]


def _queues(found: Message) -> list[str]:
    if [queue["name"] for queue in found["queues"]] in ([], ["default"]):
        return []
    rows = ["", "Queues:"]
    for queue in found["queues"]:
        told = ", ".join(f"{count:,} {state}" for state, count in queue["states"].items() if count)
        rows.append(f"  {queue['name']}: {told or 'empty'}")
    return rows
