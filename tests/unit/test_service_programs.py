"""Which programs a service runs: those that are there after an upgrade too, and that nobody else can change."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from queuectl_cli.service import installing


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of links to programs elsewhere, as pipx and packages make it; we were called by one of them."""
    release, links = tmp_path / "release", tmp_path / "bin"
    for place in (release, links):
        place.mkdir()
        place.chmod(0o755)
    for name in ("queuectl", "queuectld"):
        (release / name).touch(0o755)
        (links / name).symlink_to(release / name)
    monkeypatch.setattr(sys, "argv", [str(links / "queuectl")])
    return links


def test_links_are_named_and_not_what_they_lead_to_now(links: Path) -> None:
    assert installing.programs() == str(links)


def test_a_link_to_one_program_alone_is_followed_to_where_both_are(links: Path) -> None:
    (links / "queuectld").unlink()

    assert installing.programs() == str(links.with_name("release"))


@pytest.mark.skipif(os.geteuid() != 0, reason="what belongs to somebody else than root is told before")
def test_what_others_could_change_behind_a_link_is_told(links: Path) -> None:
    links.with_name("release").chmod(0o777)

    assert any(f"{links.with_name('release')} can be changed" in hazard for hazard in installing.hazards(str(links)))
