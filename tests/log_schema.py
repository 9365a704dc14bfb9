"""Holds lines of the log against the JSON Schema that is shipped: the part of JSON Schema that it uses, no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import queuectld
from queuectld.log_ecs import ECS_VERSION, NAMES, PREFIX

SCHEMA = json.loads((Path(queuectld.__path__[0]) / "log.schema.json").read_text())
LINE_MAX = 16 * 1024

_TYPES: dict[str, Any] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_CHECKS: dict[str, Any] = {
    "$schema": lambda _value, _rule: True,
    "title": lambda _value, _rule: True,
    "description": lambda _value, _rule: True,
    "type": lambda value, rule: any(_TYPES[kind](value) for kind in ([rule] if isinstance(rule, str) else rule)),
    "enum": lambda value, rule: value in rule,
    "const": lambda value, rule: value == rule and type(value) is type(rule),
    "minimum": lambda value, rule: not _TYPES["number"](value) or value >= rule,
    "maximum": lambda value, rule: not _TYPES["number"](value) or value <= rule,
    "pattern": lambda value, rule: not isinstance(value, str) or re.search(rule, value) is not None,
    "items": lambda value, rule: not isinstance(value, list) or not any(complaints(item, rule) for item in value),
    "anyOf": lambda value, rule: any(not complaints(value, form) for form in rule),
    "required": lambda value, rule: set(rule) <= set(value),
    "properties": lambda value, rule: not any(complaints(value[name], rule[name]) for name in rule if name in value),
    "additionalProperties": lambda _value, _rule: True,
}


def complaints(value: Any, schema: dict[str, Any]) -> list[str]:
    """Return which rules of a schema a value breaks. A rule that is not known here is an error, not a pass."""
    broken = [name for name, rule in schema.items() if not _CHECKS[name](value, rule)]
    if "additionalProperties" in schema:
        known = schema["properties"]
        more = {name: complaints(value[name], schema["additionalProperties"]) for name in value if name not in known}
        broken += [f"{name}: {what}" for name, what in more.items() if what]
    return broken


# By what Elastic calls them.
OUR_NAMES = {theirs: ours for ours, theirs in NAMES.items()}


def from_ecs(line: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a line in the form `ecs` under our own names, or fail if it has others."""
    assert line.pop("ecs.version") == ECS_VERSION
    strange = [name for name in line if name not in OUR_NAMES and not name.startswith(PREFIX)]
    assert not strange, f"neither of the schema nor below {PREFIX}: {strange}"
    return {OUR_NAMES.get(name) or name.removeprefix(PREFIX): value for name, value in line.items()}


def check_line(raw: bytes) -> dict[str, Any]:
    """Return the fields of one line of the log, in whichever form, or fail with what is wrong with it."""
    assert len(raw) < LINE_MAX, f"a line of {len(raw)} bytes"
    line = json.loads(raw)
    if "ecs.version" in line:
        line = from_ecs(line)
    assert list(line)[:7] == SCHEMA["required"], f"order of fields: {list(line)}"
    assert not complaints(line, SCHEMA), f"{complaints(line, SCHEMA)} in {line}"
    return dict(line)


def check_log(raw: bytes) -> list[dict[str, Any]]:
    """Return the lines of a whole log, each checked."""
    assert not raw or raw.endswith(b"\n"), "the last line is not whole"
    return [check_line(line) for line in raw.splitlines()]
