"""The log of the product within a simulation: kept from the terminal, looked through for secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog


class _Logger:
    """What structlog makes loggers of."""

    heard: Callable[[str, dict[str, Any]], None]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def info(self, event: str, **fields: Any) -> None:
        self.heard(event, fields)

    debug = warning = error = critical = info


@contextmanager
def quiet(heard: Callable[[str, dict[str, Any]], None]) -> Iterator[None]:
    """Have `heard` told of everything that is logged, and nobody else."""
    before = structlog.get_config()
    kind = type("Logger", (_Logger,), {"heard": staticmethod(heard)})
    structlog.configure(wrapper_class=kind, cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
