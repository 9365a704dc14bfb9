"""`python -m tests.faults`: attacks this tree the way its worst day would, and counts what is lost, doubled or left.

Without arguments it lists the suites. Results are kept in a file, a suite replacing its earlier result, so that the
table may be put together from several runs. Ends with 1 if anything was lost, doubled, left over or otherwise wrong.
SIGINT and SIGTERM end it in order: what was found so far is told, and nothing is kept of the suite that was cut short.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tests import cgroup_place
from tests.faults import report
from tests.faults.report import Results
from tests.faults.suite import Suite, Tally, stopwatch
from tests.faults.suites import SUITES
from tests.interruption import Interrupted, heed, interrupt
from tests.readme_block import README, write

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

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


def interrupt_again(ignored: UnraisableHookArgs) -> None:
    """Interrupt once more, in a moment, where it was lost: in a finalizer, or while garbage is collected."""
    lost = ignored.exc_value
    if not isinstance(lost, Interrupted):
        sys.__unraisablehook__(ignored)
        return
    signal.signal(signal.SIGALRM, lambda _number, frame: interrupt(lost.number, frame))
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def attack(suite: Suite, rounds: int, seed: int, results: Results) -> None:
    """Run a suite and put down what came of it, also if it is cut short."""
    say(f"{suite.name}: {rounds:,} {suite.unit}, seed {seed}")
    tally, watch = Tally(), stopwatch()
    try:
        with cgroup_place.enclosed() as cgroups:
            suite.run(tally, rounds, seed)
            tally.check("no cgroup is left", left_over=cgroups())
    except Exception as error:  # noqa: BLE001 - whatever it is, the other suites are run and the table is printed
        # An error of the attack itself is something wrong, too.
        tally.blame("other", f"the attack ended early: {type(error).__name__}: {error}")
    finally:
        results[suite.name] = report.result(tally, seed=seed, rounds=rounds, took=watch())
        say(f"{suite.name}: {watch():.0f} s, {len(tally.wrong)} wrong")


def attack_with(suites: Iterable[Suite], given: argparse.Namespace, results: Results) -> None:
    """Run one suite after the other, as far as they can be run here; the file has each that was run to its end."""
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    for suite in suites:
        if why := suite.hindrance():
            say(f"{suite.name}: skipped, {why}")
            continue
        attack(suite, suite.rounds if given.rounds is None else given.rounds, seed, results)
        report.save(given.json, report.load(given.json) | {suite.name: results[suite.name]})


def main() -> int:
    given = arguments()
    chosen = list(SUITES) if given.all and not given.suites else given.suites
    if not chosen and not given.readme:
        print(listing())
        return 0
    sys.unraisablehook = interrupt_again
    heed()
    results: Results = {}
    code = 0
    try:
        attack_with(map(SUITES.__getitem__, chosen), given, results)
    except Interrupted as interrupted:
        say(f"{interrupted}; this is what was done so far.")
        code = interrupted.code
    if results:
        print(report.table(results))
    if given.readme and not code:
        write(README, "faults", report.markdown(report.load(given.json), SUITES))
    return code or (1 if report.failed(results) else 0)


if __name__ == "__main__":
    sys.exit(main())
