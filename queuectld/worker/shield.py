"""That the kernel spares daemon and workers when memory runs out: what they start is not to be spared with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Shield:
    """What a service manager has subtracted from the badness of this process, which its children would inherit."""

    def __init__(self, file: str = "/proc/self/oom_score_adj") -> None:
        self._file = file
        self._score = self._read()

    @contextlib.contextmanager
    def lowered(self) -> Iterator[None]:
        """Have what is started meanwhile begin without; where we may not change it, nothing happens.

        The child must not do it: another user may not, and in one that is started fast no code of ours runs.
        """
        if self._score >= 0 or not self._write(0):
            yield
            return
        try:
            yield
        finally:
            if not self._write(self._score):
                # Nobody spares us any more, then.
                self._score = 0

    def _read(self) -> int:
        try:
            with open(self._file, "rb", buffering=0) as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0

    def _write(self, score: int) -> bool:
        try:
            with open(self._file, "wb", buffering=0) as file:
                file.write(b"%d" % score)
        except OSError:
            return False
        return True
