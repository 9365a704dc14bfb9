"""Power cuts under load: the disk loses what was not fsynced, all processes are gone, and the machine comes back."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.faults import powercut
from tests.faults.judge import Judge
from tests.faults.load import Load
from tests.faults.powercut import disk
from tests.faults.suite import Suite, Tally, broken, home
from tests.system import processes
from tests.system.livedaemon import LiveDaemon
from tests.system.witness import Witness

CONFIG: Final[dict[str, Any]] = {"workers": 4, "max_lost": 1000, "shutdown_grace": 0.1}


class Machine:
    """A daemon whose state is on a disk of its own, and that believes in a new boot after each power cut."""

    def __init__(self, daemon: LiveDaemon, disk: powercut.Disk) -> None:
        self._daemon, self._disk = daemon, disk
        self._boot_id = daemon.home / "boot_id"
        self.boot()

    def boot(self) -> None:
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        self.start()

    def start(self) -> None:
        """Start the daemon in a mount namespace of its own, where the kernel has the number of this boot."""
        script = f'mount --bind {self._boot_id} /proc/sys/kernel/random/boot_id && exec "$@"'
        self._daemon.start("unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh")

    def restart(self, pause: float) -> None:
        self._daemon.kill()
        # Whoever ends now has to write it down.
        time.sleep(pause)
        self.start()

    def lose_power(self) -> None:
        """Cut it, end every process, and mount the disk again."""
        self._disk.cut()
        processes.end(self._daemon.home)
        assert self._daemon.process is not None
        self._daemon.process.wait()
        self._disk.again()


def run(tally: Tally, rounds: int, seed: int, mutant: str | None = None, *, absent: bool = False) -> None:
    """Cut the power so often; if the daemon is to be `absent`, it is dead each time, and else sometimes."""
    with home() as place, disk(place / "state") as storage, LiveDaemon(place, **CONFIG) as daemon:
        daemon.env |= broken(mutant)
        attack(daemon, storage, rounds, seed, tally, absent=absent)


def attack(daemon: LiveDaemon, storage: powercut.Disk, rounds: int, seed: int, tally: Tally, *, absent: bool) -> None:
    luck = random.Random(seed)
    witness = Witness(daemon.home / "witness")
    machine = Machine(daemon, storage)
    load = Load(daemon, witness, luck, submitters=6)
    judge = Judge(daemon, witness, load.ledger, tally)
    for number in range(1, rounds + 1):
        with load:
            for _ in range(luck.choice((0, 1, 2))):
                time.sleep(luck.uniform(0.2, 0.8))
                machine.restart(luck.uniform(0, 0.5))
                tally.fault("daemon killed")
            time.sleep(luck.uniform(0.3, 1.5))
            if dead := absent or luck.random() < 0.3:
                # Results are being written to files.
                daemon.kill()
                time.sleep(luck.uniform(0.1, 0.4))
            machine.lose_power()
            tally.fault("power cut without a daemon" if dead else "power cut")
            written = _outcomes(daemon.state)
            machine.boot()
        judge.look(f"after power cut {number}, seed {seed}", outputs=False)
        _honoured(daemon, written, tally)
    judge.end()


def _outcomes(state: Path) -> dict[int, int | None]:
    """Return what workers had written down, and the disk kept: the exit codes by token."""
    files = [file for file in (state / "outcomes").iterdir() if not file.name.startswith(".")]
    return {int(file.suffix[1:]): json.loads(file.read_bytes())["outcome"].get("exit_code") for file in files}


def _honoured(daemon: LiveDaemon, written: Mapping[int, int | None], tally: Tally) -> None:
    """What is in a file is not run again: it is how that attempt ended."""
    with daemon.wire() as wire:
        recorded = {one["token"]: one["exit_code"] for name in wire.ids() for one in wire.history(name)}
    for token, code in written.items():
        wrong = [] if recorded.get(token) == code else [f"token {token}: {code}, {recorded.get(token)}"]
        tally.check("an outcome in a file is recorded", lost=wrong)


SUITE: Final = Suite(
    "power-cuts",
    "a real ext4 loses what was not fsynced, while clients enqueue, jobs end, and daemons die",
    run,
    rounds=20,
    unit="power cuts",
    hindrance=powercut.hindrance,
)
