"""Runs the examples of PROTOCOL.md against a server."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import msgspec
import pytest

import queuectld.protocol
from queuectld.domain.transitions import Event
from queuectld.protocol import frames, messages, replies
from queuectld.protocol.words import ERROR_CODES, OPERATIONS, REASONS, STATES
from queuectld.service.output_files import output_base
from queuectld.service.views import WAITING_WORDS
from queuectld.worker.output import Output
from tests.process.server_rig import Rig

DOCUMENT = (Path(queuectld.protocol.__path__[0]) / "PROTOCOL.md").read_text()
BLOCKS = re.findall(r"^```(transcript\S*)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```", "", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
ANY = "…"
TOKEN = "a-token-of-more-than-16-characters"


def matches(pattern, value):
    if pattern == ANY:
        return True
    if isinstance(pattern, dict) and isinstance(value, dict):
        if ANY not in pattern and pattern.keys() != value.keys():
            return False
        return all(key == ANY or (key in value and matches(part, value[key])) for key, part in pattern.items())
    if isinstance(pattern, list) and isinstance(value, list):
        return len(pattern) == len(value) and all(map(matches, pattern, value))
    return pattern == value


class Meanwhile:
    """Does what the bracketed lines say."""

    def __init__(self, rig):
        self.rig = rig
        self.claimed = None

    def happens(self, what):
        if re.fullmatch(r"a worker starts \w+", what):
            self.claimed = self.rig.start_job()
        elif said := re.fullmatch(r"\w+ writes (.*)", what):
            self._write(said[1].encode() + b"\n")
        elif ended := re.fullmatch(r"\w+ exits with (\d+)", what):
            self.rig.end_job(self.claimed.attempt.token, exit_code=int(ended[1]))
        elif killed := re.fullmatch(r"\w+ is killed by signal (\d+)", what):
            self._wait_for_cancel()
            self.rig.end_job(self.claimed.attempt.token, reason="signalled", signal=int(killed[1]), exit_code=None)
        else:
            pytest.fail(f"nobody knows how to do: {what}")

    def _write(self, data):
        job = self.claimed.job
        base = output_base(self.rig.state / "output", job.seq, job.attempts)
        base.parent.mkdir(parents=True, exist_ok=True)
        output = Output(str(base), 1 << 20)
        output.take(data, 1, time.time())
        output.finish(time.time())
        if grown := self.rig.control.listeners.get(self.claimed.attempt.token):
            self.rig.call(grown)

    def _wait_for_cancel(self):
        end = time.monotonic() + 10
        while not any(asked[0] == "cancel" for asked in self.rig.control.asked):
            assert time.monotonic() < end
            time.sleep(0.005)


def run(rig, transcript, client):
    meanwhile = Meanwhile(rig)
    for line in transcript.splitlines():
        if line.startswith("C: "):
            client.send_raw(line[3:].encode() + b"\n")
        elif line.startswith("S: "):
            expected, received = json.loads(line[3:]), client.receive()
            assert matches(expected, received), f"expected {line[3:]}\nreceived {json.dumps(received)}"
        else:
            meanwhile.happens(line.strip("[]"))


@pytest.mark.parametrize(("kind", "transcript"), BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_of_the_document_is_true(tmp_path, kind, transcript):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    environ = {"QUEUECTLD_TCP": "127.0.0.1:0", "QUEUECTLD_TOKEN_FILE": str(token_file)}
    with Rig(tmp_path, environ=environ if kind == "transcript-tcp" else {}) as rig:
        greeted = '"queuectld"' not in transcript
        client = rig.connect_tcp() if kind == "transcript-tcp" else rig.connect(greeted=greeted)
        try:
            run(rig, transcript, client)
        finally:
            client.close()


def structs(*modules):
    """Every class of messages, their parts included."""
    return [
        form
        for module in modules
        for form in vars(module).values()
        if isinstance(form, type) and issubclass(form, msgspec.Struct) and form.__module__ == module.__name__
    ]


@pytest.mark.parametrize("form", structs(frames, messages, replies), ids=lambda form: form.__name__)
def test_every_field_is_described_or_shown(form):
    names = [field.encode_name for field in msgspec.structs.fields(form)]

    assert [name for name in names if f"`{name}`" not in DOCUMENT and f'"{name}":' not in DOCUMENT] == []


@pytest.mark.parametrize("form", structs(messages), ids=lambda form: form.__name__)
def test_every_field_of_a_request_is_told_in_words(form):
    names = {field.encode_name for field in msgspec.structs.fields(form)} - {"id"}

    assert {name for name in names if f"`{name}`" not in PROSE} == set()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_an_example(name):
    assert any(f'"op":"{name}"' in transcript for _, transcript in BLOCKS)


@pytest.mark.parametrize("word", [*ERROR_CODES, *STATES, *REASONS, *WAITING_WORDS, *(event.value for event in Event)])
def test_every_word_of_a_reply_is_explained(word):
    assert f"`{word}`" in DOCUMENT
