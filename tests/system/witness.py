"""Jobs that testify: every run appends a line when it starts and one when it ends, to a file that nothing else writes.

An append of a short line is one atomic write, so the order of lines is the order of what happened.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    job: str
    attempt: int
    what: str
    pid: int
    token: int


class Witness:
    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, body: str = ":") -> str:
        """Return a shell command that testifies around `body`, and ends with its exit code."""
        say = f"echo $QUEUECTL_JOB_ID $QUEUECTL_ATTEMPT %s $$ ${{QUEUECTL_ATTEMPT_TOKEN##*/}} >>{self.path}"
        return f"{say % 'start'}; {body}; code=$?; {say % 'end'}; exit $code"

    def lines(self) -> list[Line]:
        text = self.path.read_text() if self.path.exists() else ""
        # The last line may be on its way.
        words = [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [Line(job, int(attempt), what, int(pid), int(token)) for job, attempt, what, pid, token in words]

    def of(self, job: str) -> list[Line]:
        return [line for line in self.lines() if line.job == job]

    def started(self, job: str, attempt: int = 1) -> Line | None:
        return next((line for line in self.of(job) if line.attempt == attempt and line.what == "start"), None)

    def runs(self) -> dict[str, list[str]]:
        """Return for each job what happened, in order, as `1 start`, `1 end`, `2 start`, …."""
        told: dict[str, list[str]] = defaultdict(list)
        for line in self.lines():
            told[line.job].append(f"{line.attempt} {line.what}")
        return told

    def overlaps(self) -> list[str]:
        """Return the jobs of which something happened in an attempt after a later one had started."""
        newest: dict[str, int] = {}
        wrong: list[str] = []
        for line in self.lines():
            if line.attempt < newest.get(line.job, 0):
                wrong.append(line.job)
            newest[line.job] = max(line.attempt, newest.get(line.job, 0))
        return wrong

    def repeated(self) -> list[str]:
        """Return the attempts that started more than once: two processes that bear the same number, or token."""
        attempts: set[tuple[str, int]] = set()
        tokens: set[int] = set()
        twice: list[str] = []
        for line in self.lines():
            if line.what == "start":
                if (line.job, line.attempt) in attempts or line.token in tokens:
                    twice.append(f"{line.job} attempt {line.attempt} token {line.token}")
                attempts.add((line.job, line.attempt))
                tokens.add(line.token)
        return twice
