"""A client as somebody would write it from the description of the protocol: a socket, `json`, and nothing of ours."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class RefusedError(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.code: str = error["code"]
        self.message: str = error["message"]
        self.path: str | None = error.get("path")


class LetGoError(ConnectionError):
    """The daemon closed the connection."""


class Wire:
    """One connection. Replies are dictionaries."""

    def __init__(self, path: Path, *, timeout: float = 30.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._lines = self.socket.makefile("rb")
        self._ids = itertools.count(1)
        try:
            self.greeting = self.line()
        except OSError:
            self.close()
            raise

    def line(self) -> dict[str, Any]:
        """Return the next line; `LetGoError` at the end."""
        text = self._lines.readline()
        if not text.endswith(b"\n"):
            raise LetGoError("the daemon closed the connection")
        return json.loads(text)

    def raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send(self, op: str, **fields: Any) -> int:
        number = next(self._ids)
        self.raw(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
        return number

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask, and return what stands under `ok`. Events before it are dropped. Raises `RefusedError`."""
        number = self.send(op, **fields)
        while True:
            reply = self.line()
            if "event" not in reply:
                break
        assert reply["id"] == number
        if "error" in reply:
            raise RefusedError(reply["error"])
        return reply["ok"]

    def stream(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream."""
        self.send(op, **fields)
        while "event" in (reply := self.line()):
            yield reply["event"]
        if "error" in reply:
            raise RefusedError(reply["error"])

    # What tests ask most.

    def enqueue(self, command: str, **fields: Any) -> str:
        """Store one job; return its id."""
        return self.call("enqueue", jobs=[{"command": command, **fields}])["jobs"][0]["id"]

    def job(self, name: str) -> dict[str, Any]:
        return self.call("get", job=name)["job"]

    def state(self, name: str) -> str:
        return self.job(name)["state"]

    def history(self, name: str) -> list[dict[str, Any]]:
        return self.call("get", job=name)["history"]

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state; states without any are left out."""
        return {state: count for state, count in self.call("status")["states"].items() if count}

    def ids(self, *states: str) -> list[str]:
        select = {"state": states} if states else {}
        found, after = [], None
        while True:
            page = self.call("list", select=select, limit=1000, **({"after": after} if after else {}))
            found += [job["id"] for job in page["jobs"]]
            if (after := page["next"]) is None:
                return found

    def output(self, name: str, **fields: Any) -> bytes:
        """Return the output of a job as the protocol tells it."""
        return b"".join(_bytes(event) for event in self.stream("logs", jobs=[name], **fields))

    def hang_up(self) -> None:
        """End the connection under whoever reads from it, in another thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._lines.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _bytes(event: dict[str, Any]) -> bytes:
    if "b64" in event:
        return base64.b64decode(event["b64"])
    return event.get("data", "").encode()
