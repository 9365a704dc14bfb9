"""A flag for every field of a job, and what the flags become in its JSON."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from queuectl_cli.errors import UsageError
from queuectl_cli.options import stack
from queuectl_cli.selection import split

F = TypeVar("F", bound=Callable[..., Any])


def duration(text: str) -> float:
    """Return seconds, from ``5m``."""
    from queuectld.domain.durations import parse_duration  # noqa: PLC0415  (its patterns cost 2 ms)

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def size(text: str) -> int:
    """Return bytes, from ``64M``."""
    from queuectld.domain.sizes import parse_size  # noqa: PLC0415  (rarely needed)

    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def octal(text: str) -> int:
    """Return a mask, from ``022``."""
    if not re.fullmatch("0?[0-7]{1,3}", text):
        raise click.BadParameter(f"{text!r} is not a mask; write it as umask(1) does, 022")
    return int(text, 8)


# Flags whose value goes into the job as it is, under the name of the parameter.
_DIRECT: Final = (
    "id", "queue", "priority", "delay", "max_retries", "retry_for", "backoff_base", "backoff_max", "jitter",
    "rerun", "timeout", "silent_timeout", "kill_after", "leftovers", "shell", "umask", "nice", "note",
)  # fmt: skip

# Flags whose value goes into the limits of the job.
_LIMITS: Final = ("memory", "cpu", "files", "output", "output_action")

_OPTIONS: Final = (
    click.option("--id", metavar="ID", help="Its id; one is made up if there is none."),
    click.option("-Q", "--queue", metavar="Q", help="The queue it waits in."),
    click.option("-p", "--priority", type=int, metavar="N", help="Larger is sooner: a step is worth an hour."),
    click.option("--in", "--delay", "delay", type=duration, metavar="DUR", help="Not before this time from now: 10m."),
    click.option("--at", "--run-at", "at", metavar="TIME", help="Not before: 18:00, 'tomorrow 09:00'."),
    click.option("--tz", metavar="ZONE", help="The time zone of --at, as Europe/Berlin."),
    click.option("--max-retries", type=click.IntRange(0), metavar="N", help="Retries after the first run."),
    click.option("--retry-for", type=duration, metavar="DUR", help="Retry for this long after the first start."),
    click.option("--backoff-base", type=click.FloatRange(0), metavar="B", help="The n-th retry waits B^n seconds."),
    click.option("--backoff-max", type=duration, metavar="DUR", help="No retry waits longer."),
    click.option("--jitter", type=click.FloatRange(0, 1), metavar="F", help="A share of the wait added at random."),
    click.option("--success-codes", multiple=True, metavar="N,N", help="Exit codes that mean success."),
    click.option("--no-retry-on", multiple=True, metavar="X,X", help="Exit codes or reasons that are final."),
    click.option("--rerun", type=click.Choice(("always", "never")), help="Whether it may run again if cut short."),
    click.option("--timeout", type=duration, metavar="DUR", help="End it after this long."),
    click.option("--silent-timeout", type=duration, metavar="DUR", help="End it if it writes nothing for so long."),
    click.option("--kill-after", type=duration, metavar="DUR", help="Time between TERM and KILL."),
    click.option("--leftovers", type=click.Choice(("end", "keep")), help="What it leaves running is ended, or kept."),
    click.option("--shell", metavar="SH", help="The shell that runs its command."),
    click.option("--script", metavar="-|FILE", help="Run this whole script instead of a command."),
    click.option("--stdin", metavar="-|FILE", help="Its standard input, read now."),
    click.option("--cwd", metavar="DIR", help="Where it runs; else where you are."),
    click.option("--env", multiple=True, metavar="K[=V]", help="Set a variable, or copy it from here."),
    click.option("--env-file", multiple=True, metavar="FILE", help="Variables, one K=V a line."),
    click.option("--env-mode", type=click.Choice(("capture", "clean")), help="Take this environment along, or not."),
    click.option("--clean-env", is_flag=True, help="The same as --env-mode clean."),
    click.option("--umask", type=octal, metavar="MASK", help="Its umask; else yours."),
    click.option("--nice", type=click.IntRange(-20, 19), metavar="N", help="Its nice value."),
    click.option("--as", "as_", metavar="USER", help="Whose job it is, and as whom it runs; for administrators."),
    click.option("--limit-memory", type=size, metavar="SIZE", help="End it if all its processes use more: 512M."),
    click.option("--limit-cpu", type=duration, metavar="DUR", help="End it after this much processor time: 30s."),
    click.option("--limit-files", type=click.IntRange(1), metavar="N", help="Files that each process may have open."),
    click.option("--limit-output", type=size, metavar="SIZE", help="Bytes of output to keep: 64M."),
    click.option("--limit-output-action", type=click.Choice(("trim", "end")), help="What more output does."),
    click.option("--tag", "tags", multiple=True, metavar="K=V", help="A tag; repeat for several."),
    click.option("--note", metavar="TEXT", help="A remark."),
)  # fmt: skip


def job_options(function: F) -> F:
    """Add a flag for every field of a job."""
    return stack(_OPTIONS)(function)


def job_fields(flags: Mapping[str, Any], environ: Mapping[str, str], now: float | None = None) -> dict[str, Any]:
    """Return the fields of a job that the flags give; input is left to the caller. Raises `UsageError`."""
    job = {name: flags[name] for name in _DIRECT if flags.get(name) is not None}
    if flags.get("as_") is not None:
        job["as"] = flags["as_"]
    if at := _at(flags, time.time() if now is None else now):
        job["run_at"] = at
    if codes := split(flags.get("success_codes") or ()):
        job["success_codes"] = [_code(code) for code in codes]
    if words := split(flags.get("no_retry_on") or ()):
        job["no_retry_on"] = [int(word) if word.isdecimal() else word for word in words]
    if flags.get("cwd") is not None:
        job["cwd"] = os.path.abspath(flags["cwd"])  # noqa: PTH100  (pathlib costs 3 ms)
    if limits := {name: value for name in _LIMITS if (value := flags.get(f"limit_{name}")) is not None}:
        job["limits"] = limits
    rest = {
        "env": _environment(flags, environ),
        "env_mode": _mode(flags),
        "tags": pairs(flags.get("tags") or (), "--tag"),
    }
    return {**job, **{name: value for name, value in rest.items() if value}}


def _at(flags: Mapping[str, Any], now: float) -> str | None:
    if flags.get("at") is None:
        if flags.get("tz") is not None:
            raise UsageError("--tz says in which zone --at is; there is no --at")
        return None
    if flags.get("delay") is not None:
        raise UsageError("--in and --at exclude each other")
    return _instant(flags["at"], flags.get("tz"), now)


def _mode(flags: Mapping[str, Any]) -> str | None:
    if flags.get("clean_env"):
        if flags.get("env_mode") == "capture":
            raise UsageError("--clean-env and --env-mode capture exclude each other")
        return "clean"
    mode: str | None = flags.get("env_mode")
    return mode


def _instant(text: str, tz: str | None, now: float) -> str:
    from queuectl_cli.times import iso, parse_instant, zone  # noqa: PLC0415  (rarely needed)

    try:
        return iso(parse_instant(text, now, zone(tz)))
    except ValueError as error:
        raise UsageError(f"--at: {error}") from None


def _code(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise UsageError(f"--success-codes: {text!r} is not an exit code")
    return int(text)


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Return what ``K=V`` texts say. Raises `UsageError`."""
    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise UsageError(f"{flag} {text!r}: write KEY=VALUE")
        found[key] = value
    return found


def _environment(flags: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    lines = [(line, f"--env-file {name}") for name in flags.get("env_file") or () for line in _env_lines(name)]
    lines += [(text, "--env") for text in flags.get("env") or ()]
    env = {}
    for text, source in lines:
        name, sign, value = text.partition("=")
        if not name:
            raise UsageError(f"{source}: {text!r}: write NAME=VALUE, or NAME to copy it from here")
        if not sign and name not in environ:
            raise UsageError(f"{source}: there is no variable {name} here to copy")
        env[name] = value if sign else environ[name]
    return env


def _env_lines(name: str) -> list[str]:
    try:
        with open(name, encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs 3 ms)
            lines = [line.strip() for line in file]
    except (OSError, ValueError) as error:
        raise UsageError(f"--env-file: cannot read {name}: {getattr(error, 'strerror', None) or error}") from None
    return [line.removeprefix("export ") for line in lines if line and not line.startswith("#")]
