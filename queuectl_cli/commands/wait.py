"""``queuectl wait``: until jobs are over."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from queuectl_cli.client import Message
from queuectl_cli.errors import UsageError
from queuectl_cli.group import FamilyCommand
from queuectl_cli.jobflags import duration
from queuectl_cli.options import App, common
from queuectl_cli.outcome import exit_code, exit_code_of_all
from queuectl_cli.progress import Progress
from queuectl_cli.render import Column, Output, exit_of, plain, plural
from queuectl_cli.selection import known_states, resolve_last, selector, selector_options
from queuectl_cli.waiting import Waiting
from queuectld.protocol.words import FINAL_STATES, STATES

COLUMNS = (
    Column("ID", lambda row: str(row["id"])),
    Column("STATE", lambda row: str(row["state"])),
    Column("EXIT", exit_of, dull=""),
    Column("ERROR", lambda row: plain(row.get("error") or ""), dull="", stretches=True),
)


@click.command(cls=FamilyCommand)
@selector_options(all_option=True)
@click.option("--any", "any_", is_flag=True, help="The first one is enough.")
@click.option("--fail-fast", is_flag=True, help="End at the first that does not succeed.")
@click.option("--for", "for_", multiple=True, metavar="S,S", help="Until it is in this state instead of over.")
@click.option("--wait-for", type=duration, metavar="DUR", help="At most so long; then exit code 75.")
@common()
@click.pass_obj
def wait(app: App, /, *, any_: bool, fail_fast: bool, for_: tuple[str, ...], **given: Any) -> None:
    """Wait until jobs are over. Of one job it exits as the job did, of several with 0 if all succeeded."""
    states = known_states(for_)
    select_ = selector(given)
    if not select_ and not given["all_"]:
        raise UsageError("wait for which jobs? Give ids, a condition such as --queue, or --all")
    until = None if given["wait_for"] is None else time.monotonic() + given["wait_for"]
    client = app.connect()
    fields = {
        "select": resolve_last(client, select_),
        # What is over will never come to the state that was asked for.
        "until": [*dict.fromkeys((*states, *FINAL_STATES))] if states else None,
        "any": any_ or None,
        "fail_fast": fail_fast or None,
        "lend": os.environ.get("QUEUECTL_ATTEMPT_TOKEN"),
    }
    with Progress(app, "wait") as progress:
        jobs = Waiting(app, fields, until, progress).follow(client)
    if app.for_programs or len(jobs) > 1:
        Output(app).rows(jobs, COLUMNS)
    one = bool(jobs) and len(select_.get("ids", ())) == 1 and len(select_) == 1
    _summary(app, jobs, one=one)
    if states:
        raise click.exceptions.Exit(0 if all(job["state"] in states for job in jobs) else 1)
    raise click.exceptions.Exit(exit_code(jobs[0]) if one else exit_code_of_all(jobs))


def _summary(app: App, jobs: list[Message], *, one: bool) -> None:
    if one:
        if jobs[0]["state"] != "completed":
            app.say(
                f"Job '{jobs[0]['id']}' is {jobs[0]['state']}{': ' + jobs[0]['error'] if jobs[0].get('error') else ''}"
            )
        return
    counts = {state: sum(job["state"] == state for job in jobs) for state in STATES}
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    app.say(f"{plural(len(jobs))}{': ' + told if told else ''}")
