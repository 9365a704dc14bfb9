"""What is installed is what was built here, from this tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from queuectld.protocol.words import VERSION
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


NEWER: Final = "1000.0"


@pytest.fixture(scope="session")
def debs(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `old.deb`, of this version, and `new.deb`, which has a higher one and is the same otherwise."""
    if why := hindrance():
        pytest.skip(why)
    return once(tmp_path_factory, "debs", lambda place: package(built, place))


def hindrance() -> str | None:
    """Return why no package can be built here; None if it can."""
    missing = [tool for tool in ("dpkg-deb", "dpkg-query") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed: this is no Debian"
    if not list(Path("/usr/share/python-wheels").glob("pip-*.whl")):
        return "Debian's python3-venv is not installed"
    return None


def package(built: Built, place: Path) -> None:
    """Build both packages."""
    with tarfile.open(built.sdist) as archive:
        archive.extractall(place, filter="data")
    (tree,) = place.iterdir()
    words = tree / "queuectld/protocol/words.py"
    changed = words.read_text().replace(f'VERSION: Final = "{VERSION}"', f'VERSION: Final = "{NEWER}"')
    assert changed != words.read_text()
    words.write_text(changed)
    # What it says goes before what the files say.
    (tree / "PKG-INFO").unlink()
    build(tree, place, "wheel")
    shutil.rmtree(tree)
    (newer,) = place.glob("*.whl")
    for name, wheel in {"old.deb": built.wheel, "new.deb": newer}.items():
        argv = [str(PROJECT / "deploy/debian/build"), "--quick", "--wheel", str(wheel), "--output", str(place)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        Path(done.stdout.strip()).rename(place / name)
