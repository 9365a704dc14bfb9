"""What a connection has put down for an enqueue that does not fit into one line. Bounded; gone with the connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from queuectld.domain.spec import INPUT_LIMIT
from queuectld.errors import BadRequestError, TooMuchHeldError
from queuectld.protocol.messages import Stage
from queuectld.protocol.replies import Staged

# Bytes of jobs of one connection, all keys together: some 300,000 small ones.
_STAGED_JOBS_LIMIT: Final = 64 * 1024 * 1024
# Every piece costs a little of its own, however short it is.
_PIECE: Final = 64


class Staging:
    """Pieces of jobs and of inputs, each under a key."""

    def __init__(self, fits: Callable[[int], bool] = lambda _: True) -> None:
        """`fits` tells whether there is room for so many bytes more, beside what other connections have staged."""
        self._fits = fits
        self._jobs: dict[str, list[msgspec.Raw]] = {}
        self._inputs: dict[str, bytearray] = {}
        self._job_bytes = 0
        self._input_bytes = 0
        self._in_use = 0

    def put(self, piece: Stage) -> Staged:
        """Add a piece. Raises `BadRequestError` where it would be too much, `TooMuchHeldError` where others have it."""
        if piece.data is not None and piece.b64 is not None:
            raise BadRequestError("`data` and `b64` exclude each other", path="$.b64")
        data = piece.b64 if piece.b64 is not None else (piece.data or "").encode()
        size = sum(len(memoryview(job)) + _PIECE for job in piece.jobs)
        if self._job_bytes + size > _STAGED_JOBS_LIMIT:
            raise BadRequestError(f"more than {_STAGED_JOBS_LIMIT >> 20} MiB of jobs are staged", path="$.jobs")
        if self._input_bytes + len(data) + _PIECE > INPUT_LIMIT + _PIECE * 1024:
            raise BadRequestError(f"more than {INPUT_LIMIT >> 20} MiB of input are staged", path="$.data")
        if not self._fits(size + len(data) + _PIECE):
            raise TooMuchHeldError(
                "connections have as much staged as all together may; enqueue what is staged, or close one of them, "
                "and try again",
                path="$.key",
            )
        if piece.jobs:
            # A copy of its own: a view would keep the whole line alive.
            self._jobs.setdefault(piece.key, []).extend(job.copy() for job in piece.jobs)
            self._job_bytes += size
        if piece.data is not None or piece.b64 is not None:
            self._inputs.setdefault(piece.key, bytearray()).extend(data)
            self._input_bytes += len(data) + _PIECE
        return self._lying_under(piece.key)

    def _lying_under(self, key: str) -> Staged:
        jobs = self._jobs.get(key, [])
        return Staged(jobs=len(jobs), bytes=sum(len(memoryview(job)) for job in jobs) + len(self._inputs.get(key, b"")))

    @property
    def held(self) -> int:
        """Bytes that all of it takes up, with what was taken and is in use."""
        return self._job_bytes + self._input_bytes + self._in_use

    def jobs(self, key: str) -> tuple[msgspec.Raw, ...]:
        """Return the jobs under a key. Raises `BadRequestError` if there are none."""
        try:
            return tuple(self._jobs[key])
        except KeyError:
            raise BadRequestError(f"no jobs are staged under {key!r}", path="$.staged") from None

    def inputs(self) -> dict[str, bytes]:
        """Return the inputs by key, as they are now."""
        return {key: bytes(data) for key, data in self._inputs.items()}

    def take(self) -> None:
        """Forget everything that lies there: an enqueue has taken it up, and uses it until `finished`."""
        self._in_use += self._job_bytes + self._input_bytes
        self.clear()

    @property
    def in_use(self) -> int:
        """Bytes that were taken up and are not finished."""
        return self._in_use

    def finished(self, size: int) -> None:
        """So many bytes of what was taken up are not used any more."""
        self._in_use -= size

    def clear(self) -> None:
        """Forget everything that lies there."""
        self._jobs.clear()
        self._inputs.clear()
        self._job_bytes = self._input_bytes = 0
