"""`queuectld sweep`: ends the jobs of a daemon that is gone, when its service is stopped for good.

A daemon that is told to stop ends its jobs itself. One that was killed does not come to that; and systemd, which leaves
jobs alone so that the next daemon can take them over, would not end them, either.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import click
import structlog
from msgspec.structs import replace

from queuectld import config
from queuectld.domain.attempt import Attempt, Reason
from queuectld.domain.policy import Policy
from queuectld.errors import BadConfigError, QueueCTLError, StoreLockedError
from queuectld.host.state_dir import StateDir, open_state_dir
from queuectld.host.unit import PATIENCE, job_of, our_unit
from queuectld.log import set_up
from queuectld.service.attempts import Circumstances, finish, vanished
from queuectld.store.base import Store
from queuectld.store.damage import inspect
from queuectld.store.database import Database
from queuectld.store.sqlite import open_store
from queuectld.supervisor.recovery import filed_outcomes
from queuectld.upkeep.commands import Site, told
from queuectld.upkeep.ending import end_all

log = structlog.get_logger()

_WHY: Final = "the service was stopped while no daemon ran"


@click.command()
@click.option("--now", is_flag=True, help="Do so whatever systemd says.")
@click.pass_obj
@told
def sweep(site: Site, *, now: bool) -> None:
    """End all jobs that run without a daemon; they are pending again. For a unit that systemd stops with the service.

    Nothing happens while a daemon runs, nor, without --now, unless systemd stops this unit, and does not restart it.
    """
    set_up(level="info", form="auto", environ=os.environ)
    if not (now or _is_stopped()) or not site.state.is_dir():
        return
    try:
        state = open_state_dir(site.state)
    except StoreLockedError:
        # Somebody has begun anew, and takes over what there is.
        return
    try:
        _sweep(state, site)
    finally:
        state.close()


def _is_stopped() -> bool:
    """Whether systemd stops the unit that this is a command of; at a restart of the service it restarts this one."""
    unit = our_unit(os.environ, os.getpid(), Path("/proc/self/cgroup").read_text(encoding="utf-8"))
    if unit is None:
        return False
    try:
        asked = subprocess.run(unit.asking_for_jobs(), capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603  (fixed words)
    except (OSError, subprocess.SubprocessError):
        return False
    return job_of(asked.stdout, unit) == "stop"


def _sweep(state: StateDir, site: Site) -> None:
    workers, processes = end_all(state.path, _stores(state.database))
    given_back = _give_back(state, _policy(site))
    if workers or processes or given_back:
        log.warning(
            "Jobs were ended that ran without a daemon",
            event_name="daemon.swept",
            workers=workers,
            count=processes,
            entries=given_back,
        )


def _stores(path: Path) -> list[str]:
    """Return the identity of the store, if it can be read: processes without their worker are known by it."""
    try:
        if not inspect(path):
            return []
        with closing(Database(path, readonly=True)) as database:
            return [uuid for (uuid,) in database.run("SELECT uuid FROM store")]
    except QueueCTLError:
        return []


def _policy(site: Site) -> Policy:
    try:
        return config.policy(site.read().config)
    except BadConfigError:
        # That may be why there is no daemon.
        return Policy()


def _give_back(state: StateDir, policy: Policy) -> int:
    """Record that what ran was interrupted, unless its worker has left word how it ended; return how many it was."""
    if not state.database.exists():
        return 0
    try:
        store = open_store(state.database)
    except QueueCTLError as error:
        # The next daemon finds out that they are gone.
        log.error("The database cannot be used", event_name="store.failed", error=error.message)  # noqa: TRY400  (it tells all)
        return 0
    try:
        ended = {filed.token for filed in filed_outcomes(state.outcomes, store.uuid)}
        interrupted = [attempt for attempt in store.live_attempts() if attempt.token not in ended]
        _record(store, interrupted, policy)
    finally:
        store.close()
    return len(interrupted)


def _record(store: Store, interrupted: Sequence[Attempt], policy: Policy) -> None:
    now = time.time()
    with store.transaction():
        for attempt in interrupted:
            # Of one whose process nobody has noted it cannot be said that it had not begun.
            reason = Reason.LOST if attempt.pid is None else Reason.INTERRUPTED
            outcome = replace(vanished(reason, now, _WHY), pid=attempt.pid, pid_start=attempt.pid_start)
            given = Circumstances(policy, now, 0.0, attempt.boot_id)
            finish(store, attempt.token, outcome, given, reboot=True)
