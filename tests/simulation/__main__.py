"""Lives through many worlds: `python -m tests.simulation [--seeds N] [--jobs N] [--mutants | --readme]`.

Ends with 1 if a rule was broken, or if anything that it counts (rules, moves, refused moves, ends, cases, crash points,
attacks) was never met in 300 worlds or more. SIGINT and SIGTERM end it in order; no process of it is left.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Final

from queuectld.domain.job import State
from queuectld.domain.transitions import NEXT, Event
from tests.interruption import ENDINGS, Interrupted, heed
from tests.readme_block import README, write
from tests.simulation.figures import Figures, move
from tests.simulation.life import SeedFailedError, live_through
from tests.simulation.mutants import MUTANTS, first_noticed

_CHUNK = 100
# In so many worlds everything is to be met; in one, hardly.
_ENOUGH: Final = 300
Chunk = tuple[Figures, list[str], float]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# The end, if somebody asks for it before.


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone at the end, however it comes."""
    pool = ProcessPoolExecutor(jobs, initializer=_begin)
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leave it to the parent to end this process: a terminal sends its SIGINT to all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


def _submitted(pool: ProcessPoolExecutor, first: int, seeds: int) -> list[Future[Chunk]]:
    # The processes begin here, and what they begin with is not to be interrupted.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        starts = range(first, first + seeds, _CHUNK)
        return [pool.submit(_chunk, start, min(_CHUNK, first + seeds - start)) for start in starts]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


# Worlds.


def _chunk(first: int, count: int) -> Chunk:
    figures, failures, began = Figures(), [], time.process_time()
    for seed in range(first, first + count):
        try:
            figures.add(live_through(seed))
        except SeedFailedError as error:
            failures.append(str(error))
    return figures, failures, time.process_time() - began


def _simulate(first: int, seeds: int, jobs: int, *, readme: bool = False) -> int:
    total, failed, busy = Figures(), 0, 0.0
    with _pool(jobs) as pool:
        for chunk in as_completed(_submitted(pool, first, seeds)):
            figures, failures, spent = chunk.result()
            total.add(figures)
            busy += spent
            for failure in failures:
                failed += 1
                seed = failure.rpartition("seed ")[2].split()[0]
                print(f"\n{failure}\nReplay it: python -m tests.simulation --seeds 1 --seed {seed}")
            say(f"{total.seeds + failed:,} of {seeds:,} worlds, {total.steps:,} steps, {failed} failed")
    _print(total, busy)
    zeros = total.zeros()
    if zeros and seeds > 1:
        print("\nnever met: " + "; ".join(zeros))
    bad = failed or (zeros and seeds >= _ENOUGH)
    if readme and not bad:
        write(README, "simulation", _markdown(total, busy))
    return 1 if bad else 0


def _print(figures: Figures, busy: float) -> None:
    for title, counts in figures.counts.items():
        print(f"\n{title}")
        for name, count in counts.items():
            print(f"  {count:>12,}  {name}")
    pace = f"{figures.steps / max(busy, 1e-9):,.0f} steps a second and processor"
    # The same seeds have the same trace, wherever they are lived through.
    print(f"\n{figures.seeds:,} worlds, {figures.steps:,} steps, {pace}; trace {figures.trace:08x}")


def _markdown(figures: Figures, busy: float) -> str:
    """Return the tables for the README."""
    lines = _moves(figures)
    for title, counts in figures.counts.items():
        if title not in {"move", "move refused"}:
            rows = (f"| {name.strip()} | {count:,} |" for name, count in counts.items())
            lines += ["", f"| {title} | times |", "|---|---:|", *rows]
    pace = figures.steps / max(busy, 1e-9)
    source = f"{figures.seeds:,} worlds, {figures.steps:,} steps, {pace:,.0f} a second and processor; all rules held."
    return "\n".join([*lines, "", f"{source} Run on {time.strftime('%Y-%m-%d', time.gmtime())}."]) + "\n"


def _moves(figures: Figures) -> list[str]:
    """Return how often each event met each state; in brackets where it was refused."""

    def cell(state: State, event: Event) -> str:
        taken = event in NEXT[state]
        count = figures.counts["move" if taken else "move refused"][move(state, event)]
        return f"{count:,}" if taken else f"({count:,})"

    head = " | ".join(event.value.removeprefix("job.") for event in Event)
    rows = (f"| {state} | {' | '.join(cell(state, event) for event in Event)} |" for state in State)
    return [f"| move of a job (refused) | {head} |", "|---|" + "---:|" * len(Event), *rows]


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
    heed()
    try:
        return _break() if args.mutants else _simulate(args.seed, args.seeds, args.jobs, readme=args.readme)
    except Interrupted as interrupted:
        say(f"{interrupted}.")
        return interrupted.code


if __name__ == "__main__":
    sys.exit(main())
