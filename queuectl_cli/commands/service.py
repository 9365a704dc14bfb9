"""``queuectl daemon install`` and ``uninstall``: make `queuectld` a service of systemd, and no service again."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Sequence

import click

from queuectl_cli.ending import end
from queuectl_cli.errors import UnreachableError
from queuectl_cli.launch import NOT_THERE
from queuectl_cli.options import App, common
from queuectl_cli.render import Output
from queuectl_cli.service import installing
from queuectl_cli.service.systemd import SERVICE, Manager, lingers, listens, show, tell
from queuectl_cli.service.units import Write, plan_install, plan_uninstall, shipped

_DRY = click.option("-n", "--dry-run", is_flag=True, help="Show what would be written and run, and do nothing.")


@click.command
@click.option("--hardened", is_flag=True, help="Take from jobs of queuectld@USER what they rarely need.")
@_DRY
@common()
@click.pass_obj
def install(app: App, *, hardened: bool, dry_run: bool) -> None:
    """Make queuectld a service of systemd, enable it and start it: of the system for root, else of this user.

    Again after an upgrade it brings the units up to date. Jobs that run meanwhile go on.
    """
    target = app.target()
    manager = installing.manager_for(target.places)
    if not dry_run:
        installing.check_allowed(manager, "install")
    installing.check_no_package(manager)
    folder = installing.programs()
    plan = plan_install(manager, shipped(), folder, version=installing.version(), hardened=hardened)
    if dry_run:
        _show(app, plan.files, plan.commands, [])
        return
    was = _main_process(manager)
    # Where systemd listens, nobody else does, and a look would wake the service.
    if not was and not listens(manager):
        _let_go(app)
    changed = installing.carry_out(plan)
    if changed and was:
        tell(manager.systemctl("restart", SERVICE))
    client = app.open(app.target())
    words = f"{SERVICE} is installed and runs (pid {client.request('ping')['pid']}) at {client.target.name}."
    _say(app, words, {"installed": True, "socket": client.target.name, "units": manager.units})
    for warning in _warnings(manager, folder):
        app.say(warning)


@click.command
@_DRY
@common()
@click.pass_obj
def uninstall(app: App, *, dry_run: bool) -> None:
    """Stop the service and take its units away. Jobs go back to their queues; they and all data stay."""
    target = app.target()
    manager = installing.manager_for(target.places)
    if not dry_run:
        installing.check_allowed(manager, "uninstall")
    removal = plan_uninstall(manager, shipped(), installing.instances(manager), os.path.lexists)
    if dry_run:
        _show(app, [], [*removal.before, *removal.after], removal.paths)
        return
    if not removal.paths:
        _say(app, f"{SERVICE} is not installed in {manager.units}.", {"installed": False})
        return
    installing.remove(removal)
    stays = "" if manager.user else " So does the group queuectl."
    words = f"{SERVICE} is gone. Jobs and data stay in {target.places.state}.{stays}"
    _say(app, words, {"installed": False, "state": target.places.state})


def _main_process(manager: Manager) -> int:
    """Return the process of the service; 0 if it does not run."""
    return int(show(manager, "MainPID") or 0)


def _let_go(app: App) -> None:
    """End a daemon that was started by hand; its jobs go on, and the service takes them over."""
    try:
        client = app.open(app.target())
    except UnreachableError as error:
        if error.code in NOT_THERE:
            return
        raise
    end(client, "leave")


def _warnings(manager: Manager, folder: str) -> Iterator[str]:
    if manager.user:
        user = getpass.getuser()
        if not lingers(user):
            yield "Warning: it ends with your last session, and all jobs with it. To let it go on:"
            yield f"  loginctl enable-linger {user}"
        return
    for hazard in installing.hazards(folder):
        yield f"Warning: {hazard}."
    yield "Who may use it:  usermod -aG queuectl USER   (and to log in again)"


def _show(app: App, files: Sequence[Write], commands: Sequence[tuple[str, ...]], paths: Sequence[str]) -> None:
    output = Output(app)
    if app.for_programs:
        written = [file._asdict() for file in files]
        output.document({"files": written, "remove": list(paths), "commands": [list(words) for words in commands]})
        return
    for file in files:
        output.lines([f"# {file.path}", file.text])
    output.lines(f"$ {' '.join(words)}" for words in commands)
    output.lines(f"- {path}" for path in paths)


def _say(app: App, words: str, found: dict[str, object]) -> None:
    output = Output(app)
    if app.for_programs:
        output.document(found)
    elif not app.quiet:
        output.lines([words])
