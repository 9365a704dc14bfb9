"""Groups of commands that load a command when it is called, know what was meant, and guess nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click


class Entry(NamedTuple):
    """Where a command is, and what the overview says of it without loading it."""

    section: str
    place: str
    help: str


class Group(click.Group):
    """A group whose commands may be lazy, and which may have a command for when none is named."""

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, Entry] | None = None,
        hidden_table: Mapping[str, Entry] | None = None,
        aliases: Mapping[str, str] | None = None,
        default: Callable[[list[str]], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table or {}
        self._places = {**self._table, **(hidden_table or {})}
        self._aliases = aliases or {}
        self._default = default

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return [*self._table, *(name for name in super().list_commands(ctx) if name not in self._places)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, loaded if need be."""
        name = self._aliases.get(cmd_name, cmd_name)
        if name in self._places and name not in self.commands:
            module, _, attribute = self._places[name].place.partition(":")
            self.add_command(getattr(import_module(f"queuectl_cli.commands.{module}"), attribute), name)
        found = super().get_command(ctx, name)
        if found is not None and not isinstance(found, click.Group):
            found.epilog = found.epilog or "-H, --fields, -q, --utc and more go with every command: queuectl --help"
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put in the command that is meant where none is named."""
        if self._default is not None and (
            not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        ):
            args = [self._default(args), *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises `click.UsageError` with what was probably meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}{self._near(ctx, args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def _near(self, ctx: click.Context, name: str) -> str:
        from difflib import get_close_matches  # noqa: PLC0415  (only for mistakes)

        near = get_close_matches(name, [*self.list_commands(ctx), *self._aliases], 2, 0.5)
        return f". Did you mean {' or '.join(repr(found) for found in near)}?" if near else ""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section."""
        if not self._table:
            super().format_commands(ctx, formatter)
            return
        for section in dict.fromkeys(entry.section for entry in self._table.values()):
            rows = [(name, entry.help) for name, entry in self._table.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


class FamilyCommand(click.Command):
    """A command that exits as a job does: everything of ours that goes wrong is 125 then."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note that before anything can go wrong."""
        ctx.obj.ours = 125
        return super().parse_args(ctx, args)


class WordsCommand(click.Command):
    """A command that ends with a command line of the user's; knows whether ``--`` stood before that."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave what follows the first bare word alone."""
        ctx.allow_interspersed_args = False
        given = list(args)
        rest = super().parse_args(ctx, args)
        words = ctx.params.get("words") or ()
        before = len(given) - len(words)
        ctx.params["words"] = tuple(words)
        ctx.params["explicit"] = bool(words) and before > 0 and given[before - 1] == "--"
        return rest


class FamilyWordsCommand(FamilyCommand, WordsCommand):
    """Both: ``run``."""
