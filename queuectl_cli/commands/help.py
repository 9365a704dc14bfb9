"""``queuectl help``: commands and topics."""

from __future__ import annotations

import os
import sys

import click

from queuectl_cli.errors import UsageError

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "help")  # noqa: PTH118, PTH120  (pathlib costs 3 ms)


def topics() -> list[str]:
    """Return the names of all topics."""
    return sorted(name.removesuffix(".md") for name in os.listdir(_FOLDER) if name.endswith(".md"))  # noqa: PTH208  (same)


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND | TOPIC]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Explain a command or a topic."""
    root = ctx.find_root()
    if not words:
        click.echo(root.get_help())
        return
    if len(words) == 1 and words[0] in topics():
        with open(os.path.join(_FOLDER, f"{words[0]}.md"), encoding="utf-8") as file:  # noqa: PTH118, PTH123  (same)
            sys.stdout.write(file.read())
        return
    context = root
    for word in words:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is None:
            raise UsageError(f"there is no command or topic {' '.join(words)!r}", f"Topics:  {', '.join(topics())}")
        context = click.Context(found, info_name=word, parent=context)
    click.echo(context.get_help())
