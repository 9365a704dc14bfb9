from __future__ import annotations

from pathlib import Path

import pytest

from queuectld.errors import BadConfigError
from queuectld.server.listen import listen_tcp, on_loopback


@pytest.mark.parametrize(
    ("address", "host", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", True),
        ("127.1.2.3:0", "127.1.2.3", True),
        ("localhost:0", "127.0.0.1", True),
        ("0.0.0.0:0", "0.0.0.0", False),
        *([("[::1]:0", "::1", True), ("[::]:0", "::", False)] if Path("/proc/net/if_inet6").exists() else ()),
    ],
)
def test_an_address_is_listened_on_and_whether_others_reach_it_is_known(address, host, loopback):
    with listen_tcp(address) as sock:
        assert sock.getsockname()[0] == host
        assert on_loopback(sock) is loopback
        assert not sock.getblocking()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:70000", "ports end at 65535"),
        ("192.0.2.1:0", "cannot listen on 192.0.2.1:0"),
        ("no-such-host.invalid:80", "cannot listen on no-such-host.invalid:80"),
    ],
)
def test_where_nobody_can_listen_is_said(address, why):
    with pytest.raises(BadConfigError, match=why):
        listen_tcp(address)


def test_a_port_that_is_taken_is_said():
    with listen_tcp("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(BadConfigError, match="Address already in use"):
            listen_tcp(f"127.0.0.1:{port}")
