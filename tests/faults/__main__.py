"""`python -m tests.faults`: attacks this tree the way its worst day would, and counts what is lost, doubled or left.

Without arguments it lists the suites. Results are kept in a file, a suite replacing its earlier result, so that the
table may be put together from several runs. Ends with 1 if anything was lost, doubled, left over or otherwise wrong.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path
from types import FrameType

from tests.faults import report
from tests.faults.suite import Suite, Tally, stopwatch
from tests.faults.suites import SUITES
from tests.readme_block import README, write

RESULTS = Path(__file__).with_name("results.json")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"run these: {', '.join(SUITES)}")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--all", action="store_true", help="run every suite, each with its full number of rounds")
    amount.add_argument("--rounds", type=int, metavar="N", help="so many rounds of each, instead of its own number")
    parser.add_argument("--seed", type=int, help="draw the same faults again; without it they are others each time")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", default=RESULTS, help=f"keep results there ({RESULTS.name})"
    )
    parser.add_argument("--readme", action="store_true", help="replace the table in README.md by the results kept")
    found = parser.parse_args()
    if unknown := set(found.suites) - SUITES.keys():
        parser.error(f"unknown suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    return found


def listing() -> str:
    width = max(map(len, SUITES), default=0)
    return "\n".join(
        f"{suite.name:<{width}}  {suite.line} ({suite.rounds:,} {suite.unit}"
        + (f"; {why} here)" if (why := suite.hindrance()) else ")")
        for suite in SUITES.values()
    )


def attack(suite: Suite, rounds: int, seed: int) -> tuple[Tally, float]:
    """Run a suite; an error of the attack itself is something wrong, too."""
    say(f"{suite.name}: {rounds:,} {suite.unit}, seed {seed}")
    watch = stopwatch()
    try:
        tally = suite.run(rounds, seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other suites are run and the table is printed
        tally = Tally()
        tally.blame("other", f"the attack ended early: {type(error).__name__}: {error}")
    say(f"{suite.name}: {watch():.0f} s, {len(tally.wrong)} wrong")
    return tally, watch()


def end_in_order(number: int, _frame: FrameType | None) -> None:
    """Leave nothing behind, whoever asks for the end: what is open closes on the way out."""
    raise SystemExit(128 + number)


def main() -> int:
    given = arguments()
    signal.signal(signal.SIGTERM, end_in_order)
    chosen = list(SUITES) if given.all and not given.suites else given.suites
    if not chosen and not given.readme:
        print(listing())
        return 0
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    kept, now = report.load(given.json), {}
    for suite in map(SUITES.__getitem__, chosen):
        if why := suite.hindrance():
            say(f"{suite.name}: skipped, {why}")
            continue
        rounds = suite.rounds if given.rounds is None else given.rounds
        tally, took = attack(suite, rounds, seed)
        kept[suite.name] = now[suite.name] = report.result(tally, seed=seed, rounds=rounds, took=took)
        report.save(given.json, kept)
    if now:
        print(report.table(now))
    if given.readme:
        write(README, "faults", report.markdown(kept, SUITES))
    return 1 if report.failed(now) else 0


if __name__ == "__main__":
    sys.exit(main())
