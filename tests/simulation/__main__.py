"""Lives through many worlds: `python -m tests.simulation [--seeds N] [--jobs N] [--mutants | --readme]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.readme_block import README, write
from tests.simulation.figures import SeedFailedError, Tally, live_through
from tests.simulation.mutants import MUTANTS, first_noticed

_CHUNK = 100


def _chunk(first: int, count: int) -> tuple[Tally, list[str], float]:
    tally, failures, began = Tally(), [], time.process_time()
    for seed in range(first, first + count):
        try:
            live_through(seed, tally)
        except SeedFailedError as error:
            failures.append(str(error))
    return tally, failures, time.process_time() - began


def _print(tally: Tally, busy: float) -> None:
    for title, rows in tally.tables():
        print(f"\n{title}")
        for name, count in rows:
            print(f"  {count:>12,}  {name}")
    pace = f"{tally.steps / max(busy, 1e-9):,.0f} steps a second and processor"
    print(f"\n{tally.seeds:,} worlds, {tally.steps:,} steps, {pace}")


def _markdown(tally: Tally, busy: float) -> str:
    """Return the tables for the README."""
    lines = []
    for title, rows in tally.tables():
        lines += [
            f"| {title} | times |",
            "|---|---:|",
            *(f"| {name.strip()} | {count:,} |" for name, count in rows),
            "",
        ]
    pace = tally.steps / max(busy, 1e-9)
    source = f"{tally.seeds:,} worlds, {tally.steps:,} steps, {pace:,.0f} a second and processor; all rules held."
    return "\n".join([*lines, f"{source} Run on {time.strftime('%Y-%m-%d', time.gmtime())}."]) + "\n"


def _simulate(first: int, seeds: int, jobs: int, *, readme: bool = False) -> int:
    total, failed, busy, done = Tally(), 0, 0.0, 0
    with ProcessPoolExecutor(jobs) as pool:
        chunks = [
            pool.submit(_chunk, start, min(_CHUNK, first + seeds - start))
            for start in range(first, first + seeds, _CHUNK)
        ]
        for chunk in as_completed(chunks):
            tally, failures, spent = chunk.result()
            total.add(tally)
            busy += spent
            done += tally.seeds + len(failures)
            for failure in failures:
                failed += 1
                seed = failure.rpartition("seed ")[2].split()[0]
                print(f"\n{failure}\nReplay it: python -m tests.simulation --seeds 1 --seed {seed}")
            print(f"{done:,} of {seeds:,} worlds, {total.steps:,} steps, {failed} failed", file=sys.stderr, flush=True)
    _print(total, busy)
    zeros = total.zeros()
    if zeros and seeds > 1:
        print("\nnever exercised: " + "; ".join(zeros))
    if readme and not failed:
        write(README, "simulation", _markdown(total, busy))
    return 1 if failed or (zeros and seeds >= 300) else 0


def _break() -> int:
    missed = 0
    for name in MUTANTS:
        found = first_noticed(name)
        missed += found is None
        print(f"{name}: " + ("NOT NOTICED" if found is None else f"noticed by seed {found[0]}: {found[1]}"), flush=True)
    return 1 if missed else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many worlds")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    parser.add_argument("--mutants", action="store_true", help="break the product on purpose instead, rule by rule")
    parser.add_argument("--readme", action="store_true", help="replace the counts in README.md")
    args = parser.parse_args(argv)
    return _break() if args.mutants else _simulate(args.seed, args.seeds, args.jobs, readme=args.readme)


if __name__ == "__main__":
    sys.exit(main())
