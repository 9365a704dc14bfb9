"""``queuectl dlq``: jobs that have used up their retries and wait for a person."""

from __future__ import annotations

from typing import Any

import click

from queuectl_cli.client import Client
from queuectl_cli.commands.change import report, retry_options
from queuectl_cli.commands.show import detail, print_details
from queuectl_cli.errors import RefusedError
from queuectl_cli.group import Group
from queuectl_cli.options import App, common, confirmation
from queuectl_cli.render import Column, Output, Row, command_of, exit_of, plain, plural
from queuectl_cli.selection import bulk, pages, resolve_last, selector, selector_options, take


@click.group(cls=Group, default=lambda _args: "list")
def dlq() -> None:
    """Jobs that have used up their retries: look at them (the default), run them again, or give them up."""


def _columns(output: Output) -> list[Column]:
    return [
        Column("ID", lambda job: str(job["id"])),
        Column("QUEUE", lambda job: str(job["queue"]), dull="default"),
        Column("RUNS", lambda job: plain(job["attempts"]), right=True),
        Column("REASON", lambda job: plain(job["reason"]), dull="exited"),
        Column("EXIT", exit_of, dull="", right=True),
        Column("DIED", lambda job: output.when(job["ended_at"] or job["updated_at"]), right=True),
        Column("OWNER", lambda job: str(job["owner"]), varies=True),
        Column("ERROR", lambda job: job["error"] or "", dull="", stretches=True),
        Column("COMMAND", command_of, stretches=True),
    ]


_seen = click.option("--seen", is_flag=True, help="Those that somebody has dealt with, instead of the others.")


@dlq.command("list")
@selector_options(any_state=False)
@_seen
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the newest so many.")
@common()
@click.pass_obj
def list_(app: App, /, *, seen: bool, limit: int | None, **options: Any) -> None:
    """Show dead jobs, the newest last."""
    output = Output(app)
    client = app.connect()
    select = resolve_last(client, {**selector(take(options)), "state": ["dead"]})
    # A job that is asked for by its id is shown, whoever has seen it.
    if seen or not select.get("ids"):
        select["seen"] = seen
    jobs = (
        pages(client, select)
        if limit is None
        else iter(list(pages(client, select, limit=limit, newest_first=True))[::-1])
    )
    count = output.rows(jobs, _columns(output), empty="The dead letter queue is empty.")
    if output.person and count:
        app.say(f"{plural(count)}. Run again:  queuectl dlq retry ID     Give up:  queuectl dlq discard ID")


@dlq.command("show")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--with-env", is_flag=True, help="The values of its environment, too.")
@common()
@click.pass_obj
def show(app: App, ids: tuple[str, ...], *, with_env: bool) -> None:
    """Show everything about dead jobs."""
    client = app.connect()
    names = _must_be_dead(client, list(ids), "show")
    print_details(app, [detail(client, name, with_env=with_env) for name in names])


@dlq.command("retry")
@selector_options(all_option=True, any_state=False)
@_seen
@retry_options
@confirmation
@common()
@click.pass_obj
def retry(app: App, /, *, delay: float | None, limit: int | None, spread: float | None, **options: Any) -> None:
    """Run dead jobs again, with all their retries."""
    client = app.connect()
    select = _chosen(client, options, "retry")
    answer = bulk(app, client, "retry", select, options, delay=delay, limit=limit, spread=spread)
    report(app, answer, select, options, ("Back in the queue:", "retry"))


@dlq.command("discard")
@selector_options(all_option=True, any_state=False)
@_seen
@confirmation
@common()
@click.pass_obj
def discard(app: App, /, **options: Any) -> None:
    """Give dead jobs up. They are gone after a day; until then: queuectl undelete ID."""
    client = app.connect()
    select = _chosen(client, options, "discard")
    report(app, bulk(app, client, "discard", select, options), select, options, ("Discarded", "discard"))


def _chosen(client: Client, options: dict[str, Any], verb: str) -> dict[str, Any]:
    """Return the selector; named jobs must be dead, conditions and --all mean those that `dlq list` shows."""
    select = selector(take(options))
    if set(select) == {"ids"} and not options["seen"]:
        return {"ids": _must_be_dead(client, select["ids"], verb)}
    if not (select or options["seen"] or options["all_"]):
        return {}
    return {**select, "state": ["dead"], "seen": options["seen"]}


def _must_be_dead(client: Client, ids: list[str], verb: str) -> list[str]:
    names: list[str] = resolve_last(client, {"ids": ids})["ids"]
    for name in names:
        job = detail(client, name, tail=0)["job"]
        if job["state"] != "dead":
            message = f"job '{job['id']}' is {job['state']}, not dead"
            raise RefusedError({"code": "wrong_state", "message": message}, *_instead(job, verb))
    return names


def _instead(job: Row, verb: str) -> list[str]:
    if verb == "show":
        return [f"Look at any job:  queuectl show {job['id']}"]
    if verb == "retry" and job["state"] in {"failed", "cancelled", "completed"}:
        return [f"Run it again:  queuectl retry {job['id']}"]
    return []
