"""``queuectl logs``: the output of jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from typing import Any

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.errors import CliError, UsageError
from queuectl_cli.options import App, common
from queuectl_cli.outcome import exit_code, exit_code_of_all
from queuectl_cli.reconnect import resumed, stopped
from queuectl_cli.render import Output
from queuectl_cli.selection import last, past_instant
from queuectl_cli.tailing import Event, Places, content, is_mark, missing, write_all


def attempt(text: str) -> int | str:
    """Return the number of an attempt, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"{text!r} is neither a number nor 'all'")
    return int(text)


def _exits(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:  # noqa: FBT001  (click's form)
    if value:
        ctx.obj.ours = 125
    return value


@click.command
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-f", "--follow", is_flag=True, help="Go on until they are over.")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Only the last so many lines.")
@click.option("--since", metavar="TIME", help="Only what was written since then (10m, 22:00).")
@click.option("--attempt", type=attempt, metavar="N|all", help="Of this attempt; else of the newest.")
@click.option("--stdout", "stream", flag_value="stdout", help="Only standard output.")
@click.option("--stderr", "stream", flag_value="stderr", help="Only standard error.")
@click.option("--path", is_flag=True, help="Where the output is, instead of the output.")
@click.option("--exit-status", is_flag=True, is_eager=True, callback=_exits, help="Exit as the job did.")
@common()
@click.pass_obj
def logs(app: App, /, ids: tuple[str, ...], **options: Any) -> None:
    """Show the output of jobs; without an id, of the last one. Standard error comes on standard error."""
    if options.pop("path"):
        _paths(app, ids, options)
    else:
        _logs(app, ids, options)


@click.command
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("-n", "--lines", type=click.IntRange(0), metavar="N", help="Only the last so many lines first.")
@common()
@click.pass_obj
def tail(app: App, ids: tuple[str, ...], *, lines: int | None) -> None:
    """Follow the output of jobs: the same as logs -f."""
    _logs(app, ids, {"follow": True, "lines": lines})


def _logs(app: App, ids: tuple[str, ...], options: dict[str, Any]) -> None:
    if len(ids) > 100:
        raise UsageError("at most 100 jobs at once")
    client = app.connect()
    jobs = [last(client) if name == "@last" else name for name in ids or ("@last",)]
    usual = {
        "jobs": jobs,
        "attempt": options.get("attempt"),
        "follow": options.get("follow") or None,
        "stream": options.get("stream"),
        "lines": options.get("lines"),
        "since": past_instant(options.get("since"), "--since", time.time()),
    }
    finished = _copy(app, client, {name: value for name, value in usual.items() if value is not None})
    if options.get("exit_status"):
        raise click.exceptions.Exit(exit_code(finished[0]) if len(finished) == 1 else exit_code_of_all(finished))


def _paths(app: App, ids: tuple[str, ...], options: dict[str, Any]) -> None:
    if any(value for name, value in options.items() if name != "attempt"):
        raise UsageError("with --path goes --attempt, and no other option")
    client = app.connect()
    output = Output(app)
    names = [last(client) if name == "@last" else name for name in ids or ("@last",)]
    rows = [row for name in names for row in _files(client, name, options["attempt"])]
    if output.format in {"json", "jsonl"}:
        output.rows(rows, ())
    else:
        output.lines(row["path"] for row in rows)


def _files(client: Client, name: str, which: int | str | None) -> list[Message]:
    found = client.request("get", job=name, tail=0)
    job, history = found["job"]["id"], found["history"]
    chosen = (
        history if which == "all" else history[-1:] if which is None else [a for a in history if a["number"] == which]
    )
    rows = [{"job": job, "attempt": a["number"], "path": a["output_file"]} for a in chosen if a["output_file"]]
    if not rows:
        raise CliError(f"there is no output of {f'attempt {which} of ' * isinstance(which, int)}job '{job}'")
    return rows


def _copy(app: App, client: Client, usual: dict[str, Any]) -> list[Message]:
    places = Places(usual)
    writer = _writer(app, usual["jobs"])
    pieces = _pieces(client, places)
    if "follow" in usual:
        pieces = resumed(app, client, lambda client: _pieces(client, places))
    while True:
        try:
            event = next(pieces)
        except StopIteration as end:
            writer.end()
            finished: list[Message] = end.value
            return finished
        if note := missing(event):
            app.say(note)
        data = content(event)
        if not is_mark(event):
            writer.write(event, data)
        places.passed(event, len(data))


def _pieces(client: Client, places: Places) -> Generator[Event, None, list[Message]]:
    answer = yield from client.stream("logs", **places.request())
    if answer.get("stopped"):
        raise stopped()
    return list(answer["jobs"])


class _Writer:
    """Writes pieces as they are."""

    def write(self, event: Event, data: bytes) -> None:
        """Write one piece where it belongs."""
        write_all(2 if event["stream"] == "stderr" else 1, data)

    def end(self) -> None:
        """Write what is left."""


class _Prefixed(_Writer):
    """Writes whole lines with the job in front; the streams of several jobs would mingle else."""

    def __init__(self, jobs: list[str]) -> None:
        self._width = max(map(len, jobs))
        self._rest: dict[tuple[str, str], bytes] = {}

    def write(self, event: Event, data: bytes) -> None:
        """Write the lines that are whole."""
        source = (event["job"], event["stream"])
        *lines, rest = (self._rest.get(source, b"") + data).split(b"\n")
        self._rest[source] = rest
        for line in lines:
            self._line(source, line)

    def _line(self, source: tuple[str, str], line: bytes) -> None:
        write_all(2 if source[1] == "stderr" else 1, f"{source[0]:<{self._width}} | ".encode() + line + b"\n")

    def end(self) -> None:
        """Write last lines without an end."""
        for source, rest in self._rest.items():
            if rest:
                self._line(source, rest)


class _Objects(_Writer):
    """Writes the events themselves, for programs."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, event: Event, data: bytes) -> None:  # noqa: ARG002  (the event has the data)
        """Write one line of JSON."""
        self._output.document(event)
        sys.stdout.flush()


def _writer(app: App, jobs: list[str]) -> _Writer:
    if app.for_programs:
        return _Objects(Output(app))
    return _Prefixed(jobs) if len(jobs) > 1 else _Writer()
