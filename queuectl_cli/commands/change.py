"""``cancel``, ``retry``, ``undelete``: verbs over many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from queuectl_cli.client import Message
from queuectl_cli.errors import CliError, RefusedError
from queuectl_cli.jobflags import duration
from queuectl_cli.options import App, common, confirmation, stack
from queuectl_cli.render import Output, plural
from queuectl_cli.selection import bulk, selector, selector_options, take

retry_options = stack(
    [
        click.option("--in", "--delay", "delay", type=duration, metavar="DUR", help="Not before this time from now."),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many."),
        click.option("--spread", type=duration, metavar="DUR", help="Spread their starts over this time."),
    ]
)


@click.command
@selector_options(all_option=True)
@click.option("--reason", metavar="TEXT", help="Why; kept with the job.")
@click.option("--kill-after", type=duration, metavar="DUR", help="Time between TERM and KILL.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the last process is gone.")
@confirmation
@common()
@click.pass_obj
def cancel(app: App, /, *, reason: str | None, kill_after: float | None, no_wait: bool, **options: Any) -> None:
    """End jobs: those that wait at once, those that run with TERM and then KILL."""
    client = app.connect()
    fields = {"reason": reason, "kill_after": kill_after, "no_wait": no_wait or None}
    select = selector(take(options))
    report(app, bulk(app, client, "cancel", select, options, **fields), select, options, ("Cancelled", "cancel"))


@click.command
@selector_options(all_option=True)
@retry_options
@confirmation
@common()
@click.pass_obj
def retry(app: App, /, *, delay: float | None, limit: int | None, spread: float | None, **options: Any) -> None:
    """Run jobs again: dead, cancelled and completed ones, and those that wait for their retry.

    Without ids and --state: failed and dead ones, but for those whose end somebody has seen (in queuectl run).
    """
    client = app.connect()
    select = selector(take(options))
    if (select or options["all_"]) and not {"ids", "state"} & select.keys():
        select["seen"] = False
    answer = bulk(app, client, "retry", select, options, delay=delay, limit=limit, spread=spread)
    report(app, answer, select, options, ("Back in the queue:", "retry"))


@click.command
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@common()
@click.pass_obj
def undelete(app: App, ids: tuple[str, ...], *, dry_run: bool) -> None:
    """Bring discarded jobs back as they were; possible for a day."""
    client = app.connect()
    select = {"ids": list(ids)}
    answer = bulk(app, client, "undelete", select, {"dry_run": dry_run})
    report(app, answer, select, {"dry_run": dry_run}, ("Brought back", "bring back"))


def report(app: App, answer: Message, select: dict[str, Any], options: dict[str, Any], words: tuple[str, str]) -> None:
    """Say what a bulk change did. Raises `CliError` if a part of it was refused or is not done."""
    output = Output(app)
    done, verb = words
    if output.format in {"json", "jsonl"}:
        output.document({**answer, "dry_run": bool(options.get("dry_run"))})
    elif output.format == "name" or not output.person:
        output.lines(answer["jobs"])
        if answer["count"] > len(answer["jobs"]):
            app.say(f"… {plural(answer['count'])} in all")
    elif options.get("dry_run"):
        output.lines([f"Would {verb} {plural(answer['count'])}{_sample(answer)}."])
    elif answer["count"] or not answer.get("refused"):
        output.lines([f"{done} {plural(answer['count'])}{_sample(answer)}."])
    if verb == "discard" and output.person and answer["count"] and not options.get("dry_run"):
        app.say("Bring back, within a day:  queuectl undelete ID")
    complain(app, answer, select.get("ids", ()))


def _sample(answer: Message) -> str:
    few = answer["jobs"][:5]
    return f" ({', '.join(few)}{', …' if answer['count'] > len(few) else ''})" if few else ""


def complain(app: App, answer: Message, ids: Sequence[str]) -> None:
    """Raise what was refused: one job as itself, several as one error after a line for each."""
    for line in answer.get("pending", ()):
        app.say(f"not ended yet: {line}")
    refused = answer.get("refused", ())
    if len(refused) == 1 and not answer["count"]:
        raise RefusedError(refused[0], job=_name(refused[0], ids))
    if refused:
        for body in refused:
            app.say(f"{_name(body, ids)}: {body['message']}" if body["index"] < len(ids) else body["message"])
        codes = {RefusedError(body).status for body in refused}
        status = codes.pop() if len(codes) == 1 and not answer["count"] else 1
        raise CliError(f"{plural(len(refused))} refused, {answer['count']:,} done", code="refused", status=status)
    if answer.get("pending"):
        raise CliError(f"{plural(len(answer['pending']))} could not be ended yet", code="pending")


def _name(body: Message, ids: Sequence[str]) -> str:
    return ids[body["index"]] if body["index"] < len(ids) else "ID"
