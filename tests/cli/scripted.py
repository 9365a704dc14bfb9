"""A daemon that speaks the protocol from a script, and what it answers unless a test says otherwise."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

from queuectld.protocol.reading import decode_request
from queuectld.protocol.words import VERSION
from tests.system.waiting import wait_for

GREETING = {
    "queuectld": VERSION,
    "protocol": [1],
    "features": [],
    "limits": {"line": 1 << 20, "inflight": 64},
    "store": "9f1c",
    "authenticate": False,
}
NOW = "2026-12-01T09:00:00Z"
# Ends the connection, as a daemon that is killed does.
HANG_UP = object()


def job(name: str = "job1", **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "command": "echo hello",
        "argv": None,
        "state": "pending",
        "reason": None,
        "attempts": 0,
        "max_retries": 3,
        "retries_left": 3,
        "queue": "default",
        "priority": 0,
        "owner": "ann",
        "tags": {},
        "created_at": NOW,
        "updated_at": NOW,
        "run_at": NOW,
        "started_at": None,
        "ended_at": None,
        "duration": None,
        "exit_code": None,
        "signal": None,
        "error": None,
        "waiting": "queued",
        "hidden": False,
        **fields,
    }


def finished(name: str = "job1", **fields: Any) -> dict[str, Any]:
    return {
        "id": name,
        "state": "completed",
        "reason": "exited",
        "exit_code": 0,
        "signal": None,
        "attempts": 1,
        "error": None,
        "ran": True,
        **fields,
    }


def output(data: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"job": "job1", "attempt": 1, "stream": "stdout", "offset": 0, "at": NOW, "data": data, **fields}


def enqueued(request: dict[str, Any]) -> dict[str, Any]:
    jobs = [
        {"id": spec.get("id", f"gen{place}"), "state": "pending", "created": True, "run_at": NOW}
        for place, spec in enumerate(request["jobs"])
    ]
    return {"ok": {"jobs": jobs, "refused": [], "warnings": []}}


def changed(request: dict[str, Any]) -> dict[str, Any]:
    ids = request["select"].get("ids") or ["job1", "job2"]
    return {"ok": {"jobs": ids, "count": len(ids), "refused": [], "pending": []}}


POOL = {
    "limit": 3,
    "workers": [
        {
            "name": "w1",
            "pid": 10,
            "phase": "running",
            "job": "job1",
            "attempt": 1,
            "since": NOW,
            "started_at": NOW,
            "jobs_done": 4,
            "memory": 12_000_000,
            "descriptors": 9,
            "cpu_seconds": 0.1,
        }
    ],
}
SETTING = {
    "key": "max_retries",
    "value": 3,
    "origin": "default",
    "source": None,
    "default": 3,
    "unit": None,
    "meaning": "Retries after the first run.",
    "live": True,
}
STATUS = {
    "version": VERSION,
    "pid": 4_194_305,
    "user": "ann",
    "phase": "running",
    "started_at": NOW,
    "uptime": 61.0,
    "socket": "/s",
    "state_dir": "/d",
    "store": "9f1c",
    "config_file": None,
    "workers": 1,
    "limit": 3,
    "states": {"pending": 2},
    "queues": [{"name": "default", "states": {"pending": 2}}],
    "next_due": None,
    "oldest_waiting": 2.0,
    "problems": [],
    "isolation": {"cgroup": "/sys/fs/cgroup/queuectl.9f1c", "controllers": ["memory"], "reason": None},
    "loop": {"lag": 0.0, "max_lag": 0.001, "stalls": 0},
    "connections": 1,
}
DETAIL = {
    "job": job(state="dead", attempts=1, exit_code=1, reason="exited", waiting=None, ended_at=NOW),
    "spec": {"command": "echo hello", "timeout": 5.0},
    "history": [
        {
            "number": 1,
            "token": 7,
            "worker": "w1",
            "pid": 11,
            "queued_at": NOW,
            "started_at": NOW,
            "ended_at": NOW,
            "duration": 0.5,
            "exit_code": 1,
            "signal": None,
            "reason": "exited",
            "cpu_seconds": 0.1,
            "peak_memory": 1024,
            "output_bytes": 6,
            "output_missing": 0,
            "leftovers": [],
            "message": None,
            "output_file": "/d/output/0/1.1.log",
        }
    ],
    "env": {"PATH": None},
    "output_tail": "hello\n\x1b[31mred\n",
}
EVENT = {"number": 5, "at": NOW, "event": "job.started", "job": "job1", "was": "pending", "state": "processing"}

ANSWERS: dict[str, Any] = {
    "hello": {"ok": {"user": "ann"}},
    "ping": {"ok": {"version": VERSION, "pid": 4_194_305, "time": NOW}},
    "enqueue": enqueued,
    "stage": {"ok": {"jobs": 0, "bytes": 0}},
    "get": {"ok": DETAIL},
    "list": {"ok": {"jobs": [job("job1"), job("job2")], "next": None}},
    "count": {"ok": {"total": 2, "states": {"pending": 2}}},
    "logs": [{"event": output("hello\n")}, {"ok": {"jobs": [finished()], "stopped": False}}],
    "wait": [{"event": finished()}, {"ok": {"jobs": [finished()], "stopped": False}}],
    "signal": {"ok": {}},
    "cancel": changed,
    "retry": changed,
    "discard": changed,
    "undelete": changed,
    "worker_list": {"ok": POOL},
    "worker_start": {"ok": POOL},
    "worker_stop": {"ok": {**POOL, "limit": 0}},
    "status": {"ok": STATUS},
    "reload": {
        "ok": {"config_file": "/etc/f.toml", "changed": [SETTING], "needs_restart": ["socket"], "hidden": ["timeout"]}
    },
    "events": [
        {"event": {**EVENT, "attempt": 1, "worker": "w1"}},
        {"ok": {"next": 6, "stopped": False}},
    ],
    "config_list": {"ok": {"settings": [SETTING]}},
    "config_set": {"ok": {"settings": [{**SETTING, "origin": "override", "value": 5}]}},
    "config_unset": {"ok": {"settings": [SETTING]}},
    "shutdown": [{"ok": {}}, HANG_UP],
}


class FakeDaemon:
    """Speaks the protocol on a Unix socket from a script; checks each request by the daemon's own classes."""

    def __init__(self, path: str) -> None:
        self.path = path
        # Bytes that are sent yet, on whatever connection, before the line is cut off and the connection with it; then
        # it `comes_back` and sends all that there is, or no more than that.
        self.budget: int | None = None
        self.comes_back = True
        self.sent = 0
        # What had been sent after each line.
        self.ends: list[int] = []
        self.greeting: dict[str, Any] = dict(GREETING)
        self.answers = {**ANSWERS, "reexec": self._reexec}
        self.requests: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self._open: set[socket.socket] = set()
        self.start()

    def start(self) -> None:
        """Listen, for the first time or anew."""
        Path(self.path).unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(8)
        self._stopping = False
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def go(self, *, clean: bool) -> None:
        """Go away: `clean`, and take the socket along, or as one that is killed."""
        if clean:
            Path(self.path).unlink()
        self.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def of(self, op: str) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["op"] == op]

    def settle(self) -> None:
        """Wait until all that was said to those who have left is dealt with."""
        wait_for(lambda: not self._open)

    def close(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _reexec(self, _request: dict[str, Any]) -> list[Any]:
        self.answers["status"] = {"ok": {**STATUS, "started_at": "2026-12-01T09:00:01Z"}}
        return [{"ok": {}}, HANG_UP]

    def _accept(self) -> None:
        while not self._stopping:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            self._send(connection, self.greeting)
            for line in lines:
                if not self._answer(connection, line):
                    break
        self._open.discard(connection)

    def _send(self, connection: socket.socket, message: dict[str, Any]) -> None:
        """Send a line, or what of it may be sent. Raises `ConnectionError` then."""
        line = json.dumps(message).encode() + b"\n"
        self.sent += len(line)
        self.ends.append(self.sent)
        if self.budget is None:
            connection.sendall(line)
            return
        left, self.budget = self.budget, self.budget - len(line)
        if left >= len(line):
            connection.sendall(line)
            return
        # Once only: the next one is whole again.
        self.budget = None if self.comes_back else 0
        connection.sendall(line[: max(0, left)])
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionError

    def _answer(self, connection: socket.socket, line: bytes) -> bool:
        request = json.loads(line)
        try:
            decode_request(line)
        except Exception as error:  # noqa: BLE001  (whatever it is, the test is told)
            self.faults.append(f"{error}: {line[:300]!r}")
        self.requests.append(request)
        answer = self.answers[request["op"]]
        answer = answer(request) if callable(answer) else answer
        for message in answer if isinstance(answer, list) else [answer]:
            if message is HANG_UP:
                connection.shutdown(socket.SHUT_RDWR)
                return False
            self._send(connection, {"id": request["id"], **message})
        return True


class Called:
    """How a command line ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)
