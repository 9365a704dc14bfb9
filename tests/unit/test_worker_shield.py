"""What the kernel spares a worker, it does not spare the commands of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from queuectld.worker.shield import Shield


@pytest.fixture
def score(tmp_path: Path) -> Path:
    return tmp_path / "oom_score_adj"


def test_a_command_starts_without_what_was_taken_off_its_workers_badness(score: Path) -> None:
    score.write_text("-500\n")

    with Shield(str(score)).lowered():
        assert score.read_text() == "0"

    assert score.read_text() == "-500"


def test_it_is_back_after_a_start_that_failed_and_for_each_start_anew(score: Path) -> None:
    score.write_text("-500\n")
    shield = Shield(str(score))

    def start() -> None:
        with shield.lowered():
            assert score.read_text() == "0"
            raise OSError("no room")

    for _ in range(2):
        with pytest.raises(OSError, match="no room"):
            start()
        assert score.read_text() == "-500"


@pytest.mark.parametrize("given", ["0\n", "300\n"])
def test_what_was_put_on_top_is_left_alone(score: Path, given: str) -> None:
    score.write_text(given)

    with Shield(str(score)).lowered():
        assert score.read_text() == given


def test_a_host_that_does_not_have_it_or_does_not_let_us_is_no_obstacle(score: Path) -> None:
    with Shield(str(score)).lowered():
        pass
    score.write_text("-500\n")
    shield = Shield(str(score))
    score.unlink()
    score.mkdir()

    with shield.lowered():
        pass


def test_what_cannot_be_put_back_is_not_taken_off_again(score: Path) -> None:
    score.write_text("-500\n")
    shield = Shield(str(score))
    with shield.lowered():
        score.unlink()
        score.mkdir()
    score.rmdir()
    score.write_text("-500\n")

    with shield.lowered():
        assert score.read_text() == "-500\n"
