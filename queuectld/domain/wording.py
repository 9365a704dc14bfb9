"""Says in plain words what is wrong with a value that somebody sent, after what `msgspec` says of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from queuectld.domain.durations import format_duration
from queuectld.domain.sizes import format_size

# Longer names are no slips of the finger, and to compare them takes as long as they are.
_NAME_LENGTH: Final = 64

_KINDS: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
# Of what was given instead.
_GOT: Final = {"float": "a fraction", "bool": "a truth value"}

# Numbers as people write them, by their unit.
SHOWN: Final[Mapping[str, Callable[[Any], str]]] = {
    "seconds": format_duration,
    "bytes": format_size,
    "mode": "{:04o}".format,
}


class Terms(NamedTuple):
    """What the values of a form are to people."""

    # By regular expression: what it means.
    patterns: Mapping[str, str]
    # By path: the unit of a number, of `SHOWN`.
    units: Mapping[str, str]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return what somebody may have meant who wrote `name`."""
    near = get_close_matches(name, known, 1) if len(name) <= _NAME_LENGTH else ()
    return near[0] if near else None


def in_words(text: str, path: str, whole: str, terms: Terms) -> str:
    """Return a sentence about the value at `path` of the `whole`."""
    for form, say in _SENTENCES:
        if found := form.fullmatch(text):
            return f"{_subject(path, whole)} {say(found, path, terms)}"
    # "JSON" stays as it is.
    text = text if text[:2].isupper() else text[:1].lower() + text[1:]
    return f"{_subject(path, whole)}: {text}" if path else text


def _subject(path: str, whole: str) -> str:
    name = path.removeprefix("$").removeprefix(".")
    if name.endswith("[...]"):
        return f"each value of `{name.removesuffix('[...]')}`"
    return f"`{name}`" if name else whole


def _kinds(found: re.Match[str], _path: str, _terms: Terms) -> str:
    wanted = [_KINDS.get(kind, kind) for kind in found["wanted"].split(" | ") if kind != "null"]
    got = _GOT.get(found["got"]) or _KINDS.get(found["got"], found["got"])
    return f"must be {' or '.join(wanted)}, not {got}"


def _bound(found: re.Match[str], path: str, terms: Terms) -> str:
    side = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}[found["sign"]]
    unit = terms.units.get(path)
    bound = found["bound"].removesuffix(".0") if unit is None else SHOWN[unit](int(found["bound"]))
    return f"must be {side} {bound}"


def _length(found: re.Match[str], _path: str, _terms: Terms) -> str:
    if found["sign"] == ">=" and found["bound"] == "1":
        return "must not be empty"
    unit = "characters" if found["kind"] == "str" else "entries"
    return f"must have {'at least' if found['sign'] == '>=' else 'at most'} {found['bound']} {unit}"


def _pattern(found: re.Match[str], _path: str, terms: Terms) -> str:
    pattern = ast.literal_eval(found["literal"])
    return f"must be {terms.patterns.get(pattern, f'like {pattern}')}"


_Say = Callable[[re.Match[str], str, Terms], str]
_SENTENCES: Final[tuple[tuple[re.Pattern[str], _Say], ...]] = (
    (re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`"), _kinds),
    (re.compile(r"Expected `(?P<kind>\w+)` of length (?P<sign>[<>]=) (?P<bound>\d+)"), _length),
    (re.compile(r"Expected `\w+` (?P<sign>[<>]=?) (?P<bound>\S+)"), _bound),
    (re.compile(r"Expected `str` matching regex (?P<literal>'.*'|\".*\")"), _pattern),
    (re.compile(r"Invalid enum value (?P<value>.*)"), lambda found, *_: f"cannot be {found['value']}"),
    (
        re.compile(r"Object missing required field `(?P<name>.*)`"),
        lambda found, *_: f"lacks the field `{found['name']}`",
    ),
    (re.compile(r"Invalid base64 encoded string"), lambda *_: "must be base64"),
)
