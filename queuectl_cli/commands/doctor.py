"""``queuectl doctor``: looks at everything that has to be right."""

from __future__ import annotations

from collections.abc import Iterator

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.doctor import daemon, host, place
from queuectl_cli.doctor.finding import FAIL, OK, WARN, Finding
from queuectl_cli.doctor.place import Place
from queuectl_cli.doctor.service import service
from queuectl_cli.errors import CliError
from queuectl_cli.options import App, common
from queuectl_cli.render import Output, paint, plural
from queuectl_cli.target import Target

_COLOURS = {OK: "32", WARN: "33", FAIL: "31"}


@click.command
@common()
@click.pass_obj
def doctor(app: App) -> None:
    """Look whether everything is as it has to be, also without a daemon, and say what to do. Exits with 1 if not."""
    findings = list(_look(app, app.target()))
    output = Output(app)
    if output.format in {"json", "jsonl", "name"} or app.fields:
        output.rows([finding._asdict() for finding in findings], (), name="check")
    else:
        output.lines(line for finding in findings for line in _lines(finding))
        output.lines(["", _summary(findings)])
    if any(finding.state == FAIL for finding in findings):
        raise click.exceptions.Exit(1)


def _look(app: App, target: Target) -> Iterator[Finding]:
    yield from host.program()
    yield from host.libraries()
    yield from host.kernel()
    clients: list[Client] = []
    yield from daemon.socket(app, target, clients)
    status: Message | None = None
    if clients:
        try:
            status = clients[0].request("status", patience=5.0)
            yield from daemon.server(status)
        except CliError as error:
            yield Finding("daemon", FAIL, error.message, " ".join(error.hints))
    yield from service(target, status)
    yield from host.open_files(status["pid"] if status and target.local else None)
    where = _place(target, status)
    if where is not None:
        yield from place.state(where)
        yield from place.lock(where)
        yield from place.database(where)
        yield from place.configuration(app, where)


def _place(target: Target, status: Message | None) -> Place | None:
    """Return where the daemon keeps things; None where only it can look, or where nobody can say."""
    here = target.places
    if not target.local or (target.explicit and status is None):
        return None
    if status is None or not status["state_dir"]:
        return Place(here.state, here.config, named=False, answers=status is not None)
    config = status["config_file"] or here.config
    return Place(status["state_dir"], config, named=config != here.config, answers=True)


def _lines(finding: Finding) -> list[str]:
    state = paint(f"{finding.state:<4}", _COLOURS[finding.state])
    lines = [f"{state}  {finding.check:<13}  {finding.message}"]
    if finding.hint and finding.state != OK:
        lines.append(f"{'':<21}{finding.hint}")
    return lines


def _summary(findings: list[Finding]) -> str:
    fail, warn = (sum(finding.state == state for finding in findings) for state in (FAIL, WARN))
    if not (fail or warn):
        return "Everything is as it has to be."
    told = [f"{plural(fail, 'thing')} to repair"] * bool(fail) + [f"{plural(warn, 'thing')} to know"] * bool(warn)
    return ", ".join(told) + "."
