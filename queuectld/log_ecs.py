"""The names of the Elastic Common Schema for the fields of a line. Only names differ: types and values stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# The version of the schema in which all these names are.
ECS_VERSION: Final = "8.11.0"
# What the schema has no name for goes below ours.
PREFIX: Final = "queuectl."

# An `error` of ours is a text, and would stand in the way of the object that they put together from `error.type`.
NAMES: Final[Mapping[str, str]] = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "message": "message",
    "event": "event.action",
    "service": "service.name",
    "version": "service.version",
    "pid": "process.pid",
    "logger": "log.logger",
    "error_type": "error.type",
    "error_message": "error.message",
    "traceback": "error.stack_trace",
}


def to_ecs(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a line under the names of the schema, in the same order."""
    renamed = {NAMES.get(name) or PREFIX + name: value for name, value in fields.items()}
    return renamed | {"ecs.version": ECS_VERSION}
