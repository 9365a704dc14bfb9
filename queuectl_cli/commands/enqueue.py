"""``queuectl enqueue``: hand jobs over."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from queuectl_cli.client import Message
from queuectl_cli.errors import CliError, RefusedError, UsageError
from queuectl_cli.forms import Job, Line, bulk_lines, from_words
from queuectl_cli.group import WordsCommand
from queuectl_cli.jobflags import job_fields, job_options
from queuectl_cli.options import App, common, stack
from queuectl_cli.render import Output, command_of, plural
from queuectl_cli.submission import Result, Sender, as_given, batches, inline, merged, submission
from queuectl_cli.tally import Tally

_FORM_OPTIONS = (
    click.option("--jsonl", is_flag=True, help="One JSON job a line, from - or @FILE; the default for them."),
    click.option("--lines", is_flag=True, help="One shell command a line, from - or @FILE."),
    click.option("--atomic", is_flag=True, help="All of them or none."),
    click.option("-n", "--dry-run", is_flag=True, help="Check, and store nothing."),
)


# Not the docstring: click wants the backspace itself in front of lines that stay as they are.
_HELP = """Add jobs; the answer is their ids. Options come before the command.

\b
  queuectl enqueue '{"id":"job1","command":"echo hello"}'
  queuectl enqueue 'sleep 5 && echo done'
  queuectl enqueue --in 10m --max-retries 5 -- rsync -a /src /dst
  queuectl enqueue --lines @commands.txt
  queuectl enqueue - < jobs.jsonl

