"""Handing jobs over so that a lost connection doubles nothing: a key on each request, pieces that fit into a line."""

from __future__ import annotations

import json
import os
import time
from binascii import b2a_base64, hexlify
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from queuectl_cli.client import Client, Message
from queuectl_cli.errors import LostError, RefusedError, UsageError
from queuectl_cli.forms import Job, Line
from queuectl_cli.options import App
from queuectl_cli.reconnect import come_back

# Jobs of one request: a transaction that others wait for no longer than some 50 ms.
BATCH: Final = 2_000
# Requests on their way at once, so that the daemon is never idle between two.
WINDOW: Final = 4
# Bytes of an input in one piece; in base64 they fit into a line.
_PIECE: Final = 600_000
# Larger inputs do not go inside the job.
_INLINE: Final = 100_000
_UNKNOWN: Final = ("What was not acknowledged may have been stored all the same:  queuectl list",)
# Errors that are about the one job of a request, not about the daemon.
_OF_JOB: Final = frozenset(
    {
        "bad_json",
        "bad_request",
        "duplicate_id",
        "unsupported",
        "no_such_queue",
        "no_such_job",
        "wrong_state",
        "ambiguous_id",
    }
)


class Result(NamedTuple):
    """What became of one job: ``added`` as the daemon told it, or ``error``."""

    number: int
    added: Message | None
    error: Message | None


def key() -> str:
    """Return a name that nobody else uses."""
    return hexlify(os.urandom(12)).decode()


