"""``queuectl events``: what happened."""

from __future__ import annotations

import sys
from typing import Any

import click

from queuectl_cli.client import Client
from queuectl_cli.errors import CliError
from queuectl_cli.narrate import as_line
from queuectl_cli.options import App, common
from queuectl_cli.render import Output
from queuectl_cli.tailing import come_back, interrupted


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
    # Without --follow there is only the past to tell.
    begin = 0 if start is None and not follow else start
    client = app.connect()
    if output.format == "json":
        stream = client.stream("events", start=begin, job=job, limit=limit)
        output.rows(stream, ())
        return
    printed = _Printed(output, begin)
    while True:
        try:
            printed.copy(client, follow=follow or None, job=job, limit=limit)
        except CliError as error:
            if not (follow and interrupted(error)):
                raise
            client = come_back(app, client, error)
        else:
            return


class _Printed:
    """What has been printed, so that one can go on after it."""

    def __init__(self, output: Output, begin: int | None) -> None:
        self._output = output
        self._next = begin

    def copy(self, client: Client, **fields: Any) -> None:
        """Print events as they come."""
        for event in client.stream("events", start=self._next, **fields):
            if self._output.format == "jsonl":
                self._output.document(event)
            elif self._output.format == "name":
                self._output.lines([str(event["number"])])
            else:
                self._output.lines([as_line(event, utc=self._output.app.utc)])
            sys.stdout.flush()
            self._next = event["number"] + 1
