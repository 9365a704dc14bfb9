"""Figures as Prometheus reads them: the text format, version 0.0.4."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from queuectld.figures.histogram import Histogram
from queuectld.figures.table import METRICS, Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Values of the labels, in the order of the table, and what was measured.
Sample = tuple[tuple[str, ...], float | Histogram]
# By the name of the metric; one that nothing is known of is left out.
Samples = Mapping[str, Iterable[Sample]]


def render(samples: Samples) -> str:
    """Return the text. Raises `KeyError` for what the table does not name."""
    if foreign := samples.keys() - METRICS.keys():
        raise KeyError(*foreign)
    return "".join(
        line for name, metric in METRICS.items() if name in samples for line in _family(metric, samples[name])
    )


def _family(metric: Metric, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escaped(metric.help)}\n"
    yield f"# TYPE {metric.name} {metric.kind}\n"
    for values, measured in samples:
        labels = _labels(metric.labels, values)
        if isinstance(measured, Histogram):
            yield from _histogram(metric.name, labels, measured)
        else:
            yield f"{metric.name}{_braced(labels)} {number(measured)}\n"


def _histogram(name: str, labels: Sequence[str], histogram: Histogram) -> Iterator[str]:
    count = 0
    for bound, count in histogram.cumulated():
        with_bound = (*labels, f'le="{number(bound)}"')
        yield f"{name}_bucket{_braced(with_bound)} {count}\n"
    yield f"{name}_sum{_braced(labels)} {number(histogram.total)}\n"
    yield f"{name}_count{_braced(labels)} {count}\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> list[str]:
    return [f'{name}="{_quoted(value)}"' for name, value in zip(names, values, strict=True)]


def _braced(labels: Sequence[str]) -> str:
    return "{" + ",".join(labels) + "}" if labels else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', r"\"")


def number(value: float) -> str:
    """Return a number as the format writes it, with nothing lost."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
