"""Shapes one line of the log: flat, valid UTF-8, without nulls, in bounds. Pure functions over the fields of a line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import msgspec

from queuectld.log_events import CORE

# A line of more than 48 KiB would be split by journald; many shippers stop at 16 KiB. The newline and a priority count.
LINE_MAX: Final = 16 * 1024 - 8
# Bounds on texts that are tried, one after the other, until a line fits.
_CUTS: Final = (4096, 1024, 256, 64)
_LONGEST_LIST: Final = 32
# Beyond it few readers can hold a number.
_LARGEST: Final = 1 << 63
# Never shown, whoever hands them over.
SECRET: Final = frozenset({"env", "environ", "environment", "password", "secret"})

Fields = dict[str, Any]


def flatten(fields: Mapping[str, Any]) -> Fields:
    """Return the fields as JSON can hold them, the common ones first; nulls and secrets are left out."""
    plain = {_key(name): _plain(value) for name, value in fields.items() if value is not None and name not in SECRET}
    common = {name: plain.pop(name) for name in CORE if name in plain}
    return common | plain


@lru_cache(maxsize=1024)
def _key(name: str) -> str:
    return _text(name).replace(".", "_")


def _plain(value: Any) -> Any:
    # Nearly all are like this, and every attempt writes a line.
    kind = type(value)
    if (kind is str and value.isascii()) or (kind is int and -_LARGEST < value < _LARGEST):
        return value
    match value:
        case Enum():
            return _plain(value.value)
        case bytes():
            return value.decode(errors="replace")
        case list() | tuple() | set() | frozenset():
            return [item if isinstance(item, str | int | float) else str(item) for item in map(_plain, value)]
        # Not for NaN, which JSON has not.
        case int() | float() if abs(value) < _LARGEST:
            return value
        case _:
            return _text(str(value))


def _text(value: str) -> str:
    # Names of files and arguments may hold bytes that are no UTF-8, as lone surrogates.
    return value.encode(errors="replace").decode()


def encode_line(fields: Fields, rename: Callable[[Fields], Fields] | None = None) -> bytes:
    """Return the fields as one line of JSON, without its newline; what is too long is cut and the line says so.

    `rename` gives the fields the names of another convention at the very end.
    """
    line = _encoded(fields, rename)
    if len(line) <= LINE_MAX:
        return line
    for longest in _CUTS:
        cut = {name: _shorten(value, longest) for name, value in fields.items()}
        line = _encoded(cut | {"truncated": True}, rename)
        if len(line) <= LINE_MAX:
            return line
    # So many fields that short ones are too much as well.
    core = {name: _shorten(fields[name], _CUTS[-1]) for name in CORE if name in fields}
    return _encoded(core | {"truncated": True}, rename)


def _encoded(fields: Fields, rename: Callable[[Fields], Fields] | None) -> bytes:
    return msgspec.json.encode(fields if rename is None else rename(fields))


def _shorten(value: Any, longest: int) -> Any:
    if isinstance(value, str) and len(value) > longest:
        # The end of a traceback is what matters, of other texts mostly the beginning.
        return value[: longest // 2] + "…" + value[1 - longest // 2 :]
    if isinstance(value, list):
        return [_shorten(item, longest) for item in value[:_LONGEST_LIST]]
    return value


def error_fields(error: BaseException) -> Fields:
    """Return an exception as fields: no values of local variables, which could be anything."""
    lines = traceback.format_exception(error)
    return {"error_type": type(error).__name__, "error_message": str(error), "traceback": "".join(lines).rstrip()}


def printable(fields: Fields) -> Fields:
    """Return the fields without control characters in texts, which could play tricks with a terminal."""
    return {name: _visible(value) if isinstance(value, str) else value for name, value in fields.items()}


def _visible(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )
