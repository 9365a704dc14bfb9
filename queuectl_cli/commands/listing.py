"""``queuectl list``: which jobs there are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.errors import UsageError
from queuectl_cli.options import App, common
from queuectl_cli.render import Column, Output, Row, command_of, exit_of, plain, plural
from queuectl_cli.selection import pages, resolve_last, selector, selector_options, take

_ON_A_TERMINAL: Final = 100
# Words of `waiting` that say until when.
_UNTIL: Final = {"not_due": "not due", "retry_wait": "retry"}


def columns(output: Output) -> list[Column]:
    """Return the columns of a listing of jobs."""
    return [
        Column("ID", lambda job: str(job["id"])),
        Column("STATE", lambda job: str(job["state"])),
        Column("QUEUE", lambda job: str(job["queue"]), dull="default"),
        Column("PRIO", lambda job: plain(job["priority"]), dull="0", right=True),
        Column("RUNS", lambda job: plain(job["attempts"]), dull="0", right=True),
        Column("LEFT", lambda job: plain(job["retries_left"]), wide=True, right=True),
        Column("EXIT", _exit, dull="", right=True),
        Column("OWNER", lambda job: str(job["owner"]), varies=True),
        Column("AGE", lambda job: output.when(job["created_at"]), right=True),
        Column("TOOK", _took, dull="", right=True),
        Column("WHY", lambda job: _why(job, output), dull="", stretches=True),
        Column("TAGS", lambda job: ",".join(f"{k}={v}" for k, v in (job["tags"] or {}).items()), dull="", wide=True),
        Column("COMMAND", command_of, stretches=True),
    ]


def _exit(job: Row) -> str:
    # That of the run before is no news of a job that runs, or will run, again.
    return "" if job["state"] in {"pending", "processing"} else exit_of(job)


def _took(job: Row) -> str:
    if job["duration"] is None:
        return ""
    from queuectld.domain.durations import format_duration  # noqa: PLC0415  (JSON does without it)

    return format_duration(job["duration"])


def _why(job: Row, output: Output) -> str:
    waiting = job.get("waiting")
    if waiting in _UNTIL:
        return f"{_UNTIL[waiting]} {output.when(job['run_at'])}"
    if waiting:
        # To be queued is what waiting jobs are; it is no reason.
        return "" if waiting == "queued" else str(waiting).replace("_", " ")
    if job["state"] in {"dead", "cancelled"}:
        return plain(job.get("error") or job.get("reason") or "")
    return ""


@click.command
@selector_options()
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the newest so many.")
@click.option("--reverse", is_flag=True, help="Newest first.")
@click.option("--sort", metavar="FIELD", help="By this field of the JSON form.")
@click.option("--count", is_flag=True, help="Only how many.")
@common()
@click.pass_obj
def list_jobs(app: App, /, **options: Any) -> None:
    """Show jobs, newest last: on a terminal the last 100, elsewhere all."""
    _list(app, selector(take(options)), options)


@click.command
@selector_options(any_state=False)
@common()
@click.pass_obj
def ps(app: App, /, **options: Any) -> None:
    """Show what runs: the same as list --state processing."""
    select = selector({**options, "state": ("processing",)})
    _list(app, select, {"limit": None, "reverse": False, "sort": None, "count": False})


def _list(app: App, select: dict[str, Any], options: Mapping[str, Any]) -> None:
    output = Output(app)
    client = app.connect()
    select = resolve_last(client, select)
    if options["count"]:
        _count(output, client.request("count", select=select, patience=None))
        return
    limit = options["limit"] or (_ON_A_TERMINAL if output.person and not options["sort"] else None)
    shown = output.rows(
        _jobs(client, select, options, limit), columns(output), empty="No such jobs." if select else "No jobs."
    )
    if output.person:
        _more(app, client, select, shown, limit)


def _count(output: Output, count: Message) -> None:
    if output.format in {"json", "jsonl"}:
        output.document(count)
    elif output.person and len(count["states"]) > 1:
        output.lines(
            [*(f"{number:>9,} {state}" for state, number in count["states"].items() if number), f"{count['total']:>9,}"]
        )
    else:
        sys.stdout.write(f"{count['total']}\n")


def _jobs(
    client: Client, select: Mapping[str, Any], options: Mapping[str, Any], limit: int | None
) -> Iterator[Message]:
    if options["sort"]:
        jobs = sorted(pages(client, select), key=lambda job: _sort_key(job, options["sort"]))
        jobs = jobs[-limit:] if limit else jobs
        return iter(jobs[::-1] if options["reverse"] else jobs)
    if options["reverse"]:
        return pages(client, select, limit=limit, newest_first=True)
    if limit is None:
        return pages(client, select)
    return iter(list(pages(client, select, limit=limit, newest_first=True))[::-1])


def _sort_key(job: Message, field: str) -> tuple[bool, Any]:
    if field not in job:
        raise UsageError(f"--sort: there is no field {field!r}; there are {', '.join(job)}")
    value = job[field]
    return (value is not None, value if isinstance(value, int | float) else plain(value))


def _more(app: App, client: Client, select: dict[str, Any], shown: int, limit: int | None) -> None:
    if limit is not None and shown == limit:
        total = client.request("count", select=select, patience=None)["total"]
        if total > shown:
            app.say(f"… and {total - shown:,} older; --limit N shows more, --count counts.")
    if select.get("state") == ["failed"]:
        dead = client.request("count", select={**select, "state": ["dead"], "seen": False}, patience=None)["total"]
        if dead:
            app.say(f"These wait for their next retry. {plural(dead)} failed for good:  queuectl dlq")
