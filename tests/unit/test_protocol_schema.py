from __future__ import annotations

import json

import pytest

from queuectld import errors
from queuectld.domain.attempt import Reason
from queuectld.domain.job import FINAL, VISIBLE
from queuectld.protocol import words
from queuectld.protocol.messages import REQUESTS
from queuectld.protocol.schema import EVENTS, reply_of, schema


def error_classes(parent=errors.QueueCTLError):
    for child in parent.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from error_classes(child)


def test_the_shared_words_are_those_of_the_classes():
    assert tuple(state.value for state in VISIBLE) == words.STATES
    assert set(words.FINAL_STATES) == {state.value for state in FINAL}
    assert tuple(reason.value for reason in Reason) == words.REASONS
    assert set(words.OPERATIONS) == set(REQUESTS)
    assert set(words.ERROR_CODES) == {form.code for form in error_classes()} | {"internal"}
    assert list(words.ERROR_CODES) == sorted(words.ERROR_CODES)


@pytest.mark.parametrize("name", words.OPERATIONS)
def test_every_operation_is_in_the_schema(name):
    made = schema()

    assert {"$ref": f"#/$defs/{REQUESTS[name].__name__}"} in made["anyOf"]
    assert made["x-replies"][name] == {"$ref": f"#/$defs/{reply_of(REQUESTS[name]).__name__}"}
    assert (name in made["x-events"]) == REQUESTS[name].streams


def test_the_schema_is_json_and_refers_to_nothing_that_is_not_there():
    made = schema()
    text = json.dumps(made)

    referred = {part.split('"')[0] for part in text.split("#/$defs/")[1:]}

    assert referred <= set(made["$defs"])
    assert set(EVENTS) == {name for name, form in REQUESTS.items() if form.streams}


def test_requests_are_closed_and_replies_open():
    definitions = schema()["$defs"]

    assert definitions["Enqueue"]["additionalProperties"] is False
    assert "additionalProperties" not in definitions["JobView"]


def test_the_jobs_of_a_request_are_described():
    definitions = schema()["$defs"]

    for name in ("Enqueue", "Stage"):
        assert definitions[name]["properties"]["jobs"]["items"] == {"$ref": "#/$defs/JobSpec"}
    assert definitions["JobSpec"]["additionalProperties"] is False
