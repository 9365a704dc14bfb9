"""The table of commands, and the one place where errors become a message and an exit code."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click

from queuectl_cli.client import Client
from queuectl_cli.errors import CliError, UnreachableError, UsageError
from queuectl_cli.group import Entry, Group
from queuectl_cli.options import App, common
from queuectl_cli.target import Target
from queuectld.protocol.words import VERSION

TABLE: Final = {
    "enqueue": Entry("Jobs", "enqueue:enqueue", "Add jobs."),
    "run": Entry("Jobs", "run:run", "Add a job, show its output, exit as it does."),
    "list": Entry("Jobs", "listing:list_jobs", "Show jobs, newest last."),
    "show": Entry("Jobs", "show:show", "Show everything about jobs."),
    "logs": Entry("Jobs", "logs:logs", "Show the output of jobs."),
    "wait": Entry("Jobs", "wait:wait", "Wait until jobs are over."),
    "cancel": Entry("Jobs", "change:cancel", "End jobs, waiting or running."),
    "retry": Entry("Jobs", "change:retry", "Run jobs again."),
    "undelete": Entry("Jobs", "change:undelete", "Bring discarded jobs back."),
    "dlq": Entry("Dead letters", "dlq:dlq", "Jobs that have used up their retries."),
    "worker": Entry("Workers", "worker:worker", "The processes that run jobs."),
    "status": Entry("Daemon", "status:status", "How the queue and its daemon are."),
    "events": Entry("Daemon", "events:events", "What happened, and what happens."),
    "ping": Entry("Daemon", "status:ping", "See whether the daemon answers."),
    "version": Entry("Daemon", "status:version", "Versions of both sides."),
    "daemon": Entry("Daemon", "daemon:daemon", "Start and stop the daemon."),
    "doctor": Entry("Daemon", "doctor:doctor", "Look whether everything is as it has to be."),
    "config": Entry("Daemon", "config:config", "Read and change the configuration."),
    "help": Entry("More", "help:help_", "Explain a command or a topic."),
}
ALIASES: Final = {"ls": "list", "add": "enqueue"}
# Aliases that are more than another name; not shown in the overview.
HIDDEN: Final = {
    "ps": Entry("", "listing:ps", ""),
    "tail": Entry("", "logs:tail", ""),
    # What `ssh://` runs at the other end.
    "dial-stdio": Entry("", "dial_stdio:dial_stdio", ""),
}

_EPILOG: Final = """\b
Examples:
  queuectl enqueue '{"id":"job1","command":"echo hello"}'
  queuectl enqueue --max-retries 5 -- rsync -a /src /dst
  queuectl run -- make test          # attached: exits as the command does
  queuectl list --state failed
  queuectl dlq retry job1

Topics: queuectl help enqueue | selectors | time | output | exit-codes | limits | environment | restarts |
permissions | remote | spool | service | logs | monitoring
"""


def make_cli() -> Group:
    """Return the command line."""

    @click.group(
        cls=Group,
        table=TABLE,
        hidden_table=HIDDEN,
        aliases=ALIASES,
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    @common(hidden=False)
    @click.version_option(VERSION, "--version", prog_name="queuectl", message="%(prog)s %(version)s")
    def cli() -> None:
        """Run shell commands in the background: durable, retried with back-off, alive through crashes."""

    return cli


def _start(app: App, target: Target, error: UnreachableError) -> Client:
    from queuectl_cli.launch import start_instead  # noqa: PLC0415  (rarely needed)

    return start_instead(app, target, error)


def main(args: Sequence[str]) -> int:
    """Carry out one command line; return the exit code."""
    app = App(_start)
    try:
        return _invoke(app, list(args))
    except CliError as error:
        return _fail(app, args, error)
    except (KeyboardInterrupt, click.Abort, EOFError):
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return 130
    except BrokenPipeError:
        _close_stdout()
        return 0
    except Exception as error:  # noqa: BLE001  (no traceback reaches a user)
        return _fail(app, args, _unexpected(error))
    finally:
        app.close()


def _invoke(app: App, args: list[str]) -> int:
    try:
        with make_cli().make_context("queuectl", args, obj=app) as context:
            context.command.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.stdout.flush()
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return app.ours or 2
    except click.UsageError as error:
        raise _usage(error) from None
    except click.ClickException as error:
        raise CliError(error.format_message()) from None
    return 0


def _usage(error: click.UsageError) -> UsageError:
    hint = f"More:  {error.ctx.command_path} --help" if error.ctx else "More:  queuectl --help"
    message = error.format_message()
    return UsageError(message[:1].lower() + message[1:].removesuffix("."), hint)


def _unexpected(error: Exception) -> CliError:
    if isinstance(error, OSError) and error.filename is None:
        return CliError(f"the operating system says: {error.strerror or error}", code="os")
    if isinstance(error, OSError):
        return CliError(f"{error.filename}: {error.strerror}", code="os")
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f" (at {os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno})" if where else ""  # noqa: PTH119
    return CliError(f"this is a fault of queuectl: {type(error).__name__}: {error}{place}", code="internal")


def _fail(app: App, args: Sequence[str], error: CliError) -> int:
    status = app.ours or error.status
    try:
        sys.stdout.flush()
    except OSError:
        _close_stdout()
    if _wants_json(app, args):
        sys.stderr.write(json.dumps(error.as_json(status)) + "\n")
    else:
        sys.stderr.write(error.text() + "\n")
    return status


def _wants_json(app: App, args: Sequence[str]) -> bool:
    # Options may not have been read yet when the command line itself is wrong.
    before = list(args[: args.index("--")] if "--" in args else args)
    form = app.output or os.environ.get("QUEUECTL_OUTPUT")
    for place, word in enumerate(before):
        if word in {"-o", "--output"} and place + 1 < len(before):
            form = before[place + 1]
        elif word.startswith(("--output=", "-ojson")):
            form = word.removeprefix("--output=").removeprefix("-o")
    return app.json or "--json" in before or form in {"json", "jsonl"}


def _close_stdout() -> None:
    # The reader is gone; what is still buffered must not raise again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def run() -> None:
    """Be the program ``queuectl``."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Any id or command can be printed in any locale.
            stream.reconfigure(errors="backslashreplace")
    status = main(sys.argv[1:])
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    # Taking the interpreter apart would cost 3 ms, and there is nothing left to do.
    os._exit(status)


if __name__ == "__main__":
    run()
