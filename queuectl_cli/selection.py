"""Which jobs are meant: the options of a SELECTOR, what they become on the wire, and asking before a bulk change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from queuectl_cli.client import Client, Message
from queuectl_cli.errors import RefusedError, UsageError
from queuectl_cli.options import App, stack
from queuectl_cli.render import plural
from queuectld.protocol.words import STATES

F = TypeVar("F", bound=Callable[..., Any])
# Jobs of one page.
_PAGE: Final = 1000
_NAMES = ("ids", "queue", "state", "failed", "tags", "owner", "since", "until", "ended_since", "command", "exit_code")


def selector_options(*, all_option: bool = False, any_state: bool = True, metavar: str = "[ID]...") -> Callable[[F], F]:
    """Add ids and the conditions that narrow them down; without `any_state` the command is about one state anyway."""
    states = [
        click.option("--state", multiple=True, metavar="S,S", help=f"In these states: {', '.join(STATES)}."),
        click.option("--failed", is_flag=True, help="Failed and dead ones."),
    ]
    options = [
        click.argument("ids", nargs=-1, metavar=metavar),
        click.option("--queue", multiple=True, metavar="Q,Q", help="In these queues."),
        *(states if any_state else ()),
        click.option("--tag", "tags", multiple=True, metavar="K=V", help="With this tag; repeat for several."),
        click.option("--owner", metavar="U", help="Of this user."),
        click.option("--since", metavar="TIME", help="Added since then (10m, 22:00, 2026-12-01)."),
        click.option("--until", metavar="TIME", help="Added before then."),
        click.option("--ended-since", metavar="TIME", help="Ended since then."),
        click.option("--command", metavar="GLOB", help="Whose command matches, as in '*ffmpeg*'."),
        click.option("--exit-code", type=click.IntRange(0, 255), metavar="N", help="That ended with this code."),
    ]
    if all_option:
        options.append(click.option("--all", "all_", is_flag=True, help="All of them."))
    return stack(options)


def split(values: Sequence[str]) -> list[str]:
    """Return the words of options that repeat or take commas."""
    return [word for value in values for word in value.split(",") if word]


def selector(given: Mapping[str, Any], now: float | None = None) -> dict[str, Any]:
    """Return the selector for the wire; only what was given. Raises `UsageError`."""
    now = time.time() if now is None else now
    found: dict[str, Any] = {
        "ids": list(given.get("ids") or ()),
        "queue": split(given.get("queue") or ()),
        "state": _states(given),
        "tags": [_tag(text) for text in given.get("tags") or ()],
        "owner": given.get("owner"),
        "command": given.get("command"),
        "exit_code": given.get("exit_code"),
    }
    for name in ("since", "until", "ended_since"):
        found[name] = past_instant(given.get(name), f"--{name.replace('_', '-')}", now)
    return {name: value for name, value in found.items() if value not in (None, [])}


def take(options: dict[str, Any]) -> dict[str, Any]:
    """Remove the options of a selector from those of a command, and return them."""
    return {name: options.pop(name) for name in _NAMES if name in options}


def known_states(values: Sequence[str]) -> list[str]:
    """Return the states that options name. Raises `UsageError` for what is none."""
    states = split(values)
    for state in states:
        if state not in STATES:
            raise UsageError(f"{state!r} is not a state; they are {', '.join(STATES)}")
    return states


def _states(given: Mapping[str, Any]) -> list[str]:
    states = known_states(given.get("state") or ())
    if given.get("failed"):
        both = [state for state in ("failed", "dead") if not states or state in states]
        if not both:
            raise UsageError(f"--failed means failed and dead; --state {','.join(states)} excludes both")
        return both
    return states


def _tag(text: str) -> str:
    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise UsageError(f"--tag {text!r}: write KEY=VALUE")
    return text


def past_instant(text: str | None, flag: str, now: float) -> float | None:
    """Return seconds since the epoch of what a flag says of the past. Raises `UsageError`."""
    if text is None:
        return None
    from queuectl_cli.times import parse_instant  # noqa: PLC0415  (rarely needed)

    try:
        return parse_instant(text, now, past=True)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def resolve_last(client: Client, select: dict[str, Any]) -> dict[str, Any]:
    """Replace ``@last`` by the id of the newest job of this user. Raises `CliError` if there is none."""
    ids = select.get("ids", [])
    if "@last" not in ids:
        return select
    newest = last(client)
    return {**select, "ids": [newest if name == "@last" else name for name in ids]}


def last(client: Client) -> str:
    """Return the id of the newest job of this user."""
    me = client.request("hello")["user"]
    page = client.request("list", select={"owner": me}, limit=1, reverse=True)
    while not page["jobs"] and page.get("next"):
        page = client.request("list", select={"owner": me}, limit=1, reverse=True, after=page["next"])
    if not page["jobs"]:
        raise RefusedError({"code": "no_such_job", "message": "there is no last job: you have none"})
    return str(page["jobs"][0]["id"])


def own(client: Client, select: dict[str, Any]) -> dict[str, Any]:
    """Return a selector of what a wait means: who may see jobs of others in listings waits for his own all the same."""
    if select.get("ids") or "owner" in select:
        return select
    me = client.request("hello")
    # An older daemon lets everybody wait for all.
    return {**select, "owner": me["user"]} if me.get("role") == "user" else select


def pages(
    client: Client, select: Mapping[str, Any], *, limit: int | None = None, newest_first: bool = False
) -> Iterator[Message]:
    """Yield jobs, page by page; at most `limit`."""
    after = None
    while limit is None or limit > 0:
        size = _PAGE if limit is None else min(_PAGE, limit)
        page = client.request("list", select=select, after=after, limit=size, reverse=newest_first or None)
        yield from page["jobs"]
        after = page.get("next")
        if after is None:
            return
        if limit is not None:
            limit -= len(page["jobs"])


def bulk(
    app: App, client: Client, op: str, select: dict[str, Any], options: Mapping[str, Any], **fields: Any
) -> Message:
    """Carry out a verb on many jobs; where no ids are given, ask first. Raises `UsageError`, click's `Exit`."""
    only_ids = bool(select.get("ids")) and len(select) == 1
    if not select and not options.get("all_"):
        raise UsageError(
            "which jobs? Give ids, a condition such as --queue or --state, or --all",
            "See what there is:  queuectl list",
        )
    if options.get("all_") and select.get("ids"):
        raise UsageError("--all and ids exclude each other")
    select = resolve_last(client, select)
    if options.get("dry_run"):
        return client.request(op, select=select, dry_run=True, patience=None, **fields)
    if not only_ids and not options.get("yes"):
        ask(app, op, client.request(op, select=select, dry_run=True, patience=None, **fields), client)
    return client.request(op, select=select, patience=None, **fields)


def ask(app: App, verb: str, would: Message, client: Client) -> None:
    """Ask before a change of many jobs. Raises `UsageError` where nobody can answer, `click.exceptions.Exit` on no."""
    count = would["count"]
    if count == 0:
        return
    if app.for_programs or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{verb} would change {plural(count)}; confirm with -y, or look with -n")
    sample = ", ".join(would["jobs"][:5]) + (" …" if count > 5 else "")
    app.say(f"{verb.capitalize()} {plural(count)} at {client.target.name}: {sample}")
    if not click.confirm("Go on?", err=True):
        app.say("Nothing was changed.")
        raise click.exceptions.Exit(1)
