"""`queuectld db`: looking after the database while no daemon uses it."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import click

from queuectld import config, exits
from queuectld.durable import sync_directory
from queuectld.errors import BadRequestError, QueueCTLError, StoreDamagedError, StoreError, StoreLockedError
from queuectld.host.state_dir import DATABASE, StateDir, open_state_dir
from queuectld.store.damage import inspect
from queuectld.store.database import Database, of_system, remove_database
from queuectld.store.migrate import check_not_newer
from queuectld.store.swap import NO_LINKS, finish_swap
from queuectld.store.tally import by_state, read_kinds
from queuectld.upkeep.restore import restore
from queuectld.upkeep.rules import examine


class Site(NamedTuple):
    """Where the queue is, and how its configuration is read."""

    state: Path
    read: Callable[[], config.Loaded]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def db() -> None:
    """Look after the database: count, check, back up, restore.

    All but `backup`, and `check` of a copy, need the daemon to be stopped.
    """


def told(command: Callable[..., None]) -> Callable[..., None]:
    """Tell errors in a line, and end with their code."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        os.umask(0o077)
        try:
            command(*args, **options)
        except QueueCTLError as error:
            _fail(error)
        except OSError as error:
            _fail(of_system(Path(error.filename or "."), error))

    return run


def _fail(error: QueueCTLError) -> NoReturn:
    click.echo(f"queuectld: {error.message}", err=True)
    sys.exit(exits.code_of(error))


@contextmanager
def _held(site: Site) -> Iterator[StateDir]:
    """Hold the state directory. Raises `StoreLockedError` with advice, `StoreError`."""
    if not site.state.is_dir():
        raise StoreError(f"there is no state directory {site.state}")
    try:
        state = open_state_dir(site.state)
    except StoreLockedError as error:
        raise StoreLockedError(f"{error.message}; stop it first: `queuectl daemon stop`") from None
    try:
        finish_swap(state.database)
        yield state
    finally:
        state.close()


def _opened(path: Path) -> Database:
    """Open a database that is there. Raises `StoreError`."""
    if not inspect(path):
        raise StoreError(f"there is no database {path}")
    database = Database(path, readonly=True)
    try:
        check_not_newer(database)
    except QueueCTLError:
        database.close()
        raise
    return database


@db.command()
@click.pass_obj
@told
def counts(site: Site) -> None:
    """Print how many jobs there are, by queue and state."""
    with _held(site) as state:
        database = _opened(state.database)
        found = by_state(read_kinds(database))
        database.close()
    for queue, states in sorted(found.items()):
        for name, number in states.items():
            click.echo(f"{queue} {name.value} {number}")
    click.echo(f"total {sum(sum(states.values()) for states in found.values())}")


@db.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_obj
@told
def check(site: Site, file: Path | None) -> None:
    """Check the database, or FILE, a copy of one: what SQLite knows of it, and what must be true of a queue."""
    if file is not None:
        problems = examine(file)
    else:
        with _held(site) as state:
            problems, file = examine(state.database), state.database
    for problem in problems:
        click.echo(problem)
    if problems:
        click.echo(f"queuectld: the database {file} is damaged; nothing was changed", err=True)
        sys.exit(exits.DATA)
    click.echo(f"The database {file} is in order.")


@db.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
@told
def backup(site: Site, file: Path) -> None:
    """Write a copy of the database to FILE, which must not exist; a daemon may go on meanwhile."""
    file = file.absolute()
    if file.exists() or file.is_symlink():
        raise BadRequestError(f"{file} is there already, and is not overwritten: name a file that is not there yet")
    if not file.parent.is_dir():
        raise BadRequestError(f"there is no directory {file.parent}: make it first, or name a file somewhere else")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise BadRequestError(f"{file.parent} cannot be written to by this user: name a file somewhere else")
    try:
        with _held(site) as state:
            _back_up(state.database, file)
    except StoreLockedError:
        # Like any of its own readers: it sees one committed state, and keeps nobody from writing.
        _back_up(site.state / DATABASE, file)
    click.echo(f"Written to {file}.")


def _back_up(path: Path, file: Path) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    database = _opened(path)
    try:
        database.copy_to(part)
        if problems := examine(part):
            raise StoreDamagedError(f"the database {path} is damaged, and no copy was made: {problems[0]}")
        _give_name(part, file)
    finally:
        database.close()
        remove_database(part)


def _give_name(part: Path, file: Path) -> None:
    try:
        # Who made a file of that name meanwhile keeps it.
        os.link(part, file)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        part.rename(file)
    sync_directory(file.parent)


@db.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
@told
def restore_(site: Site, file: Path) -> None:
    """Put the copy FILE in the place of the database, which is kept beside it.

    What runs is ended first; what ran when the copy was made is pending again.
    """
    file = file.absolute()
    policy = config.policy(site.read().config)
    with _held(site) as state:
        done = restore(state, file, policy=policy, now=time.time())
    if done.workers or done.processes:
        click.echo(f"Ended {done.workers} workers and {done.processes} processes of jobs.")
    jobs = "1 job" if done.jobs == 1 else f"{done.jobs} jobs"
    click.echo(f"Restored {jobs} from {file}; {done.requeued} of them ran then, and wait again.")
    if done.kept is not None:
        click.echo(f"The database before is {done.kept}.")
