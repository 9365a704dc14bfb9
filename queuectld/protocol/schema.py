"""The JSON Schema of the protocol, made from the classes of its messages; ``queuectld --schema`` prints it."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from queuectld.domain.spec import Duration, JobSpec
from queuectld.protocol.frames import ErrorBody, Greeting, Request
from queuectld.protocol.messages import REQUESTS, Enqueue, Stage
from queuectld.protocol.replies import EventView, Finished, Output
from queuectld.protocol.words import VERSION

# What a stream sends before its reply.
EVENTS: Final[dict[str, type[msgspec.Struct]]] = {
    "logs": Output,
    "wait": Finished,
    "events": EventView,
}
_PLACE: Final = "#/$defs/{name}"


def reply_of(request: type[Request[Any]]) -> type[msgspec.Struct]:
    """Return the class of the reply to a request, which is its parameter."""
    for base in request.__mro__:
        for parent in getattr(base, "__orig_bases__", ()):
            for argument in get_args(parent):
                if isinstance(argument, type):
                    return argument
    raise TypeError(request)


def schema() -> dict[str, Any]:
    """Return one schema: of a line that a client sends, and in ``$defs`` of everything else."""
    operations = {name: {"request": form, "reply": reply_of(form)} for name, form in REQUESTS.items()}
    forms = [
        Greeting,
        ErrorBody,
        JobSpec,
        *(form for operation in operations.values() for form in operation.values()),
        *EVENTS.values(),
    ]
    unique = list(dict.fromkeys(forms))
    shown, definitions = msgspec.json.schema_components(unique, schema_hook=_custom, ref_template=_PLACE)
    place = dict(zip(unique, shown, strict=True))
    for taking in (Enqueue, Stage):
        # To the classes they are raw, since each is read by itself.
        definitions[taking.__name__]["properties"]["jobs"]["items"] = place[JobSpec]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"The protocol of queuectld {VERSION}: a line that a client sends",
        "anyOf": [place[operation["request"]] for operation in operations.values()],
        "x-greeting": place[Greeting],
        "x-error": place[ErrorBody],
        "x-job": place[JobSpec],
        "x-replies": {name: place[operation["reply"]] for name, operation in operations.items()},
        "x-events": {name: place[form] for name, form in EVENTS.items()},
        "$defs": definitions,
    }


def _custom(kind: type) -> dict[str, Any]:
    if kind is Duration:
        return {
            "description": 'A time: a number of seconds, or a text such as "5m"',
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}],
        }
    raise NotImplementedError(kind)
