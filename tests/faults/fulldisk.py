"""A disk that is full time and again, under load: that of the state directory, and one of its own for output."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any, Final

from tests.disks import hindrance, small_disk
from tests.faults.judge import Judge
from tests.faults.kills import Killer
from tests.faults.load import Load
from tests.faults.suite import Suite, Tally, home
from tests.system.livedaemon import LiveDaemon
from tests.system.witness import Witness

CONFIG: Final[dict[str, Any]] = {"workers": 3, "max_lost": 1000, "shutdown_grace": 0.1, "vitals_interval": 0.2}
_STATE_SIZE: Final = "24m"
_OUTPUT_SIZE: Final = "1m"
_BLOCK: Final = 4096


def fill(ballast: Path) -> None:
    """Take all the space that is left."""
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (2**20, 2**14, _BLOCK):
            try:
                while True:
                    os.write(descriptor, b"\0" * size)
            except OSError:
                continue
    finally:
        os.close(descriptor)


def of_state(tally: Tally, rounds: int, seed: int) -> None:
    """Fill the disk of the state directory so often, each time for a while, and kill somebody meanwhile at times."""
    luck = random.Random(seed)
    with home() as place, small_disk(place / "state", _STATE_SIZE) as state, LiveDaemon(place, **CONFIG) as daemon:
        witness = Witness(place / "witness")
        daemon.start()
        load = Load(daemon, witness, luck)
        judge, killer = Judge(daemon, witness, load.ledger, tally), Killer(daemon, luck, tally)
        for number in range(1, rounds + 1):
            with load:
                time.sleep(luck.uniform(0.1, 0.5))
                fill(state / "ballast")
                tally.fault("state directory full")
                time.sleep(luck.uniform(0.1, 0.5))
                if luck.random() < 0.5:
                    killer.strike()
                time.sleep(luck.uniform(0.1, 1.0))
                (state / "ballast").unlink()
                time.sleep(0.5)
            judge.look(f"full for the {number}. time, seed {seed}", outputs=False)
        judge.end()


def of_output(tally: Tally, rounds: int, seed: int) -> None:
    """Fill the disk of the output, each time with jobs that write more than there is."""
    luck = random.Random(seed)
    with (
        home() as place,
        small_disk(place / "state" / "output", _OUTPUT_SIZE) as output,
        LiveDaemon(place, **CONFIG) as daemon,
    ):
        (place / "state").chmod(0o700)
        witness = Witness(place / "witness")
        daemon.start()
        load = Load(daemon, witness, luck)
        judge = Judge(daemon, witness, load.ledger, tally)
        for number in range(1, rounds + 1):
            with load, daemon.wire() as wire:
                big = witness.command("yes | head -c 3000000")
                names = [wire.enqueue(big, id=f"big-{number}-{n}", max_retries=0) for n in range(3)]
                load.ledger.sent |= dict.fromkeys(names, "good")
                for name in names:
                    daemon.wait_for_state(name, "completed", "dead", deadline=60)
                tally.fault("output directory full")
                _told(daemon, names, tally)
            judge.look(f"full for the {number}. time, seed {seed}", outputs=False)
            for file in output.rglob("*.*"):
                file.unlink()
        judge.end()


def _told(daemon: LiveDaemon, names: list[str], tally: Tally) -> None:
    """What was not kept of an output is counted, and what was can be read."""
    wrong = []
    for name in names:
        last = daemon.history(name)[-1]
        kept = last["output_bytes"] - last["output_missing"]
        if last["output_bytes"] != 3_000_000 or len(daemon.output(name)) != kept or not last["output_missing"]:
            wrong.append(f"{name}: {last}, read {len(daemon.output(name))}")
    tally.check("output that was not kept is told", lost=wrong)


def run(tally: Tally, rounds: int, seed: int) -> None:
    """Fill each of them so often."""
    of_state(tally, rounds, seed)
    of_output(tally, rounds, seed)


SUITE: Final = Suite(
    "full-disk",
    "the disks of state and output are full time and again under load, with kills meanwhile",
    run,
    rounds=50,
    unit="times each",
    hindrance=hindrance,
)
