"""``queuectl config``: read and change the daemon's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from queuectl_cli.client import Message
from queuectl_cli.group import Group
from queuectl_cli.options import App, common
from queuectl_cli.render import Column, Output, Row, plain, sized, spanned


@click.group(cls=Group, default=lambda _args: "list")
def config() -> None:
    """Read and change the configuration of the daemon; max-retries and max_retries are the same key."""


def _value(row: Row) -> str:
    """Return a value as `config set` takes it."""
    value = row["value"]
    match row["unit"]:
        case _ if value is None:
            return "none"
        case "seconds":
            return spanned(value)
        case "bytes":
            return sized(value)
        case "mode":
            return f"{value:04o}"
    return str(value).lower() if isinstance(value, bool) else plain(value)


_COLUMNS = (
    Column("KEY", lambda row: str(row["key"])),
    Column("VALUE", _value, stretches=True),
    Column("MEANING", lambda row: row["meaning"], stretches=True),
)
_ORIGIN = (
    Column("KEY", lambda row: str(row["key"])),
    Column("VALUE", _value, stretches=True),
    Column("ORIGIN", lambda row: str(row["origin"])),
    Column("SOURCE", lambda row: row["source"] or "", dull="", stretches=True),
)


def _name(key: str) -> str:
    return key.replace("-", "_")


@config.command("list")
@click.option("--show-origin", is_flag=True, help="Where each value comes from.")
@common()
@click.pass_obj
def list_(app: App, *, show_origin: bool) -> None:
    """Show all keys."""
    _print(app, app.connect().request("config_list"), origin=show_origin)


@config.command("get")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@common()
@click.pass_obj
def get(app: App, keys: tuple[str, ...]) -> None:
    """Show the value of a key; without one, all keys."""
    answer = app.connect().request("config_list", keys=[_name(key) for key in keys])
    output = Output(app)
    if len(keys) == 1 and output.format == "table" and not app.fields:
        output.lines([_value(answer["settings"][0])])
        return
    _print(app, answer, origin=False)


@config.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value", type=click.UNPROCESSED)
@common()
@click.pass_obj
def set_(app: App, key: str, value: str) -> None:
    """Override a key, at once and after a restart. The administrator's file is left alone."""
    _changed(app, app.connect().request("config_set", key=_name(key), value=value), "now {value}")


@config.command("unset")
@click.argument("key")
@common()
@click.pass_obj
def unset(app: App, key: str) -> None:
    """Take an override away."""
    _changed(app, app.connect().request("config_unset", key=_name(key)), "{value} again (from: {origin})")


def _changed(app: App, answer: Message, form: str) -> None:
    if app.format != "table":
        _print(app, answer, origin=True)
        return
    Output(app).lines(changed(answer["settings"], form))


def changed(rows: Sequence[Row], form: str) -> list[str]:
    """Return a line for each key that was given another value; `form` says so with its {value} and {origin}."""
    lines = []
    for row in rows:
        later = "" if row["live"] else "; takes effect when the daemon starts again:  queuectl daemon restart"
        hidden = " (hidden by the environment of the daemon)" if row["origin"] == "environment" else ""
        lines.append(f"{row['key']} is {form.format(value=_value(row), origin=row['origin'])}{hidden}{later}")
    return lines


def _print(app: App, answer: Message, *, origin: bool) -> None:
    rows: list[Any] = answer["settings"]
    Output(app).rows(rows, _ORIGIN if origin else _COLUMNS, name="key")
