"""Requests of HTTP as they come in, whole and in pieces, and what is none."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuectld.server.http import MOST, Asked, Bad, Requests, answer


def asked(*pieces: bytes) -> list[Asked | Bad]:
    """All that comes of these bytes, up to the first that is bad."""
    requests, found = Requests(), []
    for piece in pieces:
        requests.feed(piece)
        while (one := requests.next()) is not None:
            found.append(one)
            if isinstance(one, Bad):
                return found
    return found


SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: localhost:9321\r\nAccept: */*\r\n\r\n"


def test_a_request_of_prometheus_is_read():
    assert asked(SCRAPE) == [Asked("GET", "/metrics", last=False)]


@pytest.mark.parametrize("cut", range(1, len(SCRAPE)))
def test_pieces_make_the_same_request(cut):
    assert asked(SCRAPE[:cut], SCRAPE[cut:]) == [Asked("GET", "/metrics", last=False)]


def test_requests_in_one_go_come_one_by_one_and_empty_lines_between_them_do_no_harm():
    assert asked(SCRAPE + b"\r\n" + SCRAPE + b"HEAD /healthz HTTP/1.0\n\n") == [
        Asked("GET", "/metrics", last=False),
        Asked("GET", "/metrics", last=False),
        Asked("HEAD", "/healthz", last=True),
    ]


@pytest.mark.parametrize(
    ("request_", "path", "last"),
    [
        (b"GET /readyz?verbose=1 HTTP/1.1\r\n\r\n", "/readyz", False),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", "/", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "/", False),
        (b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "/", False),
    ],
)
def test_queries_are_left_out_and_connections_kept_as_asked(request_, path, last):
    assert asked(request_) == [Asked("GET", path, last)]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hello\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b'{"id":1,"op":"ping"}\n\n', HTTPStatus.BAD_REQUEST),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /metr\xc3\xa4cs HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics HTTP/1.1\r\n folded: x\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics HTTP/2.0\r\n\r\n", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", HTTPStatus.BAD_REQUEST),
    ],
)
def test_what_is_no_request_is_refused(request_, status):
    (bad,) = asked(request_)

    assert isinstance(bad, Bad)
    assert bad.status is status


def test_more_than_may_be_is_refused_before_it_has_come_in_whole():
    requests = Requests()

    requests.feed(b"GET / HTTP/1.1\r\nX: " + b"x" * MOST)

    assert requests.next() == Bad(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request may have {MOST} bytes")


@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_comes_is_a_request_or_none(data, cut):
    for one in asked(data[:cut], data[cut:] + b"\r\n\r\n"):
        assert isinstance(one, Asked | Bad)


def test_an_answer_tells_its_length_and_a_head_has_no_body():
    whole = answer(HTTPStatus.OK, "ö\n".encode(), last=True)
    head = answer(HTTPStatus.OK, "ö\n".encode(), head=True)

    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 3\r\n" in whole
    assert b"\r\nConnection: close\r\n" in whole
    assert whole.endswith("\r\n\r\nö\n".encode())
    assert head.endswith(b"\r\nConnection: keep-alive\r\n\r\n")
    assert b"\r\nContent-Length: 3\r\n" in head
