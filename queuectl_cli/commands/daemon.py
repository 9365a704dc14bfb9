"""``queuectl daemon``: start and stop `queuectld`."""

from __future__ import annotations

import sys

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.commands.service import install, uninstall
from queuectl_cli.ending import end
from queuectl_cli.errors import CliError, LostError, UnreachableError, UsageError
from queuectl_cli.group import Group
from queuectl_cli.launch import NOT_THERE, check
from queuectl_cli.launch import start as launch
from queuectl_cli.options import App, common
from queuectl_cli.reconnect import come_back
from queuectl_cli.render import Output, plural
from queuectl_cli.service.systemd import SERVICE, asleep, service_of, show, tell, waking


@click.group(cls=Group)
def daemon() -> None:
    """Start and stop the daemon, and make it a service. Restarting it disturbs no job."""


daemon.add_command(install)
daemon.add_command(uninstall)


@daemon.command("start")
@common()
@click.pass_obj
def start(app: App) -> None:
    """Start queuectld: the service that is installed, else in the background.

    There it has a session of its own, and its log is daemon.log beside its state.
    """
    if client := _running(app):
        _tell(app, f"queuectld runs already (pid {client.request('ping')['pid']}).", client)
        return
    _not_elsewhere(app)
    if manager := service_of(app.target().places):
        tell(manager.systemctl("start", SERVICE))
        client = app.connect()
        _tell(app, f"Started {SERVICE} (pid {client.request('ping')['pid']}) at {client.target.name}.", client)
        return
    client, ours = launch(app, app.target())
    pid = client.request("ping")["pid"]
    words = (
        f"Started queuectld (pid {pid}) at {client.target.name}." if ours else f"queuectld runs already (pid {pid})."
    )
    _tell(app, words, client)


@daemon.command("stop")
@click.option("--wait", "mode", flag_value="wait", help="Running jobs may end, however long they take.")
@click.option("--leave", "mode", flag_value="leave", help="They go on; the next daemon takes them over.")
@click.option("--now", "mode", flag_value="now", help="They are ended at once, and wait for the next daemon.")
@common()
@click.pass_obj
def stop(app: App, *, mode: str | None) -> None:
    """Stop queuectld. Without an option running jobs may end for shutdown_grace and then go back to their queues."""
    client = _running(app)
    if client is None:
        _say(app, "queuectld does not run.", {"running": False})
        return
    end(client, mode or _ask(client))
    _say(app, "queuectld has stopped.", {"running": False})
    if (manager := service_of(client.target.places)) and (sockets := waking(manager)):
        stop_it = " ".join(manager.systemctl("stop", *sockets))
        app.say(f"The next command that connects starts it again. To prevent that:  {stop_it}")


@daemon.command("restart")
@common()
@click.pass_obj
def restart(app: App) -> None:
    """Start queuectld anew. Running jobs go on and notice nothing; where it does not run, it is just started.

    Under supervisord it takes over in the same process, as with reexec: what ended would stay down.
    """
    _not_elsewhere(app)
    client = _running(app)
    if client:
        if client.request("status").get("service_manager") == "supervisord":
            _hand_over(app, client)
            return
        check(app)
    if manager := service_of(app.target().places):
        if client and show(manager, "MainPID") != str(client.request("ping")["pid"]):
            # It was started by hand, and has to give way to the service.
            end(client, "leave")
        tell(manager.systemctl("restart", SERVICE))
        client = app.connect()
        _tell(app, f"Restarted {SERVICE} (pid {client.request('ping')['pid']}) at {client.target.name}.", client)
        return
    if client:
        end(client, "leave")
    client, _ = launch(app, app.target())
    _tell(app, f"Restarted queuectld (pid {client.request('ping')['pid']}) at {client.target.name}.", client)


@daemon.command("reexec")
@common()
@click.pass_obj
def reexec(app: App) -> None:
    """Have the program that is installed now take over, after an upgrade say. Nobody has to wait, no job notices.

    It checks itself first; if it could not start, the one that runs goes on.
    """
    _hand_over(app, app.connect())


def _hand_over(app: App, client: Client) -> None:
    before = client.request("status")
    client.request("reexec")
    client = come_back(app, client, _under_way())
    after = client.request("status")
    if (after["pid"], after["started_at"]) == (before["pid"], before["started_at"]):
        raise CliError("queuectld answered and goes on as it was; its log has the details", code="internal")
    _say(
        app,
        f"queuectld {after['version']} has taken over from {before['version']} (pid {after['pid']}).",
        {
            "running": True,
            "pid": after["pid"],
            "version": after["version"],
            "previous": {"pid": before["pid"], "version": before["version"]},
            "socket": client.target.name,
        },
    )


@daemon.command("reload")
@common()
@click.pass_obj
def reload(app: App) -> None:
    """Have the daemon read its configuration again. If that is not valid nothing changes, and you are told why."""
    told = app.connect().request("reload")
    output = Output(app)
    if output.format in {"json", "jsonl"} or app.fields:
        output.document(told)
    elif not app.quiet:
        output.lines(_reloaded(told))


def _reloaded(told: Message) -> list[str]:
    from queuectl_cli.commands.config import changed  # noqa: PLC0415  (only here)

    file = told["config_file"]
    lines = [f"Read {file}." if file else "There is no configuration file."]
    lines += changed(told["changed"], "now {value} (from: {origin})") or [
        "No key that takes effect at once has changed; the tokens and certificates that the keys name were read again."
    ]
    lines += [
        f"{key} takes effect when the daemon starts again:  queuectl daemon restart" for key in told["needs_restart"]
    ]
    lines += [f"{key} in the file has no effect:  queuectl config list --show-origin" for key in told["hidden"]]
    return lines


def _under_way() -> LostError:
    return LostError("queuectld gave way to the next program", code="connection_lost")


def _running(app: App) -> Client | None:
    target = app.target()
    manager = None if target.explicit else service_of(target.places)
    if manager and asleep(manager):
        return None
    try:
        return app.open(target)
    except UnreachableError as error:
        if error.code in NOT_THERE:
            return None
        raise


def _not_elsewhere(app: App) -> None:
    if app.target().explicit:
        raise UsageError("a daemon can be started here only; leave out -H and QUEUECTL_HOST")


def _ask(client: Client) -> str:
    busy = client.request("status")["states"].get("processing", 0)
    if not busy or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "drain"
    sys.stderr.write(
        f"{plural(busy)} running.\n"
        "  drain  they may end for a while (shutdown_grace), then they go back to their queues\n"
        "  wait   they may end, however long that takes\n"
        "  leave  they go on, and the next daemon takes them over\n"
        "  now    they are ended at once and go back to their queues\n"
    )
    mode: str = click.prompt(
        "Stop how?", default="drain", type=click.Choice(["drain", "wait", "leave", "now"]), err=True
    )
    return mode


def _tell(app: App, words: str, client: Client) -> None:
    pong = client.request("ping")
    _say(app, words, {"running": True, "pid": pong["pid"], "version": pong["version"], "socket": client.target.name})


def _say(app: App, words: str, found: dict[str, object]) -> None:
    output = Output(app)
    if output.format in {"json", "jsonl"}:
        output.document(found)
    elif not app.quiet:
        output.lines([words])
