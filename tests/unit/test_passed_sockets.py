from __future__ import annotations

import os
import socket

import pytest

from queuectld.errors import BadConfigError
from queuectld.host.passed import Found, PassedSockets, assign, passed_sockets

UNIX, INET, INET6 = socket.AF_UNIX, socket.AF_INET, socket.AF_INET6


def found(name="", family=UNIX, *, stream=True, listens=True, where="/run/s", descriptor=3):
    return Found(descriptor, name, family, stream, listens, where)


def test_who_is_passed_none_listens_by_himself():
    assert assign([]) == PassedSockets()


def test_a_name_says_what_a_socket_is_for():
    tcp, control = found("tcp", INET, where="127.0.0.1:1"), found("control", descriptor=4)

    assert assign([tcp, control]) == PassedSockets(control, tcp)


@pytest.mark.parametrize("name", ["", "unknown", "queuectld.socket"])
def test_without_a_name_its_kind_does(name):
    control, tcp = found(name), found(name, INET6, where="[::1]:1", descriptor=4)

    assert assign([tcp, control]) == PassedSockets(control, tcp)


def test_a_name_comes_before_a_kind():
    unnamed, named = found("other", where="/run/other"), found("control", descriptor=4)

    assert assign([unnamed, named]) == PassedSockets(named, None, (unnamed,))


@pytest.mark.parametrize(
    "strange",
    [
        found("log", stream=False),
        found("log", listens=False),
        found("log", where=""),
        found("log", None),
        found("log", INET, stream=False, where="127.0.0.1:1"),
        found("control", where="/run/second"),
    ],
)
def test_what_nobody_knows_the_use_of_is_left_alone(strange):
    control = found("control")

    assert assign([control, strange]) == PassedSockets(control, None, (strange,))


@pytest.mark.parametrize(
    "wrong",
    [
        found("control", stream=False),
        found("control", listens=False),
        found("control", INET, where="127.0.0.1:1"),
        found("control", where=""),
        found("control", None),
        found("tcp"),
        found("tcp", INET, stream=False, where="127.0.0.1:1"),
    ],
)
def test_what_cannot_be_what_its_name_says_is_refused(wrong):
    with pytest.raises(BadConfigError, match=f"`{wrong.name}`"):
        assign([wrong])


def test_sockets_are_seen_as_they_are(tmp_path, monkeypatch):
    path = str(tmp_path / "s")
    with socket.socket(UNIX) as control, socket.socket(INET) as tcp, socket.socket(UNIX) as idle:
        control.bind(path)
        control.listen()
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        passed = [control.fileno(), tcp.fileno(), idle.fileno()]
        monkeypatch.setattr("queuectld.host.passed.passed_descriptors", lambda _: passed)

        seen = passed_sockets({"LISTEN_FDNAMES": "control:tcp"})

        assert (seen.control.where, seen.tcp.where) == (path, f"127.0.0.1:{tcp.getsockname()[1]}")
        assert [one.descriptor for one in seen.strange] == [idle.fileno()]
        assert os.fstat(control.fileno())
