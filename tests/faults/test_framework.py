"""The command itself: it lists, runs, keeps results, fills the README, and fails if something was wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults import __main__ as command
from tests.faults.suite import Suite, Tally, clean, tallied
from tests.readme_block import insert


def suite(name: str, *wrong: str, faults: int = 3) -> Suite:
    def run(tally: Tally, rounds: int, seed: int) -> None:
        tally.runs += rounds
        tally.fault(f"seed {seed}", faults)
        tally.check("all is well", lost=wrong)
        tally.figures["speed"] = "fine"

    return Suite(name, f"does {name}", run, rounds=1000, unit="times")


def broken(tally: Tally, _rounds: int, _seed: int) -> None:
    tally.fault("thrown out of order")
    raise ValueError("out of order")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The command over these suites, with a README and a file for results of its own."""

    def with_suites(*suites: Suite):
        monkeypatch.setattr(command, "SUITES", {one.name: one for one in suites})
        monkeypatch.setattr(command, "README", tmp_path / "README.md")

        def main(*words: str) -> int:
            monkeypatch.setattr(sys, "argv", ["faults", "--json", str(tmp_path / "results.json"), *words])
            return command.main()

        return main

    return with_suites


def test_without_arguments_it_lists_the_suites(call, capsys) -> None:
    assert call(suite("kills"), suite("cuts"))() == 0

    assert capsys.readouterr().out.splitlines() == ["kills  does kills (1,000 times)", "cuts   does cuts (1,000 times)"]


def test_it_runs_what_is_named_with_its_rounds_and_seed_and_prints_the_table(call, capsys) -> None:
    assert call(suite("kills"), suite("cuts"))("kills", "--rounds", "7", "--seed", "5") == 0

    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["suite", "faults", "injected", "runs", "lost", "doubled", "left", "over", "other"]
    assert out[1].split() == ["kills", "3", "7", "0", "0", "0", "0"]
    assert "kills: 3 seed 5" in out
    assert "  speed: fine" in out


def test_it_fails_where_something_is_wrong_and_says_what(call, capsys) -> None:
    assert call(suite("kills", "job a"))("--all") == 1

    assert "WRONG: lost: all is well: job a" in capsys.readouterr().out


def test_an_attack_that_ends_early_counts_as_wrong_and_the_others_are_run(call, capsys) -> None:
    assert call(Suite("odd", "", broken, 1, "times"), suite("kills"))("--all") == 1

    out = capsys.readouterr().out
    assert "WRONG: other: the attack ended early: ValueError: out of order" in out
    assert "odd: 1 thrown out of order" in out
    assert "kills" in out


def test_what_cannot_be_run_here_is_left_out(call, capsys) -> None:
    assert call(suite("kills"), suite("cuts")._replace(hindrance=lambda: "needs root"))("--all") == 0

    told = capsys.readouterr()
    assert "cuts: skipped, needs root" in told.err
    assert "cuts" not in told.out


def test_the_table_of_the_readme_comes_from_several_runs(call, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- faults -->\nold\n<!-- /faults -->\nafter\n")
    main = call(suite("kills"), suite("cuts"))

    main("cuts", "--rounds", "2")
    main("kills", "--rounds", "1234", "--readme")

    lines = readme.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    assert "| `kills`: does kills | 3 | 1,234 | 0 | 0 | 0 | 0 |" in lines
    assert "| `cuts`: does cuts | 3 | 2 | 0 | 0 | 0 | 0 |" in lines
    assert lines.index("| `kills`: does kills | 3 | 1,234 | 0 | 0 | 0 | 0 |") < lines.index(
        "| `cuts`: does cuts | 3 | 2 | 0 | 0 | 0 | 0 |"
    )


def test_a_readme_without_a_place_for_the_table_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no block"):
        insert("nothing here", "faults", "table")


def test_an_unknown_suite_is_refused(call, capsys) -> None:
    with pytest.raises(SystemExit):
        call(suite("kills"))("kils")

    assert "unknown suite kils; there are kills" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tally",
    [
        tallied(suite("x", "job a").run, 1, 1),
        tallied(suite("x", faults=0).run, 1, 1),
        Tally(faults=tallied(suite("x").run, 1, 1).faults),
    ],
    ids=["wrong", "without a fault", "without a look"],
)
def test_a_tally_is_clean_only_if_something_was_done_and_looked_at_and_nothing_was_wrong(tally: Tally) -> None:
    with pytest.raises(AssertionError):
        clean(tally)
