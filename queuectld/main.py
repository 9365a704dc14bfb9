"""The program ``queuectld``: reads its arguments and its configuration, and runs the daemon in the foreground."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import click
import structlog

from queuectld import config
from queuectld.daemon import EXIT_IO, Context, Daemon
from queuectld.errors import (
    BadConfigError,
    QueueCTLError,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreTooNewError,
)
from queuectld.host.state_dir import OVERRIDES, open_state_dir
from queuectld.log import set_up
from queuectld.protocol.schema import schema
from queuectld.protocol.where import Places, places
from queuectld.protocol.words import VERSION
from queuectld.server.listen import read_token

log = structlog.get_logger()

EXIT_DATA: Final = 65
EXIT_LOCKED: Final = 75
EXIT_CONFIG: Final = 78
# The most special first.
_EXIT_CODES: Final[tuple[tuple[type[QueueCTLError], int], ...]] = (
    (BadConfigError, EXIT_CONFIG),
    (StoreLockedError, EXIT_LOCKED),
    (StoreDamagedError, EXIT_DATA),
    (StoreTooNewError, EXIT_DATA),
    (StoreError, EXIT_IO),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "config_file", type=click.Path(), help="Read this configuration file, which must exist.")
@click.option("--user", "scope", flag_value="user", help="Serve the queue of this user, also as root.")
@click.option("--system", "scope", flag_value="system", help="Serve the queue of the system.")
@click.option("--check", is_flag=True, help="Check the configuration, say what is wrong with it, and end.")
@click.option("--schema", "show_schema", is_flag=True, help="Print the JSON Schema of the protocol, and end.")
@click.version_option(VERSION, prog_name="queuectld", message="%(prog)s %(version)s")
def main(config_file: str | None, scope: str | None, *, check: bool, show_schema: bool) -> None:
    """Run the daemon of QueueCTL in the foreground, until SIGTERM.

    Where its state, its socket and its configuration are is told by `queuectl help environment`.
    """
    if show_schema:
        click.echo(json.dumps(schema(), indent=2))
        return
    here = places(os.environ, os.geteuid(), scope, os.path.isdir)
    try:
        read = _reader(here, config_file)
        loaded = read()
        _check(loaded.config)
        if check:
            click.echo(f"The configuration is valid ({loaded.config_file or 'no file; defaults'}).")
            return
        sys.exit(serve(here, loaded, read))
    except QueueCTLError as error:
        click.echo(f"queuectld: {error.message}", err=True)
        sys.exit(next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1))


def _check(keys: config.Config) -> None:
    """Look at what the configuration names, as far as that can be seen without starting. Raises `BadConfigError`."""
    if keys.tcp is not None and keys.token_file is not None:
        read_token(keys.token_file)


def _reader(here: Places, config_file: str | None) -> Callable[[], config.Loaded]:
    """Return what reads the configuration, now and at each reload."""
    named = config_file is not None or "QUEUECTL_CONFIG" in os.environ
    file = Path(config_file or here.config).absolute()
    overrides = Path(here.state).absolute() / OVERRIDES
    return partial(config.load, file, overrides, os.environ.copy(), required=named)


def serve(here: Places, loaded: config.Loaded, reload: Callable[[], config.Loaded]) -> int:
    """Run the daemon; return its exit code. Raises `QueueCTLError` if it cannot begin."""
    faulthandler.enable()
    keys = loaded.config
    adjustable = set_up(level=keys.log_level, form=keys.log_format, environ=os.environ)
    # Nothing that is created is for others, unless it says so itself.
    os.umask(0o077)
    state = open_state_dir(here.state)
    # Whatever directory we were started in may be unmounted.
    socket = str(Path(here.socket).absolute())
    os.chdir("/")
    context = Context(state, config.Holder(loaded), socket, os.environ.copy(), adjustable, reload)
    try:
        return asyncio.run(_run(context))
    finally:
        state.close()


async def _run(context: Context) -> int:
    return await Daemon(context).run()


def run() -> None:
    """Entry point of the script."""
    main.main(prog_name="queuectld")


if __name__ == "__main__":
    run()
