"""``queuectl run``: a job in the foreground."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import click

from queuectl_cli.attached import Attached
from queuectl_cli.client import Message
from queuectl_cli.commands.enqueue import due, jobs_of, sender_for, submit_one
from queuectl_cli.errors import UsageError
from queuectl_cli.forms import Job
from queuectl_cli.group import FamilyWordsCommand
from queuectl_cli.jobflags import duration, job_fields, job_options
from queuectl_cli.options import App, common
from queuectl_cli.outcome import exit_code, in_words
from queuectl_cli.render import Output
from queuectl_cli.signals import Signals

# Not the docstring: click wants the backspace itself in front of lines that stay as they are.
_HELP = """Add a job, show its output, and exit as it does.

Ctrl-C goes to the command, the second one cancels the job. It is not retried unless --max-retries says so.

\b
  queuectl run -- make test
  queuectl run --timeout 10m 'curl -sf https://example.org | wc -c'
"""


@click.command(cls=FamilyWordsCommand, options_metavar="[OPTIONS]", help=_HELP)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CMD | -- ARGV...")
@click.option("-d", "--detach", is_flag=True, help="Print the id and leave, as enqueue does.")
@click.option(
    "--wait-for", type=duration, metavar="DUR", help="Leave after this long, with exit code 75; the job goes on."
)
@job_options
@common()
@click.pass_obj
def run(
    app: App, /, words: tuple[str, ...], *, explicit: bool, detach: bool, wait_for: float | None, **flags: Any
) -> None:
    """Add a job, show its output, and exit as it does."""
    if words == ("-",) and not explicit:
        raise UsageError("run takes one job; for many:  queuectl enqueue -")
    fields = job_fields(flags, os.environ)
    jobs, inputs = jobs_of(words, explicit=explicit, flags=flags, fields=fields, verb="run")
    if len(jobs) > 1:
        raise UsageError("run takes one job; for many:  queuectl enqueue")
    job = _once(jobs[0])
    until = None if wait_for is None else time.monotonic() + wait_for
    sender = sender_for(app, clean=fields.get("env_mode") == "clean")
    if detach:
        _leave(app, job, submit_one(app, sender, job, inputs), flags["tz"])
        return
    with Signals(signal.SIGINT, signal.SIGTERM) as signals:
        sender.pause = signals.pause
        added = submit_one(app, sender, job, inputs)
        lend = os.environ.get("QUEUECTL_ATTEMPT_TOKEN")
        attached = Attached(app, sender.client, added["id"], signals, lend=lend, until=until)
        finished = attached.follow(tell_attempts=_retries(job))
    if finished["reason"] not in {None, "exited", "signalled"} and finished["state"] != "completed":
        app.say(f"queuectl: job {finished['id']}: {in_words(finished)}")
    raise click.exceptions.Exit(exit_code(finished))


def _once(job: Job) -> Job:
    """Somebody is waiting and sees the failure: not again unless that was asked for."""
    return {"rerun": "never", "max_retries": 0, **job}


def _retries(job: Job) -> bool:
    return bool(job["max_retries"] or job.get("retry_for") or job["rerun"] == "always")


def _leave(app: App, job: Job, added: Message, tz: str | None) -> None:
    output = Output(app)
    if output.person:
        output.lines([f"Job '{added['id']}' added{due(job, added, tz)}."])
    elif app.for_programs:
        output.rows([added], ())
    else:
        sys.stdout.write(f"{added['id']}\n")
