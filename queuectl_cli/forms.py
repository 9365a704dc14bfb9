"""The forms in which a job is given to ``enqueue`` and ``run``: JSON, a shell command, the words of a command. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from queuectl_cli.errors import UsageError

Job = dict[str, Any]

# Compiled when they are first used: at import they would cost every call 2 ms.
_SHELL_SIGNS: Final = r"[\s;&|<>$`\"'(){}*?~#]"
# What a shell makes of {"id":"job1","command":"echo hello"} without quotes around it.
_EATEN: Final = r"\{?\s*[A-Za-z_]+:"
_RIGHT: Final = """queuectl enqueue '{"id":"job1","command":"echo hello"}'"""


class Line(NamedTuple):
    """One job of a bulk, or why it is none; ``number`` begins with 1."""

    number: int
    job: Job | None
    error: str | None


def from_words(
    words: Sequence[str], *, explicit: bool, which: Callable[[str], object], verb: str = "enqueue"
) -> list[Job]:
    """Return the jobs of what stands on the command line; `explicit` says that ``--`` stood before it."""
    if explicit or (len(words) > 1 and not _looks_like_json(words[0]) and not _eaten(words)):
        return [{"argv": check_argv(words, which, verb, explicit=explicit)}]
    if _eaten(words):
        raise UsageError(
            "this looks like JSON that the shell has taken apart", "Put single quotes around it:", f"  {_RIGHT}"
        )
    if len(words) > 1:
        raise UsageError(
            f"{len(words) - 1} more word{'s' * (len(words) > 2)} after the JSON: {' '.join(words[1:])[:60]}",
            "Options come before it, and the shell needs single quotes around it:",
            f"  {_RIGHT}",
        )
    text = words[0]
    return from_json(text) if _looks_like_json(text) else [{"command": text}]


def _eaten(words: Sequence[str]) -> bool:
    return len(words) > 1 and all(re.match(_EATEN, word) for word in words[:2])


def _looks_like_json(text: str) -> bool:
    """`{ cmd; }` and `[ -f x ] && y` are shell; what JSON could begin with is JSON, right or wrong."""
    stripped = text.strip()
    if not stripped.startswith(("{", "[")):
        return False
    try:
        json.loads(stripped)
    except (ValueError, RecursionError):
        inside = stripped[1:2]
        return not inside.isspace() or stripped[1:].lstrip()[:1] in {'"', "{", "}"}
    return True


def from_json(text: str) -> list[Job]:
    """Return the job of an object, or the jobs of an array. Raises `UsageError` that shows where it is wrong."""
    try:
        found = json.loads(text, object_pairs_hook=_no_double, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"not JSON: {error.msg} at position {error.pos}: {_around(text, error.pos)}", *_quoting(text, error.pos)
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}") from None
    jobs = found if isinstance(found, list) else [found]
    if not jobs:
        raise UsageError("the array has no jobs in it")
    for place, job in enumerate(jobs):
        if not isinstance(job, dict):
            raise UsageError(f"a job is a JSON object, and number {place + 1} is {json.dumps(job)[:40]}")
    return jobs


def _no_double(pairs: list[tuple[str, Any]]) -> Job:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field `{next(name for name in names if names.count(name) > 1)}` is there twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _around(text: str, position: int) -> str:
    before, after = text[max(0, position - 20) : position], text[position : position + 20]
    return (
        f"…{before}⟪{after[:1] or 'end'}⟫{after[1:]}…"
        if len(text) > 50
        else f"{text[:position]}⟪{after[:1] or 'end'}⟫{text[position + 1 :]}"
    )


def _quoting(text: str, position: int) -> tuple[str, ...]:
    # {id:job1 or {'id': or {\"id\": - in each the double quotes did not arrive as such.
    if '"' not in text or text[position : position + 1] in {"'", "\\"} or "\\" in text[:position]:
        return ("JSON needs its double quotes, and the shell single quotes around all of it:", f"  {_RIGHT}")
    return ()


def check_argv(
    words: Sequence[str], which: Callable[[str], object], verb: str = "enqueue", *, explicit: bool = True
) -> list[str]:
    """Return the words of a command; those that begin with a shell command are refused with the right form."""
    if not re.search(_SHELL_SIGNS, words[0]) or which(words[0]):
        return list(words)
    if len(words) == 1:
        raise UsageError(
            f"{words[0]!r} names no program; after -- each word is passed on as it is, without a shell",
            f"For a shell command leave out the --:  queuectl {verb} {_quoted(words[0])}",
        )
    right = f"queuectl {verb} [OPTIONS] {_quoted(words[0])}"
    hint = f"Options come before the command:  {right}" if not explicit and words[1].startswith("-") else ""
    raise UsageError(
        f"{words[0]!r} names no program; several words are a program and its arguments, without a shell",
        hint or f"A shell command is one word:  {right}",
    )


def _quoted(text: str) -> str:
    import shlex  # noqa: PLC0415  (only for mistakes)

    return shlex.quote(text)


def bulk_lines(lines: Iterable[bytes | None], *, plain: bool) -> Iterator[Line | None]:
    """Read one job a line, JSON or, with `plain`, shell commands; empty lines are skipped. None: the source pauses."""
    number = 0
    for raw in lines:
        if raw is None:
            yield None
            continue
        number += 1
        try:
            text = raw.decode().strip()
        except UnicodeDecodeError as error:
            yield Line(number, None, f"not UTF-8 (byte {error.start + 1})")
            continue
        if number == 1:
            text = text.removeprefix("\ufeff")
        if not text or (plain and text.startswith("#")):
            continue
        yield Line(number, {"command": text}, None) if plain else _json_line(number, text)


def _json_line(number: int, text: str) -> Line:
    try:
        job = json.loads(text, object_pairs_hook=_no_double, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return Line(number, None, f"not JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return Line(number, None, f"not JSON: {error}")
    if not isinstance(job, dict):
        return Line(number, None, "a job is a JSON object")
    return Line(number, job, None)
