"""Sets up the log of the daemon: structlog, one JSON object a line, or colours for people on a terminal.

Lines go to standard error, or to a file if one is named; what is critical goes to both.

Everybody logs like this, with a name from `queuectld.log_events`; the rest are fields of the line::

    log = structlog.get_logger()
    log.info("Job finished", event_name="job.finished", job_id=job.id, attempt=2, exit_code=0)

What libraries log, warnings, and errors that nobody handled take the same way.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, NamedTuple

import structlog
from structlog.typing import Processor

from queuectld.log_ecs import to_ecs
from queuectld.log_line import Fields, encode_line, error_fields, flatten, printable
from queuectld.log_sink import LogFile, Sink, Stream
from queuectld.protocol.words import VERSION

SERVICE: Final = "queuectld"

Line = MutableMapping[str, Any]

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class FileTarget(NamedTuple):
    """A file for the log, and its permissions when we make it. Not `required`: lines wait for it on standard error."""

    path: str
    mode: int
    required: bool = True


class Log:
    """What stays adjustable while the daemon runs."""

    def __init__(self, level: str, file: LogFile | None = None) -> None:
        self._file = file
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Log nothing less important from now on."""
        self._least = _LEVELS[level]
        # At debug level, watchdog and asyncio tell about every file and every callback.
        logging.getLogger().setLevel(max(self._least, logging.INFO))

    def reopen(self) -> None:
        """Write on in what has the name of the log file now, since the one before was moved away. No file: nothing."""
        if self._file is not None and self._file.reopen():
            structlog.get_logger().info("Log file opened anew", event_name="log.reopened", path=self._file.path)

    def problems(self) -> Sequence[str]:
        """Return sentences about what keeps lines from where they should be."""
        return () if self._file is None else self._file.problems()

    def sift(self, _logger: Any, method: str, line: Line) -> Line:
        """Drop what is not important enough."""
        if _LEVELS[method] < self._least:
            raise structlog.DropEvent
        return line


def set_up(
    *,
    level: str = "info",
    form: str = "auto",
    file: FileTarget | None = None,
    descriptor: int = 2,
    environ: Mapping[str, str],
) -> Log:
    """Send all logging of this process to a file, or to `descriptor`. `form`: auto, json, ecs, console.

    Raises `BadConfigError` if there is a file and it cannot be used.
    """
    terminal = file is None and os.isatty(descriptor)
    console = form == "console" or (form == "auto" and terminal)
    colours = terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    journal = not console and is_journal(descriptor, environ.get("JOURNAL_STREAM"))
    stream = Stream(descriptor, journal=journal)
    target = None if file is None else LogFile(file.path, file.mode, stream, _tell, required=file.required)
    log = Log(level, target)
    structlog.configure(
        processors=[
            log.sift,
            structlog.stdlib.add_log_level,
            _stamp,
            _explain,
            structlog.processors.EventRenamer("message", "event_name"),
            *(_for_people(colours=colours) if console else _for_programs(to_ecs if form == "ecs" else None)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: Sink(target or stream),
        cache_logger_on_first_use=True,
    )
    _take_over()
    return log


def _tell(path: str, trouble: str | None, missed: int) -> None:
    """The log file cannot be written any more, or can be again."""
    log = structlog.get_logger()
    if trouble is None:
        log.warning("Log file is written again", event_name="log.file_back", path=path, count=missed)
    else:
        log.error("Log file cannot be written", event_name="log.file_failed", path=path, error=trouble)


def is_journal(descriptor: int, journal_stream: str | None) -> bool:
    """Whether the journal reads what is written there; it says which stream it made, as ``device:inode``."""
    try:
        stream = os.fstat(descriptor)
    except OSError:
        return False
    return journal_stream == f"{stream.st_dev}:{stream.st_ino}"


def _stamp(_logger: Any, _method: str, line: Line) -> Line:
    # structlog's own, by strftime, takes four times as long, and every attempt writes a line.
    line["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return line


def _explain(_logger: Any, _method: str, line: Line) -> Line:
    error = line.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        line.update(error_fields(error))
    return line


def _for_programs(rename: Callable[[Fields], Fields] | None) -> list[Processor]:
    def render(_logger: Any, _method: str, line: Line) -> bytes:
        line.update(service=SERVICE, version=VERSION, pid=os.getpid())
        return encode_line(flatten(line), rename) + b"\n"

    return [render]


def _for_people(*, colours: bool) -> list[Processor]:
    pretty = structlog.dev.ConsoleRenderer(colors=colours, event_key="message", sort_keys=False)

    def render(logger: Any, method: str, line: Line) -> bytes:
        fields = printable(flatten(line))
        trace = fields.pop("traceback", None)
        text = str(pretty(logger, method, fields)) + (f"\n{trace}" if trace else "")
        return text.encode() + b"\n"

    return [render]


class _Bridge(logging.Handler):
    """Passes on what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for name, number in reversed(_LEVELS.items()) if record.levelno >= number), "debug")
        event = "library.message"
        if record.name == "py.warnings":
            event = "library.warning"
        getattr(structlog.get_logger(), level)(
            _message(record),
            event_name=event,
            logger=record.name,
            exc_info=record.exc_info,
        )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except (TypeError, ValueError, KeyError):
        # Arguments that do not fit the text: better the bare text than none.
        return str(record.msg)


def _take_over() -> None:
    logging.getLogger().handlers[:] = [_Bridge()]
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _report(args.exc_value)
    sys.unraisablehook = lambda args: _report(args.exc_value)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _report(error)


def _report(error: BaseException | None) -> None:
    structlog.get_logger().critical("Nobody handled an error", event_name="uncaught", exc_info=error)