All forms: queuectl help enqueue
"""


@click.command(cls=WordsCommand, options_metavar="[OPTIONS]", help=_HELP)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="JSON | CMD | -- ARGV... | - | @FILE")
@stack(_FORM_OPTIONS)
@job_options
@common()
@click.pass_obj
def enqueue(app: App, /, words: tuple[str, ...], *, explicit: bool, **flags: Any) -> None:
    """Add jobs; the answer is their ids."""
    fields = job_fields(flags, os.environ)
    source = _bulk_source(words, explicit=explicit, flags=flags)
    if source is None:
        _few(app, jobs_of(words, explicit=explicit, flags=flags, fields=fields), flags, fields)
    else:
        _many(app, source, flags, fields)


def jobs_of(
    words: Sequence[str], *, explicit: bool, flags: dict[str, Any], fields: dict[str, Any], verb: str = "enqueue"
) -> tuple[list[Job], dict[str, bytes]]:
    """Return the jobs that the command line asks for, and inputs too large to go inside them. Raises `UsageError`."""
    inputs: dict[str, bytes] = {}
    if flags["script"] is not None:
        if words:
            raise UsageError("--script is the whole job; leave out the command")
        jobs: list[Job] = [{}]
        inline(jobs[0], "script", _read(flags["script"], "--script"), inputs)
    elif words:
        jobs = from_words(words, explicit=explicit, which=_which, verb=verb)
    else:
        raise UsageError(
            "what is to be run?", f"As in:  queuectl {verb} 'echo hello'", f"More:   queuectl {verb} --help"
        )
    if len(jobs) > 1 and "id" in fields:
        raise UsageError("--id names one job, and here are several")
    if flags["stdin"] is not None:
        data = _read(flags["stdin"], "--stdin")
        for job in jobs:
            inline(job, "stdin", data, inputs)
    return [merged(job, fields) for job in jobs], inputs


def _which(name: str) -> str | None:
    from shutil import which  # noqa: PLC0415  (costs 5 ms, and is rarely needed)

    return which(name)


def _read(name: str, flag: str) -> bytes:
    try:
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {name}: {error.strerror}") from None


def _bulk_source(words: Sequence[str], *, explicit: bool, flags: dict[str, Any]) -> str | None:
    """Return ``-`` or the name of the file that jobs are read from; None if they stand on the command line."""
    asked = flags["jsonl"] or flags["lines"]
    if flags["jsonl"] and flags["lines"]:
        raise UsageError("--jsonl and --lines exclude each other")
    bulk = len(words) == 1 and not explicit and (words[0] == "-" or words[0].startswith("@"))
    if asked and not bulk:
        raise UsageError(f"--{'jsonl' if flags['jsonl'] else 'lines'} reads from - (standard input) or @FILE")
    if not bulk:
        return None
    for name in ("id", "script", "stdin"):
        if flags[name] is not None:
            raise UsageError(f"--{name} does not go with jobs from {words[0]}")
    return words[0].removeprefix("@")


# A few jobs, in one request.


def _few(app: App, found: tuple[list[Job], dict[str, bytes]], flags: dict[str, Any], fields: dict[str, Any]) -> None:
    jobs, inputs = found
    if len(jobs) > 1:
        lines = (Line(number, job, None) for number, job in enumerate(jobs, 1))
        _store(app, lines, flags, fields={}, word="job", inputs=inputs)
        return
    sender = sender_for(app, clean=fields.get("env_mode") == "clean", dry_run=flags["dry_run"])
    added = submit_one(app, sender, jobs[0], inputs)
    output = Output(app)
    if not output.person:
        _print_ids(output, [added])
    elif flags["dry_run"]:
        output.lines([f"Would add: {command_of(jobs[0])}{due(jobs[0], added, flags['tz'])}."])
    else:
        output.lines([f"Job '{added['id']}' added{due(jobs[0], added, flags['tz'])}."])


def sender_for(app: App, *, clean: bool, dry_run: bool = False) -> Sender:
    """Return what hands jobs over; a daemon is started if that is right."""
    client = app.connect(start=True)
    environ = as_given(os.environ)
    source = submission(environ, local=client.target.local, clean=clean)
    if left_out := [name for name in environ if "env" in source and name not in source["env"]]:
        names = ", ".join(name.encode(errors="backslashreplace").decode() for name in left_out)
        app.say(f"Note: not UTF-8, and so not passed on to jobs: {names}")
    return Sender(app, client, source, dry_run=dry_run)


def submit_one(app: App, sender: Sender, job: Job, inputs: dict[str, bytes]) -> Message:
    """Store one job; return what the daemon says of it. Raises `RefusedError`."""
    name = str(job.get("id", "ID"))
    try:
        answer = sender.submit([job], inputs)
    except RefusedError as error:
        raise RefusedError({"code": error.code, "message": error.message, "path": error.path}, job=name) from None
    if answer.get("refused"):
        raise RefusedError(answer["refused"][0], job=name)
    for warning in answer.get("warnings", ()):
        app.say(f"Note: {warning}")
    added: Message = answer["jobs"][0]
    return added


def _print_ids(output: Output, added: Iterable[Message]) -> int:
    if output.format in {"json", "jsonl"}:
        return output.rows(added, ())
    count = 0
    for count, job in enumerate(added, 1):  # noqa: B007  (it is the result)
        sys.stdout.write(f"{job['id']}\n")
    return count


def due(job: Job, added: Message, tz: str | None) -> str:
    """Return what was understood of a time, in the zone that it was given in."""
    if not ("delay" in job or "run_at" in job):
        return ""
    from queuectl_cli.times import epoch, spoken, zone  # noqa: PLC0415  (rarely needed)

    if added.get("run_at"):
        return f" for {spoken(epoch(added['run_at']), time.time(), zone(tz))}"
    if isinstance(job.get("run_at"), str):
        return f" for now: {spoken(epoch(job['run_at']), time.time(), zone(tz))}"
    return ""


# Many, in as many requests as they need.


def _many(app: App, name: str, flags: dict[str, Any], fields: dict[str, Any]) -> None:
    try:
        descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
    if os.isatty(descriptor):
        app.say("Reading one job a line from the terminal; end with Ctrl-D.")
    lines = bulk_lines(read_lines(descriptor), plain=flags["lines"])
    try:
        _store(app, lines, flags, fields=fields, word="line", inputs={})
    except IsADirectoryError:
        raise UsageError(f"cannot read {name}: it is a directory") from None


def read_lines(descriptor: int) -> Iterator[bytes | None]:
    """Yield the lines of a file; None whenever its writer pauses, so that what is here can be handed over."""
    rest = b""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    while data := os.read(descriptor, 262_144):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
        if not regular and not select.select([descriptor], [], [], 0)[0]:
            yield None
    if rest:
        yield rest


def _store(
    app: App,
    lines: Iterable[Line | None],
    flags: dict[str, Any],
    *,
    fields: dict[str, Any],
    word: str,
    inputs: dict[str, bytes],
) -> None:
    if inputs:
        raise UsageError("an input of this size goes with one job only")
    sender = sender_for(app, clean=fields.get("env_mode") == "clean", dry_run=flags["dry_run"])
    tally = Tally(app, word)
    cut = batches(lines, sender.room, fields, tally.bad)
    output = Output(app)
    with tally.progress:
        try:
            results = _atomically(sender, cut, tally) if flags["atomic"] else sender.submit_all(cut)
            good = tally.good(results)
            count = sum(1 for _ in good) if output.person else _print_ids(output, good)
        except CliError as error:
            if tally.added:
                error.hints = (*error.hints, f"{plural(tally.added)} had been stored before.")
            raise
    for warning in sender.warnings or ():
        app.say(f"Note: {warning}")
    if output.person and not (flags["atomic"] and tally.bad):
        output.lines([f"{plural(count)} {'would be ' * flags['dry_run']}added."])
    tally.complain(atomic=flags["atomic"])


def _atomically(sender: Sender, cut: Iterable[Sequence[tuple[int, bytes]] | None], tally: Tally) -> list[Result]:
    pieces = [batch for batch in cut if batch]
    if tally.bad or not pieces:
        return []
    results = sender.submit_atomic(pieces)
    return results if not any(result.error for result in results) else [result for result in results if result.error]
