"""``queuectl events``: what happened."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from queuectl_cli.narrate import as_line
from queuectl_cli.options import App, common
from queuectl_cli.render import Output
from queuectl_cli.tailing import Event, follow_events, next_event


@click.command
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("--from", "start", type=click.IntRange(0), metavar="N", help="From this number on.")
@click.option("--job", metavar="ID", help="Only of this job.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@common()
@click.pass_obj
def events(app: App, *, follow: bool, start: int | None, job: str | None, limit: int | None) -> None:
    """Show what happened; each event has a number, from which a program can go on and miss nothing."""
    output = Output(app)
    if output.format == "json" and follow:
        # An array that never ends is of no use to anybody.
        output.format = "jsonl"
    client = app.connect()
    if follow:
        begin = next_event(client) if start is None else start
        told: Iterator[Event] = follow_events(app, client, begin, job=job, limit=limit)
    else:
        # There is only the past to tell.
        told = client.stream("events", start=start or 0, job=job, limit=limit)
    if output.format == "json":
        output.rows(told, ())
        return
    for event in told:
        _print(output, event)
        sys.stdout.flush()


def _print(output: Output, event: Event) -> None:
    if output.format == "jsonl":
        output.document(event)
    elif output.format == "name":
        output.lines([str(event["number"])])
    else:
        output.lines([as_line(event, utc=output.app.utc)])
