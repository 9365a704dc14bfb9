from __future__ import annotations

import pytest

from queuectld.errors import BadConfigError, ForbiddenError, UnauthenticatedError
from queuectld.protocol.messages import REQUESTS
from queuectld.server.listen import listen_tcp
from queuectld.server.who import STRANGER, Peer, Role, check_right, role_of, token_peer, user_name

HARMLESS = {"hello", "ping", "status"}
FIELDS = {
    "stage": {"key": "a"},
    "get": {"job": "a"},
    "logs": {"jobs": ("a",)},
    "wait": {"select": None},
    "signal": {"job": "a", "number": 1},
    "cancel": {"select": None},
    "retry": {"select": None},
    "discard": {"select": None},
    "undelete": {"select": None},
    "config_set": {"key": "a", "value": 1},
    "config_unset": {"key": "a"},
    "stop": {"stream": 1},
}


def request(name):
    return REQUESTS[name](id=1, **FIELDS.get(name, {}))


def allowed(uid, daemon_uid, name):
    try:
        check_right(Peer(uid, "somebody", role_of(uid, daemon_uid), "pid 1"), request(name))
    except ForbiddenError:
        return False
    return True


@pytest.mark.parametrize("name", REQUESTS)
def test_who_may_do_what(name):
    assert allowed(0, 0, name)
    assert allowed(0, 1000, name)
    assert allowed(1000, 1000, name)
    assert allowed(1001, 1000, name)
    assert allowed(1001, 0, name) == (name in HARMLESS)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stranger_may_do_nothing(name):
    with pytest.raises(UnauthenticatedError):
        check_right(STRANGER, request(name))


@pytest.mark.parametrize("given", [None, "", "secret ", "Secret", "s\udcffcret", "é"])
def test_only_the_very_token_counts(given):
    with pytest.raises(UnauthenticatedError):
        token_peer(given, "secret", 0, "")


def test_the_token_names_the_user_of_the_daemon():
    assert token_peer("secret", "secret", 0, "::1:7") == Peer(0, "root", Role.ADMIN, "::1:7")


def test_a_user_without_a_name_is_called_by_its_number():
    assert user_name(4_000_000_001) == "4000000001"


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "example.org:80", "127.0.0.1:70000", "127.0.0.1"]
)
def test_off_the_loopback_nobody_listens(address):
    with pytest.raises(BadConfigError):
        listen_tcp(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0"])
def test_on_the_loopback_one_may(address):
    with listen_tcp(address) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"
