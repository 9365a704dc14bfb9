"""A machine in the machine, booted with systemd, in which units can be installed, started and killed."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sysbox.sh")
PROJECT = Path(__file__).parents[2]
TOOLS = ("systemd-nspawn", "unshare", "nsenter")


class Box:
    """One that runs."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ

    @property
    def cgroup(self) -> str:
        """Where its processes are, as seen from outside."""
        return (self._directory / "cgroup").read_text().strip()

    @property
    def root(self) -> Path:
        """Its file system, as seen from outside; without links that name a path from the root."""
        return Path("/proc", (self._directory / "leader").read_text().strip(), "root")

    def processes(self) -> dict[int, Path]:
        """Return the living processes by their number inside, each with its directory in /proc."""
        found = {int(entry.name): entry for entry in (self.root / "proc").iterdir() if entry.name.isdecimal()}
        return {pid: place for pid, place in found.items() if _lives(place)}

    def halt(self) -> None:
        """As a power cut does."""
        if self._directory.exists():
            subprocess.run([SCRIPT, "down", "-f"], env=self._environ, check=False, timeout=60)

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a program inside; return what it says, without spaces around it."""
        done = subprocess.run(
            [SCRIPT, "exec", *argv], env=self._environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start a program inside, and do not wait."""
        return subprocess.Popen([SCRIPT, "exec", *argv], env=self._environ)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--property", name, "--value", unit)

    def read(self, path: str) -> str:
        return self.run("cat", path)

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--unit", unit, "--output", "cat", check=False)


def _lives(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def _let_in(box: Box, *files: Path) -> None:
    """Let every user inside reach what is in somebody's home; outside nothing changes."""
    places = {place for file in files for place in file.parents if place != Path("/")}
    # What is bound is not ours to change, and is open or not as it is outside.
    box.run("chmod", "o+x", *sorted(map(str, places)), check=False)


@contextmanager
def boot(files: Mapping[str, str], binds: Mapping[str, Path] | None = None) -> Iterator[Box]:
    """Boot one with these files in it, by absolute path; skips where that cannot be done.

    `binds` are directories outside by their place inside; what is written there is there at the next boot, too.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine in the machine")
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed; Debian has it in systemd-container and util-linux")
    directory = Path(tempfile.mkdtemp(prefix="queuectl-box-"))
    stage = directory / "stage"
    for name, text in files.items():
        file = stage / name.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    box = directory / "box"
    # The interpreter, and us, where they are outside: what is below /tmp would not be there otherwise.
    places = {sys.prefix, str(PROJECT)}
    environ = {
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "SYSBOX": str(box),
        "NAME": f"queuectl-{secrets.token_hex(4)}",
        "NSPAWN_ARGS": " ".join(
            [f"--bind-ro={place}" for place in sorted(places)]
            + [f"--bind={outside}:{inside}" for inside, outside in (binds or {}).items()]
        ),
    }
    found = Box(box, environ)
    try:
        subprocess.run([SCRIPT, "up", str(stage)], env=environ, check=True, timeout=60, stdout=subprocess.DEVNULL)
        _let_in(found, Path(sys.executable).resolve(), Path(sys.prefix), PROJECT)
        yield found
    finally:
        found.halt()
        shutil.rmtree(directory, ignore_errors=True)
