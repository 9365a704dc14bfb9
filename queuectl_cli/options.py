"""What all commands share: where the daemon is, in which form answers are printed, and the connection."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from queuectl_cli.client import Client, connect
from queuectl_cli.errors import UnreachableError, UsageError
from queuectl_cli.target import Target, Trust, resolve

FORMATS: Final = ("table", "wide", "json", "jsonl", "name")
F = TypeVar("F", bound=Callable[..., Any])


class App:
    """The choices of one call of the command line."""

    def __init__(self, start: Callable[[App, Target, UnreachableError], Client]) -> None:
        """`start` starts a daemon where nobody listens and it is right."""
        self._start = start
        self.host: str | None = None
        self.scope: str | None = None
        self.token_file: str | None = None
        self.tls_ca: str | None = None
        self.tls_fingerprint: str | None = None
        self.output: str | None = None
        self.json = False
        self.fields: str | None = None
        self.quiet = False
        self.utc = False
        # The exit code of everything that goes wrong on our side, where a job's own codes are returned.
        self.ours: int | None = None
        self._clients: list[Client] = []

    @property
    def format(self) -> str:
        """One of `FORMATS`. Raises `UsageError`."""
        if self.json:
            return "json"
        if self.output:
            return self.output
        if self.quiet:
            return "name"
        usual = os.environ.get("QUEUECTL_OUTPUT") or "table"
        if usual not in FORMATS:
            raise UsageError(f"QUEUECTL_OUTPUT is {usual!r}; it must be one of {', '.join(FORMATS)}")
        return usual

    @property
    def for_programs(self) -> bool:
        """Whether JSON was asked for: then errors are JSON too, and nobody is asked or told anything."""
        return self.format in {"json", "jsonl"}

    def target(self) -> Target:
        """Return where the daemon is. Raises `UsageError`."""
        target = resolve(self.host, self.scope, os.environ)
        if target.scheme == "tls":
            return target._replace(trust=self._trust())
        if self.tls_ca or self.tls_fingerprint:
            raise UsageError(
                f"--tls-ca and --tls-fingerprint are for tls://host:port, and {target.name} is spoken to without TLS"
            )
        return target

    def _trust(self) -> Trust:
        env = os.environ
        ca, fingerprint = self.tls_ca, self.tls_fingerprint
        if not (ca or fingerprint):
            ca, fingerprint = env.get("QUEUECTL_TLS_CA"), env.get("QUEUECTL_TLS_FINGERPRINT")
        cert, key = env.get("QUEUECTL_TLS_CERT"), env.get("QUEUECTL_TLS_KEY")
        return Trust(ca or None, fingerprint or None, cert or None, key or None)

    def token_name(self, target: Target) -> str | None:
        """Return the name of the file with the secret, where one is shown."""
        name = self.token_file or os.environ.get("QUEUECTL_TOKEN_FILE")
        return name if name and target.scheme in {"tcp", "tls"} else None

    def token(self, target: Target) -> str | None:
        """Return the secret for a TCP connection. Raises `UsageError` where its file cannot be read."""
        name = self.token_name(target)
        if name is None:
            return None
        try:
            with open(name, encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs 3 ms)
                return file.read().strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the token file {name}: {getattr(error, 'strerror', error)}") from None

    def connect(self, *, start: bool = False) -> Client:
        """Return a connection; with `start` a daemon is started where that is right. Raises `CliError`."""
        target = self.target()
        try:
            return self.open(target)
        except UnreachableError as error:
            if not start:
                raise
            return self._start(self, target, error)

    def open(self, target: Target, patience: float | None = None) -> Client:
        """Return a connection to `target`, closed at the latest when the command ends. Raises `CliError`.

        The daemon has to greet within `patience` seconds, where that is not as long as usual.
        """
        client = connect(target, self.token(target), patience)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Close all connections."""
        while self._clients:
            self._clients.pop().close()

    def say(self, text: str) -> None:
        """Tell a person something beside the answer."""
        if not self.for_programs:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def _set(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and value is not False:
        setattr(ctx.obj, str(param.name), value)


def _set_scope(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        ctx.obj.scope = param.name


def _option(*names: str, hidden: bool, **kwargs: Any) -> Callable[[F], F]:
    kwargs.setdefault("callback", _set)
    return click.option(*names, expose_value=False, is_eager=True, hidden=hidden, **kwargs)


def common(*, hidden: bool = True) -> Callable[[F], F]:
    """Add the options that every command understands, before and after its name; `hidden` from its own help."""
    decorators = [
        _option("-H", "--host", hidden=hidden, metavar="URL", help="unix:///path, tls://host:port, ssh://host"),
        _option("--user", hidden=hidden, is_flag=True, callback=_set_scope, help="The daemon of this user."),
        _option("--system", hidden=hidden, is_flag=True, callback=_set_scope, help="The daemon of the system."),
        _option("--token-file", hidden=hidden, metavar="FILE", help="The secret for tls:// and tcp://."),
        _option("--tls-ca", hidden=hidden, metavar="FILE", help="Who vouches for the daemon at tls://."),
        _option("--tls-fingerprint", hidden=hidden, metavar="HEX", help="Its certificate's SHA-256, to know it by."),
        _option("-o", "--output", hidden=False, type=click.Choice(FORMATS), help="Form of the answer."),
        _option("--json", hidden=False, is_flag=True, help="The same as -o json."),
        _option("--fields", hidden=hidden, metavar="A,B", help="Only these fields, in this order."),
        _option("-q", "--quiet", hidden=hidden, is_flag=True, help="Only ids."),
        _option("--utc", hidden=hidden, is_flag=True, help="Instants in UTC instead of ages."),
    ]

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def stack(decorators: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Join option decorators, shown in this order."""

    def decorate(function: F) -> F:
        result: Any = function
        for decorator in reversed(decorators):
            result = decorator(result)
        typed: F = result
        return typed

    return decorate


def confirmation(function: F) -> F:
    """Add what bulk changes need: ``-y`` and ``-n``."""
    return stack(
        [
            click.option("-y", "--yes", is_flag=True, help="Do not ask."),
            click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        ]
    )(function)
