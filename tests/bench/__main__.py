"""`python -m tests.bench`: measures this tree, beside other programs where they are installed, in one run.

Repeats are interleaved, so that a change of the machine's load hits all; medians are told. It needs nothing of the test
packages, and an environment without them shows a worker as users have it: their names alone cost each a mebibyte.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests import readme_block
from tests.bench import figures
from tests.bench.contenders import WORKERS, Contender, contenders
from tests.bench.report import Row, machine, markdown, table


class Size(NamedTuple):
    """How much of each is measured."""

    drain: int
    repeats: int
    bulk: int
    single: int
    latency: int
    cli: int
    rescue: int
    # Seconds.
    idle: float


SIZES = {
    "full": Size(drain=3000, repeats=5, bulk=100_000, single=32_000, latency=300, cli=21, rescue=10, idle=20),
    "quick": Size(drain=1000, repeats=3, bulk=20_000, single=8_000, latency=100, cli=11, rescue=5, idle=6),
    # Proves that the program works; the figures mean nothing.
    "tiny": Size(drain=40, repeats=1, bulk=20_000, single=64, latency=3, cli=1, rescue=1, idle=0.2),
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def drains(place: Path, size: Size) -> tuple[dict[str, Any], list[Row]]:
    """Let all drain the same number of commands, in turns."""
    found = contenders(place)
    rates: dict[str, list[float]] = {one.name: [] for one in found}
    for turn in range(size.repeats):
        for one in found:
            say(f"drain {turn + 1}/{size.repeats}: {one.name}")
            rates[one.name].append(size.drain / one.drain(size.drain))
    medians = {name: statistics.median(all_) for name, all_ in rates.items()}
    return {"median": medians, "all": rates}, [_drain_row(one, medians, found[1]) for one in found]


def _drain_row(one: Contender, medians: dict[str, float], reference: Contender) -> Row:
    share = medians[one.name] / medians[reference.name]
    return Row(f"drain: {one.name}", f"{medians[one.name]:,.0f}/s", f"{share:.2f} of {reference.name}; {one.promise}")


def takes_in(place: Path, size: Size) -> tuple[dict[str, Any], list[Row]]:
    """Measure how fast jobs are stored."""
    bulk = statistics.median(figures.bulk_rate(place, size.bulk) for _ in range(size.repeats))
    single = statistics.median(figures.single_rate(place, size.single) for _ in range(size.repeats))
    return {"bulk": bulk, "single": single}, [
        Row("enqueue in bulk, one client", f"{bulk:,.0f}/s", f"{size.bulk:,} jobs, 1,000 a request"),
        Row("enqueue one at a time", f"{single:,.0f}/s", f"{figures.CONNECTIONS} connections"),
    ]


def starts(place: Path, size: Size) -> tuple[dict[str, Any], list[Row]]:
    """Measure how soon an idle daemon starts a job."""
    begun, over = (sorted(value * 1000 for value in values) for values in figures.latencies(place, size.latency))
    told = {
        "start_p50_ms": figures.percentile(begun, 0.5),
        "start_p99_ms": figures.percentile(begun, 0.99),
        "end_p50_ms": figures.percentile(over, 0.5),
        "end_p99_ms": figures.percentile(over, 0.99),
    }
    return told, [
        Row("enqueue to start of the command", f"{told['start_p50_ms']:.1f} ms", f"p99 {told['start_p99_ms']:.1f} ms"),
        Row("enqueue to its end, told", f"{told['end_p50_ms']:.1f} ms", f"p99 {told['end_p99_ms']:.1f} ms"),
    ]


def command_line(place: Path, size: Size) -> tuple[dict[str, Any], list[Row]]:
    """Measure a whole `queuectl enqueue`."""
    ours, bare = figures.command_line(place, size.cli)
    told = {"enqueue_ms": ours * 1000, "import_click_ms": bare * 1000, "ratio": ours / bare}
    return told, [Row("queuectl enqueue", f"{ours * 1000:.0f} ms", f"{ours / bare:.2f} x python -c 'import click'")]


def rescues(place: Path, size: Size) -> tuple[dict[str, Any], list[Row]]:
    """Measure how soon the job of a killed worker runs again."""
    took = [value * 1000 for value in figures.rescue(place, size.rescue)]
    told = {"median_ms": statistics.median(took), "max_ms": max(took)}
    return told, [
        Row(
            "worker killed -9 to its job running again",
            f"{told['median_ms']:.0f} ms",
            f"at most {told['max_ms']:.0f} ms",
        )
    ]


def costs(place: Path, size: Size) -> tuple[dict[str, Any], list[Row]]:
    """Measure memory and idle load."""
    told = figures.memory(place, size.drain) | {"idle_share": figures.idle(place, size.idle)}
    return told, [
        Row("memory of the daemon", f"{told['daemon_pss']:.1f} MiB", f"PSS; RSS {told['daemon_rss']:.1f} MiB"),
        Row("memory of a worker", f"{told['worker_pss']:.1f} MiB", f"PSS; RSS {told['worker_rss']:.1f} MiB"),
        Row("idle daemon with two workers", f"{told['idle_share']:.2%}", f"of a core, over {size.idle:g} s"),
    ]


PARTS: dict[str, Callable[[Path, Size], tuple[dict[str, Any], list[Row]]]] = {
    "drain": drains,
    "enqueue": takes_in,
    "latency": starts,
    "command_line": command_line,
    "rescue": rescues,
    "costs": costs,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", help="a minute; rough figures")
    sizes.add_argument("--tiny", dest="size", action="store_const", const="tiny", help="a proof that it works")
    parser.add_argument("--count", type=int, help="commands to drain")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--readme", action="store_true", help="replace the figures in README.md")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to be measured")
    found = parser.parse_args()
    if unknown := set(found.parts) - PARTS.keys():
        parser.error(f"unknown part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return found


def main() -> None:
    given = arguments()
    size = SIZES[given.size or "full"]
    size = size._replace(drain=given.count or size.drain, repeats=given.repeats or size.repeats)
    where = machine(given.dir)
    workload = (
        f"{size.drain:,} x `true` through sh, {WORKERS} at once, output captured, "
        f"workers started before the clock; medians of {size.repeats} interleaved runs"
    )
    all_figures: dict[str, Any] = {}
    rows: list[Row] = []
    for name in given.parts or PARTS:
        say(f"measuring: {name}")
        all_figures[name], more = PARTS[name](given.dir, size)
        rows += more
    print("\n".join(f"{key}: {value}" for key, value in {**where, "workload": workload}.items()))
    print()
    print(table(rows))
    if given.readme:
        readme_block.write(readme_block.README, "figures", markdown(rows, where, workload))
    if given.json:
        told = {"machine": where, "workload": workload, "size": size._asdict(), "figures": all_figures}
        given.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
