"""Wheel and source distribution have in them what belongs there, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from queuectld.protocol.words import VERSION
from tests.packaging.conftest import PROJECT, Built, build

DIST_INFO = f"queuectl-{VERSION}.dist-info"
# What the programs read besides their own modules.
DATA = (
    "queuectl_cli/help/*.md",
    "queuectl_cli/py.typed",
    "queuectld/log.schema.json",
    "queuectld/protocol/PROTOCOL.md",
    "queuectld/py.typed",
    "queuectld/store/migrations/*.sql",
)


def tracked(*places: str) -> set[str]:
    """Return the files that belong to the project below some places, new ones among them."""
    if not (PROJECT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("only a clone, and git, tell which files belong to the project")
    argv = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *places]
    names = subprocess.run(argv, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.split("\0")
    return {name for name in names if name and (PROJECT / name).exists()}


def in_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{DIST_INFO}/METADATA").decode())


def unpacked(sdist: Path, place: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    return place / f"queuectl-{VERSION}"


def test_the_wheel_has_all_files_of_the_two_packages_and_nothing_else(built: Built) -> None:
    about = {f"{DIST_INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}

    units = {name.replace("deploy/systemd/", "queuectl_cli/units/") for name in tracked("deploy/systemd")}

    assert in_wheel(built.wheel) == tracked("queuectld", "queuectl_cli") | about | units


def test_the_wheel_has_the_files_that_the_programs_read(built: Built) -> None:
    wanted = {str(file.relative_to(PROJECT)) for pattern in DATA for file in PROJECT.glob(pattern)}

    assert len(wanted) >= len(DATA)
    assert wanted <= in_wheel(built.wheel)


def test_the_source_distribution_has_every_file_of_the_project(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {member.name.removeprefix(f"queuectl-{VERSION}/") for member in archive if not member.isdir()}

    assert names == tracked() | {"PKG-INFO"}


def test_what_has_to_be_run_can_be_run_from_the_source_distribution(built: Built, tmp_path: Path) -> None:
    tree = unpacked(built.sdist, tmp_path)

    for program in ("tests/run", "deploy/demo", "deploy/debian/build", ".ci/run"):
        assert (tree / program).stat().st_mode & 0o111 == 0o111, program


def test_the_source_distribution_builds_the_very_wheel_of_the_tree(built: Built, tmp_path: Path) -> None:
    tree = unpacked(built.sdist, tmp_path)

    build(tree, tmp_path / "again", "wheel")

    assert (tmp_path / "again" / built.wheel.name).read_bytes() == built.wheel.read_bytes()


def test_it_says_what_it_is_and_what_it_needs(built: Built) -> None:
    said = metadata(built.wheel)

    assert (said["Name"], said["Version"], said["Requires-Python"]) == ("queuectl", VERSION, ">=3.11")
    assert (said["License-Expression"], said["License-File"]) == ("MIT", "LICENSE")
    assert said.get_payload() == (PROJECT / "README.md").read_text()
    with zipfile.ZipFile(built.wheel) as archive:
        scripts = archive.read(f"{DIST_INFO}/entry_points.txt").decode().splitlines()
    assert scripts == ["[console_scripts]", "queuectl = queuectl_cli.main:run", "queuectld = queuectld.main:run"]
