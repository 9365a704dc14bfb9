"""A supervisor that is root has each job run as its owner, and none as anybody else."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from queuectld.domain.attempt import Reason
from queuectld.domain.job import State
from queuectld.service import account
from queuectld.supervisor import accounts
from tests.process.supervisor_rig import Rig, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run jobs as others")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody may write to; the state in it is root's alone."""
    directory = Path(tempfile.mkdtemp(prefix="queuectl-users-", dir="/tmp"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def play(home: Path) -> Callable[[Callable[[Rig], Awaitable[None]]], None]:
    """Run a scenario against a supervisor."""

    def play(scenario: Callable[[Rig], Awaitable[None]]) -> None:
        async def run() -> None:
            async with Rig(home) as rig:
                await scenario(rig)

        asyncio.run(asyncio.wait_for(run(), 60))

    return play


async def ended(rig: Rig, name: str):
    """Wait for the end of a job; return its last attempt's outcome."""
    job = await rig.reach(name, State.COMPLETED, State.DEAD)
    [*_, last] = await rig.ledger.write(lambda store: store.attempts_of(job.seq))
    return last.outcome


def test_each_job_runs_as_its_owner(play, home) -> None:
    async def scenario(rig: Rig) -> None:
        for owner in ("nobody", "root", "4242", "daemon", "nobody"):
            rig.owner = owner
            await rig.add(name := f"{owner}-{os.urandom(2).hex()}", command="id -u >$QUEUECTL_JOB_ID")
            assert (await ended(rig, name)).exit_code == 0
            uid = (home / name).stat().st_uid
            assert uid == int((home / name).read_text()) == {"nobody": 65534, "root": 0, "daemon": 1}.get(owner, 4242)

    play(scenario)


def test_its_environment_is_the_accounts_own_unless_it_brought_one_along(play, home) -> None:
    async def scenario(rig: Rig) -> None:
        rig.owner = "daemon"
        await rig.add("a", command="env >env; pwd >pwd")
        assert (await ended(rig, "a")).exit_code == 0
        told = dict(line.split("=", 1) for line in (home / "env").read_text().splitlines())
        assert (told["USER"], told["LOGNAME"], told["HOME"]) == ("daemon", "daemon", "/usr/sbin")
        assert not any(name.startswith(("PYTEST", "VIRTUAL_ENV")) for name in told)

    play(scenario)


def test_what_a_job_writes_and_reads_is_kept_where_no_user_looks(play, home) -> None:
    async def scenario(rig: Rig) -> None:
        rig.owner = "nobody"
        more = "(chmod u+w /dev/stdin || echo more >/dev/stdin) 2>/dev/null && echo larger"
        await rig.add("a", command=f"cat; cat /dev/stdin; {more}; ls state 2>&1 || echo closed", stdin=b"given\n")
        assert (await ended(rig, "a")).exit_code == 0
        [log] = (home / "state" / "output").rglob("*.log")
        said = log.read_text().split()
        assert said[:2] == ["given", "given"]
        assert said[-1] == "closed"
        assert "larger" not in said
        assert (log.stat().st_uid, stat.S_IMODE(log.stat().st_mode)) == (0, 0o600)
        assert stat.S_IMODE((home / "state").stat().st_mode) == 0o700
        await until(lambda: _empty(home / "state" / "input"), "its input is removed")

    play(scenario)


async def _empty(directory: Path) -> bool:
    return not list(directory.iterdir())  # noqa: ASYNC240  (a handful of files)


def test_a_job_whose_owner_is_no_user_any_more_is_not_started_and_has_failed(play, home) -> None:
    async def scenario(rig: Rig) -> None:
        rig.owner = "queuectl-gone"
        await rig.add("a", command="touch a", max_retries=1, backoff_base=0.01)
        job = await rig.reach("a", State.DEAD)
        attempts = await rig.ledger.write(lambda store: store.attempts_of(job.seq))
        assert len(attempts) == 2
        for outcome in (attempt.outcome for attempt in attempts):
            assert (outcome.reason, outcome.exit_code) == (Reason.NOT_STARTED, 127)
            assert outcome.message == "there is no user queuectl-gone on this host (any more), so it cannot run"
        assert not (home / "a").exists()
        # Its worker takes the next.
        rig.owner = "nobody"
        await rig.add("b")
        assert (await ended(rig, "b")).exit_code == 0

    play(scenario)


def test_a_job_whose_owner_nobody_tells_of_goes_back_and_spends_no_retry(play, home, monkeypatch) -> None:
    asked = []

    def look_up(owner: str, environ: dict[str, str]) -> account.Account:
        asked.append(owner)
        if len(asked) == 1:
            raise account.NoAnswerError("nobody tells")
        return account.account_of(owner, environ)

    monkeypatch.setattr(accounts, "account_of", look_up)

    async def scenario(rig: Rig) -> None:
        rig.owner = "nobody"
        await rig.add("a", max_retries=0)
        job = await rig.reach("a", State.COMPLETED)
        first, second = await rig.ledger.write(lambda store: store.attempts_of(job.seq))
        assert (first.outcome.reason, first.outcome.message) == (Reason.HOST_ERROR, "nobody tells")
        assert second.outcome.exit_code == 0
        assert asked == ["nobody", "nobody"]

    play(scenario)


def test_a_job_that_is_cancelled_while_its_owner_is_looked_up_never_begins(play, home, monkeypatch) -> None:
    asked, answers = asyncio.Event(), asyncio.Event()

    class Slow(accounts.UserDatabase):
        async def find(self, owner: str) -> account.Account:
            asked.set()
            await answers.wait()
            return await super().find(owner)

    monkeypatch.setattr(accounts, "UserDatabase", Slow)

    async def scenario(rig: Rig) -> None:
        rig.owner = "nobody"
        await rig.add("a", command="touch a")
        await asyncio.wait_for(asked.wait(), 20)
        job = await rig.job("a")
        rig.supervisor.cancel(job.token, kill_after=None)
        answers.set()
        await until(lambda: _attempted(rig, "a"), "its attempt is over")
        assert not (home / "a").exists()

    play(scenario)


async def _attempted(rig: Rig, name: str) -> bool:
    job = await rig.job(name)
    attempts = await rig.ledger.write(lambda store: store.attempts_of(job.seq))
    return attempts[0].outcome is not None and attempts[0].outcome.reason is Reason.CANCELLED
