"""Each of the usual installers, and each Python that is here, makes of it something that runs a job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from queuectld.protocol.words import VERSION
from tests.packaging.conftest import PROJECT, Built
from tests.system import processes

MINORS = (11, 12, 13, 14)


def pythons() -> dict[str, str]:
    """Return the interpreters that are here and can make virtual environments, by version."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for minor in MINORS:
        name = f"python3.{minor}"
        places = [shutil.which(name), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}")]
        for place in filter(None, places):
            able = subprocess.run([place, "-c", "import venv"], capture_output=True, check=False)
            if able.returncode == 0:
                found.setdefault(f"3.{minor}", str(place))
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    # A socket's path may have 107 bytes only.
    place = Path(tempfile.mkdtemp(prefix="queuectl-install-"))
    yield place
    left = processes.end(place)
    shutil.rmtree(place)
    assert left == []


def run(argv: Sequence[str | Path], **env: Any) -> str:
    """Run a program; return what it prints."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("QUEUECTL", "PYTHON"))}
    environ |= {name: str(value) for name, value in env.items()}
    done = subprocess.run(argv, env=environ, cwd="/", capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def use(programs: Path, home: Path) -> None:
    """Do with it what somebody does who has just installed it."""

    def queuectl(*words: str) -> str:
        return run([programs / "queuectl", *words], HOME=home, QUEUECTL_STATE_DIR=home / "state")

    assert run([programs / "queuectld", "--version"]) == f"queuectld {VERSION}\n"
    # It imports every module, and reads its tables.
    assert "is valid" in run([programs / "queuectld", "--check"], HOME=home, QUEUECTL_STATE_DIR=home / "state")
    assert "128" in queuectl("help", "exit-codes")
    try:
        assert queuectl("run", "--", "echo", "hello") == "hello\n"
    finally:
        assert queuectl("daemon", "stop") == "queuectld has stopped.\n"


@pytest.mark.parametrize("version", pythons())
def test_pip_installs_the_wheel(built: Built, home: Path, version: str) -> None:
    run([pythons()[version], "-m", "venv", "--without-pip", home / "venv"])

    run([sys.executable, "-m", "pip", "--python", home / "venv/bin/python", "install", "--quiet", built.wheel])

    use(home / "venv/bin", home)


def test_pipx_installs_the_tree(home: Path) -> None:
    places = {"PIPX_HOME": home / "pipx", "PIPX_BIN_DIR": home / "bin", "PIPX_MAN_DIR": home / "man"}

    # With uv beside it, as it is here, it would have that do the work, and uv has a test of its own.
    run([sys.executable, "-m", "pipx", "install", "--backend", "pip", PROJECT], **places)

    use(home / "bin", home)


def test_uv_installs_the_source_distribution(built: Built, home: Path) -> None:
    places = {"UV_TOOL_DIR": home / "uv", "UV_TOOL_BIN_DIR": home / "bin", "UV_PYTHON_DOWNLOADS": "never"}

    run([sys.executable, "-m", "uv", "tool", "install", "--python", sys.executable, built.sdist], **places)

    use(home / "bin", home)
