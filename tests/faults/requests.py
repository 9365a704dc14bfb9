"""Lines that a client might send: right ones, right ones spoilt, and no requests at all; and how each is answered.

Nothing in them stops the daemon, starts many workers, or gives keys values by which others would notice.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st

from queuectld.protocol.words import LINE_LIMIT

# Stands in a request for a piece of text that is no JSON value, or not one that everybody accepts.
_HOLE: Final = "\ue000"
_ODD: Final = (
    "NaN",
    "-Infinity",
    "1e999",
    "-0",
    "0.1e-400",
    "1" + "0" * 400,
    "9007199254740993",
    "-9223372036854775809",
    "18446744073709551616",
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '"\\ud83d\\ude00"',
    '"' + "x" * 5000 + '"',
    "[" * 2000 + "]" * 2000,
    '{"a":' * 600 + "1" + "}" * 600,
    "[" * 50,
    '{"id":1,"id":2}',
    "{}",
    "[]",
    "null",
    "true",
    '""',
    "-1",
    "1.5",
    "tru",
    "01",
    "'a'",
    "[1,]",
    '"@last"',
    '"../../etc/passwd"',
)
_WORDS: Final = st.sampled_from(["a", "job1", "nope", "@last", "team=a", "", "é☃", "default", "gpu", "x" * 129, "5m"])
_NUMBERS: Final = st.sampled_from([0, 1, 2, 7, 64, 100, 1000, -1, 1001, 10**9, 2**63, 0.5, 3600])
_ODD_VALUES: Final = st.none() | st.booleans() | _WORDS | _NUMBERS | st.lists(_WORDS, max_size=3)
# Their commands are over at once; where one waits for its time, nobody waits for it.
_JOBS: Final = st.fixed_dictionaries(
    {"command": st.sampled_from(["true", "exit 3", "echo said", "kill -9 $$"]), "max_retries": st.just(0)},
    optional={
        "id": _WORDS,
        "delay": st.sampled_from([3600, "1h", "soon", -1, 1e300]),
        "queue": _WORDS,
        "priority": _NUMBERS,
        "tags": st.dictionaries(_WORDS, _WORDS, max_size=2),
        "env": st.dictionaries(_WORDS, _WORDS, max_size=2),
        "timeout": st.sampled_from([1, "1s", 0, -1]),
        "stdin": _WORDS | st.fixed_dictionaries({"staged": _WORDS}) | st.just({"b64": "!"}),
        "limits": st.dictionaries(st.sampled_from(["memory", "cpu", "files", "output", "x"]), _ODD_VALUES, max_size=2),
        "note": _WORDS,
        "cwd": st.sampled_from(["/", "relative", "/no/such", "/\0"]),
        "no_retry_on": st.lists(_NUMBERS | _WORDS, max_size=2),
    },
)
_SELECT: Final = st.fixed_dictionaries(
    {},
    optional={
        "ids": st.lists(_WORDS, min_size=1, max_size=3),
        "queue": st.lists(_WORDS, max_size=2),
        "state": st.lists(st.sampled_from(["pending", "dead", "completed", "cancelled", "lost"]), max_size=2),
        "tags": st.lists(st.sampled_from(["team=a", "a", "=", "a=b=c"]), max_size=2),
        "command": st.sampled_from(["*", "tr[u", "[", "e?it*"]),
        "since": _NUMBERS,
        "exit_code": _NUMBERS,
        "owner": _WORDS,
        "seen": st.booleans(),
    },
)
# Changes of jobs go by ids, or a history of thousands would be gone through each time.
_FEW: Final = st.fixed_dictionaries({"ids": st.lists(_WORDS, min_size=1, max_size=3)})
_BULK: Final = {"select": _FEW, "dry_run": st.booleans()}


def _form(op: str, needed: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"op": st.just(op), **(needed or {})}, optional=optional)


REQUESTS: Final = st.one_of(
    _form("ping"),
    _form("hello", client=_WORDS, token=_WORDS),
    _form("status"),
    _form(
        "enqueue",
        {"jobs": st.lists(_JOBS, max_size=3)},
        atomic=st.booleans(),
        dry_run=st.booleans(),
        request=_WORDS,
        staged=_WORDS,
        submission=st.fixed_dictionaries({}, optional={"cwd": st.just("/tmp"), "umask": _NUMBERS}),
    ),
    _form(
        "stage",
        {"key": _WORDS},
        jobs=st.lists(_JOBS, max_size=2),
        data=_WORDS,
        b64=st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode()) | _WORDS,
    ),
    _form("get", {"job": _WORDS}, with_env=st.booleans(), tail=_NUMBERS),
    _form("list", select=_SELECT, limit=_NUMBERS, after=_WORDS, reverse=st.booleans()),
    _form("count", select=_SELECT),
    _form(
        "logs",
        {"jobs": st.lists(_WORDS, min_size=1, max_size=2)},
        follow=st.booleans(),
        attempt=_NUMBERS | st.just("all"),
        offset=_NUMBERS,
        lines=_NUMBERS,
        marks=st.booleans(),
        lend=_WORDS,
    ),
    _form(
        "wait", {"select": _SELECT}, any=st.booleans(), fail_fast=st.booleans(), mark_seen=st.booleans(), lend=_WORDS
    ),
    _form("events", start=_NUMBERS, follow=st.booleans(), limit=st.sampled_from([1, 10, 0]), job=_WORDS),
    _form("stop", {"stream": _WORDS | _NUMBERS}),
    _form("signal", {"job": _WORDS, "number": _NUMBERS}),
    _form("cancel", _BULK, reason=_WORDS, kill_after=_NUMBERS, no_wait=st.booleans()),
    _form("retry", _BULK, delay=st.just(3600), limit=_NUMBERS, spread=_NUMBERS),
    _form("discard", _BULK),
    _form("undelete", _BULK),
    _form("worker_list"),
    _form("config_list", keys=st.lists(_WORDS | st.just("workers"), max_size=2)),
    _form("config_set", {"key": st.sampled_from(["jitter", "nope"]), "value": _ODD_VALUES}),
    _form("config_unset", {"key": st.sampled_from(["jitter", "nope"])}),
    _form("frobnicate"),
)


@st.composite
def _spoilt(draw: st.DrawFn) -> dict[str, Any]:
    """A request with a field too few, too many, or that has a value it should not have."""
    request = dict(draw(REQUESTS))
    name = draw(st.sampled_from(sorted(request)))
    match draw(st.integers(0, 3)):
        case 0:
            del request[name]
        case 1:
            request[draw(_WORDS)] = draw(_ODD_VALUES)
        case 2:
            # No other operation than the one meant, so that nothing is done that is not listed above.
            request["op" if name == "op" else name] = [request[name]] if name == "op" else draw(_ODD_VALUES)
        case _:
            request[name if name != "op" else "job"] = _HOLE
    return request


@st.composite
def _written(draw: st.DrawFn, number: int, requests: st.SearchStrategy[dict[str, Any]]) -> bytes:
    request = draw(requests)
    # First, last, not at all, or of a kind that is none.
    place = draw(st.sampled_from(["first", "first", "first", "last", "none", "odd"]))
    named: dict[str, Any] = {"id": number if draw(st.booleans()) else f"n{number}"}
    if place == "first":
        request = named | request
    elif place == "last":
        request = request | named
    elif place == "odd":
        request = {"id": _HOLE} | request
    odd = draw(st.sampled_from(_ODD))
    text = json.dumps(
        request, ensure_ascii=draw(st.booleans()), separators=draw(st.sampled_from([(",", ":"), (" , ", " : ")]))
    )
    for hole in (json.dumps(_HOLE), json.dumps(_HOLE, ensure_ascii=False)):
        text = text.replace(hole, odd)
    return text.encode(errors="surrogatepass")


@st.composite
def _broken(draw: st.DrawFn, number: int) -> bytes:
    """A line with bytes changed, put in, or cut out; it may become several lines."""
    line = draw(_written(number, REQUESTS))
    at = draw(st.integers(0, len(line)))
    match draw(st.integers(0, 3)):
        case 0:
            return line[:at]
        case 1:
            return (
                line[:at]
                + draw(st.sampled_from([b"\0", b"\xff", b"\n", b"\r", b'"', b"}", b"\xc3", b"\xed\xa0\x80"]))
                + line[at:]
            )
        case 2:
            return line[:at] + line[at + draw(st.integers(1, 9)) :]
        case _:
            return line + line


def lines(number: int) -> st.SearchStrategy[bytes]:
    """One line, without its end; `number` is its id if it has one."""
    return st.one_of(
        _written(number, REQUESTS),
        _written(number, REQUESTS),
        _written(number, _spoilt()),
        _written(number, _spoilt()),
        _broken(number),
        st.binary(max_size=40),
        st.sampled_from(_ODD).map(str.encode),
    )


class Owed(NamedTuple):
    """What the server owes for what it was sent."""

    # So many answers,
    answers: int
    # with these ids, each so often,
    ids: Counter[Any]
    # or with one that nobody can tell.
    unsure: int


def owed(sent: bytes) -> Owed:
    """Return what all complete lines together are answered with."""
    ids: Counter[Any] = Counter()
    answers = unsure = 0
    for line in sent.split(b"\n")[:-1]:
        if not line.strip():
            continue
        answers += 1
        found = _id(line)
        if found is None:
            unsure += 1
        else:
            ids[found] += 1
    return Owed(answers, ids, unsure)


def _id(line: bytes) -> tuple[str, Any] | None:
    """Return the id of a line that is JSON to the letter, with its kind; None if there is a doubt."""
    if len(line) > LINE_LIMIT or b"\\ud" in line.lower() or line.count(b"[") + line.count(b"{") > 200:
        return None
    try:
        pairs = json.loads(line.decode(), object_pairs_hook=list, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, list) or not all(isinstance(one, tuple) for one in pairs):
        return None
    found = [value for key, value in pairs if key == "id"]
    if len(found) != 1:
        return None
    return identity(found[0])


def identity(found: Any) -> tuple[str, Any] | None:
    """Return a valid id in a form in which 1, 1.0 and true are three; None if it is none."""
    if isinstance(found, bool):
        return None
    if isinstance(found, int) and -(2**53) <= found <= 2**53:
        return "integer", found
    if isinstance(found, str) and len(found) <= 128:
        return "text", found
    return None


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
