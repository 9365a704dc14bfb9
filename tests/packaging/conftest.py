"""What is installed is what was built here, from this tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.packaging.once import once

PROJECT = Path(__file__).parents[2]


class Built(NamedTuple):
    """The two forms in which it is handed out."""

    wheel: Path
    sdist: Path


def build(tree: Path, place: Path, *forms: str) -> None:
    """Build a wheel, a source distribution, or both, as installers do, but with the build system that is here."""
    argv = [sys.executable, "-m", "hatchling", "build", "-d", str(place), *(f"--target={form}" for form in forms)]
    subprocess.run(argv, cwd=tree, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = once(tmp_path_factory, "distributions", lambda place: build(PROJECT, place, "wheel", "sdist"))
    (wheel,) = place.glob("*.whl")
    (sdist,) = place.glob("*.tar.gz")
    return Built(wheel, sdist)