def as_given(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return our environment as we were given it: where the locale is C, Python sets its own LC_CTYPE (PEP 538)."""
    if environ.get("LC_CTYPE") != "C.UTF-8":
        return environ
    try:
        with open("/proc/self/environ", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123  (pathlib costs 3 ms)
            given = dict(entry.split("=", 1) for entry in file.read().split("\0") if entry.startswith("LC_CTYPE="))
    except OSError:
        return environ
    return {name: value for name, value in environ.items() if name != "LC_CTYPE"} | given


def submission(environ: Mapping[str, str], *, local: bool, clean: bool = False) -> dict[str, Any]:
    """Return where the jobs come from: environment, directory, umask. Empty where the daemon is on another host."""
    if not local:
        return {}
    umask = os.umask(0o077)
    os.umask(umask)
    found: dict[str, Any] = {"umask": umask}
    try:
        found["cwd"] = os.getcwd()  # noqa: PTH109  (pathlib costs 3 ms)
    except FileNotFoundError:
        raise UsageError("the current directory is gone; name another with --cwd") from None
    if not clean:
        found["env"] = {name: value for name, value in environ.items() if is_text(name) and is_text(value)}
    return found


def is_text(text: str) -> bool:
    """Whether it can travel in JSON, which bytes that are not UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def pack(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


class Sender:
    """Sends enqueue requests and, after a lost connection, sends them again under the same keys."""

    def __init__(self, app: App, client: Client, source: Mapping[str, Any], *, dry_run: bool = False) -> None:
        self._app = app
        self.client = client
        # Waits while the daemon is away.
        self.pause: Callable[[float], None] = time.sleep
        # What the daemon said of the first jobs of many: the others would only hear of those before them.
        self.warnings: list[str] | None = None
        self._fixed = b'"submission":' + pack(source) + (b',"dry_run":true' if dry_run else b"")

    @property
    def room(self) -> int:
        """Bytes of jobs that fit into one request."""
        return self.client.line_limit - len(self._fixed) - 512

    def body(self, jobs: Sequence[bytes], **fields: Any) -> bytes:
        """Return the fields of an enqueue request, with a key that makes resending it harmless."""
        rest = pack({"request": key(), **fields})[1:-1]
        return b'"jobs":[%s],%s,%s' % (b",".join(jobs), self._fixed, rest)

    def again(self, lost: LostError) -> None:
        """Connect once more. Raises `CliError` if nobody comes back."""
        self.client = come_back(self._app, self.client, lost, pause=self.pause, advice=_UNKNOWN, start=True)

    def submit(self, jobs: Sequence[Job], inputs: Mapping[str, bytes], **fields: Any) -> Message:
        """Store a few jobs in one request. Raises `RefusedError`."""
        body = self.body([pack(job) for job in jobs], **fields)
        for _ in range(3):
            try:
                for name, data in inputs.items():
                    self._stage_input(name, data)
                return self.client.answer(self.client.send_raw("enqueue", body), None)
            except LostError as error:
                lost = error
                self.again(error)
        raise lost

    def _stage_input(self, name: str, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            piece = b2a_base64(data[start : start + _PIECE], newline=False).decode()
            self.client.request("stage", key=name, b64=piece)

    def submit_all(self, batches: Iterable[Sequence[tuple[int, bytes]] | None]) -> Iterator[Result]:
        """Store jobs in many requests, several on their way at once; None in between lets all of them arrive."""
        waiting: deque[tuple[int, bytes, Sequence[tuple[int, bytes]]]] = deque()
        for batch in batches:
            if batch:
                body = self.body([job for _, job in batch])
                waiting.append((self._send(body, waiting), body, batch))
            while waiting and (batch is None or len(waiting) >= WINDOW):
                yield from self._first(waiting)
        while waiting:
            yield from self._first(waiting)

    def _send(self, body: bytes, waiting: deque[tuple[int, bytes, Sequence[tuple[int, bytes]]]]) -> int:
        try:
            return self.client.send_raw("enqueue", body)
        except LostError as error:
            self._resend(waiting, error)
            return self.client.send_raw("enqueue", body)

    def _resend(self, waiting: deque[tuple[int, bytes, Sequence[tuple[int, bytes]]]], lost: LostError) -> None:
        self.again(lost)
        for place, (_, body, batch) in enumerate(waiting):
            waiting[place] = (self.client.send_raw("enqueue", body), body, batch)

    def _first(self, waiting: deque[tuple[int, bytes, Sequence[tuple[int, bytes]]]]) -> Iterator[Result]:
        batch, answer = self._answer(waiting)
        found = results([number for number, _ in batch], answer)
        yield from (result for result in found if result.error is None or result.error["code"] in _OF_JOB)
        for result in found:
            # Something is wrong with the daemon since it stored those before.
            if result.error is not None and result.error["code"] not in _OF_JOB:
                raise RefusedError(result.error)

    def _answer(
        self, waiting: deque[tuple[int, bytes, Sequence[tuple[int, bytes]]]]
    ) -> tuple[Sequence[tuple[int, bytes]], Message]:
        for attempt in range(4):
            number, _, batch = waiting[0]
            try:
                answer = self.client.answer(number, None)
            except LostError as error:
                if attempt == 3:
                    raise
                self._resend(waiting, error)
                continue
            except RefusedError as error:
                if len(batch) > 1 or error.code not in _OF_JOB:
                    raise
                answer = {"jobs": [], "refused": [{"index": 0, "code": error.code, "message": error.message}]}
            waiting.popleft()
            self._note(answer)
            return batch, answer
        raise AssertionError

    def submit_atomic(self, batches: Sequence[Sequence[tuple[int, bytes]]]) -> list[Result]:
        """Store all jobs or none, however many requests they take. Raises `RefusedError`."""
        numbers = [number for batch in batches for number, _ in batch]
        body = key()
        for _ in range(3):
            try:
                answer = self._commit(batches, body)
                self._note(answer)
                return results(numbers, answer)
            except LostError as error:
                lost = error
                self.again(error)
            except RefusedError as error:
                return [_blame(error, numbers)]
        raise lost

    def _note(self, answer: Message) -> None:
        if self.warnings is None:
            self.warnings = list(answer.get("warnings", ()))

    def _commit(self, batches: Sequence[Sequence[tuple[int, bytes]]], name: str) -> Message:
        if len(batches) == 1:
            body = self.body([job for _, job in batches[0]], atomic=True, request=name)
            return self.client.answer(self.client.send_raw("enqueue", body), None)
        for batch in batches:
            jobs = b",".join(job for _, job in batch)
            self.client.answer(self.client.send_raw("stage", b'"key":"%s","jobs":[%s]' % (name.encode(), jobs)))
        body = self.body([], atomic=True, staged=name, request=name)
        return self.client.answer(self.client.send_raw("enqueue", body), None)


def _blame(error: RefusedError, numbers: Sequence[int]) -> Result:
    before, sign, rest = (error.path or "").partition("jobs[")
    place = rest.partition("]")[0]
    if sign and before in {"$.", ""} and place.isdecimal() and int(place) < len(numbers):
        number = numbers[int(place)]
    elif len(numbers) == 1 and error.code in _OF_JOB:
        number = numbers[0]
    else:
        raise error
    return Result(number, None, {"code": error.code, "message": error.message, "path": error.path})


def results(numbers: Sequence[int], answer: Message) -> list[Result]:
    """Join an answer with the numbers of the jobs that were sent, in their order."""
    refused = {body["index"]: body for body in answer.get("refused", ())}
    added = iter(answer.get("jobs", ()))
    found = []
    for place, number in enumerate(numbers):
        if place in refused:
            found.append(Result(number, None, refused[place]))
        elif (job := next(added, None)) is not None:
            found.append(Result(number, job, None))
    return found


def batches(
    lines: Iterable[Line | None], room: int, flags: Mapping[str, Any], bad: list[Result]
) -> Iterator[list[tuple[int, bytes]] | None]:
    """Cut jobs into requests that fit; what is no job goes to `bad`. None is passed on: the source pauses."""
    batch: list[tuple[int, bytes]] = []
    size = 0
    for line in lines:
        if line is None:
            if batch:
                yield batch
            yield None
            batch, size = [], 0
            continue
        if line.job is None:
            bad.append(Result(line.number, None, {"code": "bad_request", "message": line.error}))
            continue
        job = pack(merged(line.job, flags))
        if len(job) > room:
            message = f"the job has {len(job):,} bytes; {room:,} are the most, but for --script and --stdin"
            bad.append(Result(line.number, None, {"code": "line_too_long", "message": message}))
            continue
        if batch and (size + len(job) + 1 > room or len(batch) == BATCH):
            yield batch
            batch, size = [], 0
        batch.append((line.number, job))
        size += len(job) + 1
    if batch:
        yield batch


def merged(job: Job, flags: Mapping[str, Any]) -> Job:
    """Return a job with what the flags say about it; they win, variables and tags are joined."""
    if not flags:
        return job
    result = {**job, **flags}
    for name in ("env", "tags", "limits"):
        if name in flags and isinstance(job.get(name), dict):
            result[name] = {**job[name], **flags[name]}
    for name, other in (("delay", "run_at"), ("run_at", "delay")):
        if name in flags:
            result.pop(other, None)
    return result


def inline(job: Job, field: str, data: bytes, inputs: dict[str, bytes]) -> None:
    """Put an input into a job, or where it is too large for that, under a key beside it."""
    if len(data) > _INLINE:
        name = f"input-{key()}"
        inputs[name] = data
        job[field] = {"staged": name}
        return
    try:
        job[field] = data.decode()
    except UnicodeDecodeError:
        job[field] = {"b64": b2a_base64(data, newline=False).decode()}
