"""The program ``queuectld``: reads its arguments and its configuration, and runs the daemon in the foreground."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import click
import structlog

from queuectld import config, exits
from queuectld.check import check_all, check_named
from queuectld.daemon import Daemon, Successor
from queuectld.errors import BadConfigError, QueueCTLError, StoreDamagedError, StoreError
from queuectld.host.handover import Handover, take
from queuectld.host.passed import passed_sockets
from queuectld.host.program import Program, this_program
from queuectld.host.state_dir import OVERRIDES, open_state_dir
from queuectld.host.threads import EventLoop
from queuectld.log import FileTarget, set_up
from queuectld.parts import Context
from queuectld.protocol.schema import schema
from queuectld.protocol.where import Places, places
from queuectld.protocol.words import VERSION
from queuectld.upkeep.commands import Site, db
from queuectld.upkeep.sweep import sweep
from queuectld.upkeep.verdict import is_damaged

log = structlog.get_logger()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(), help="Read this configuration file, which must exist.")
@click.option("--user", "scope", flag_value="user", help="Serve the queue of this user, also as root.")
@click.option("--system", "scope", flag_value="system", help="Serve the queue of the system.")
@click.option("--check", is_flag=True, help="Check whether the daemon could start, say what is wrong, and end.")
@click.option("--schema", "show_schema", is_flag=True, help="Print the JSON Schema of the protocol, and end.")
@click.version_option(VERSION, prog_name="queuectld", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context, config_file: str | None, scope: str | None, *, check: bool, show_schema: bool) -> None:
    """Run the daemon of QueueCTL in the foreground, until SIGTERM.

    Where its state, its socket and its configuration are is told by `queuectl help environment`.
    """
    if show_schema:
        click.echo(json.dumps(schema(), indent=2))
        return
    serving = not check and context.invoked_subcommand is None
    if serving:
        # One that comes too early waits for whoever can act on it; by itself it would end us.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        set_up(environ=os.environ)
    complain = _log_refusal if serving and not os.isatty(2) else _say_refusal
    try:
        here = places(os.environ, os.geteuid(), scope, os.path.isdir)
        file = Path(config_file or here.config).absolute()
        read = _reader(here, file, required=config_file is not None or "QUEUECTL_CONFIG" in os.environ)
        if context.invoked_subcommand is not None:
            context.obj = Site(Path(here.state).absolute(), read)
            return
        handover = take(os.environ)
        if check:
            loaded = read()
            try:
                notes = check_all(loaded.config, Path(here.state))
            except BadConfigError as error:
                raise loaded.traced(error, Path(here.state) / OVERRIDES) from None
            for note in notes:
                click.echo(note)
            click.echo(f"The configuration is valid ({loaded.config_file or 'no file; defaults'}).")
            return
        sys.exit(serve(here, file, read, handover))
    except QueueCTLError as error:
        complain(error.message, exits.code_of(error))
    except OSError as error:
        # Whoever watches over us starts it again, when the host may have what it lacks now.
        complain(f"the host does not let it run: {error}", exits.IO)


main.add_command(db)
main.add_command(sweep)


def _say_refusal(why: str, code: int) -> NoReturn:
    click.echo(f"queuectld: {why}", err=True)
    sys.exit(code)


def _log_refusal(why: str, code: int) -> NoReturn:
    structlog.get_logger().critical("Cannot start", event_name="daemon.failed", error=why, exit_code=code)
    sys.exit(code)


def _reader(here: Places, file: Path, *, required: bool) -> Callable[[], config.Loaded]:
    """Return what reads the configuration, now and at each reload; the file has to be there if somebody named it."""
    overrides = Path(here.state).absolute() / OVERRIDES
    return partial(config.load, file, overrides, os.environ.copy(), required=required)


def serve(here: Places, file: Path, read: Callable[[], config.Loaded], handover: Handover | None) -> int:
    """Run the daemon; return its exit code. Raises `QueueCTLError` if it cannot begin."""
    faulthandler.enable()
    program = this_program()
    loaded, rejected = _begin_with(read, handover)
    keys = loaded.config
    try:
        check_named(keys)
        # What was checked for a re-exec may have changed since: lines wait for their file then, and we go on.
        target = FileTarget(keys.log_file, keys.log_file_mode, required=handover is None) if keys.log_file else None
        adjustable = set_up(level=keys.log_level, form=keys.log_format, file=target, environ=os.environ)
    except BadConfigError as error:
        raise loaded.traced(error, Path(here.state) / OVERRIDES) from None
    if rejected is not None:
        log.error("Configuration rejected", event_name="config.rejected", error=rejected.message)
    passed = passed_sockets(os.environ)
    # Nothing that is created is for others, unless it says so itself.
    os.umask(0o077)
    state = open_state_dir(here.state, held=handover.lock if handover else None)
    # Whatever directory we were started in may be unmounted.
    socket = str(Path(here.socket).absolute())
    spool = Path(here.spool).absolute()
    os.chdir("/")
    context = Context(
        state=state,
        holder=config.Holder(loaded),
        socket=socket,
        log=adjustable,
        spool=spool,
        config_file=file,
        reload=read,
        rejected=None if rejected is None else rejected.message,
        program=program,
        handover=handover,
        passed=passed,
    )
    try:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            end = runner.run(_run(context))
        return _become(program, end) if isinstance(end, Successor) else end
    except StoreDamagedError as error:
        if is_damaged(state.database):
            raise
        # The disk did not give it: begin again, when it may.
        raise StoreError(error.message) from None
    finally:
        state.close()


def _begin_with(
    read: Callable[[], config.Loaded], handover: Handover | None
) -> tuple[config.Loaded, BadConfigError | None]:
    """Return the configuration to begin with, and why it is not the one in the files. Raises `BadConfigError`.

    They were valid when the program before us had us checked. What it went by goes on, as at a reload.
    """
    try:
        return read(), None
    except BadConfigError as error:
        if handover is None or handover.config is None:
            raise
        return config.restore(handover.config, os.environ), error


async def _run(context: Context) -> int | Successor:
    return await Daemon(context).run()


def _become(program: Program, successor: Successor) -> int:
    """Run the program that is installed now in this process; return only if that fails."""
    try:
        program.take_over(successor.handover, successor.signals)
    except OSError as error:
        # Whoever watches over us starts it anew; the workers wait for that.
        log.critical(
            "The new program cannot be run", event_name="daemon.failed", path=program.argv[0], error=str(error)
        )
        return exits.IO


def run() -> None:
    """Entry point of the script."""
    main.main(prog_name="queuectld")


if __name__ == "__main__":
    run()
