"""The output of jobs as pieces for the wire: where to begin, what comes next, and when it is over."""

from __future__ import annotations

from binascii import b2a_base64
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from queuectld.domain.attempt import Attempt
from queuectld.domain.job import FINAL, Job, State
from queuectld.errors import BadRequestError, NoSuchAttemptError, NoSuchJobError
from queuectld.protocol.messages import Logs
from queuectld.protocol.output import GAP, STREAM_NAMES
from queuectld.protocol.replies import Output
from queuectld.service.output_files import OutputFiles, Stretch, output_base
from queuectld.service.selection import job_named
from queuectld.service.sight import Sight
from queuectld.service.utf8 import incomplete_tail, missing_bytes
from queuectld.service.views import iso
from queuectld.store.base import Reader

# Bytes of one event; and how much one look at a job takes at most, so that others get their turn.
PIECE: Final = 64 * 1024
_STRETCHES: Final = 256
# With less room than this left, a look ends.
_SMALL: Final = 4096
# An index notes the time about every second.
_TIME_STEP: Final = 1.0


class Place(NamedTuple):
    """Where somebody reads: the job, the number of the attempt (0: the first one that there will be), and the byte."""

    seq: int
    job: str
    number: int
    # None: the beginning is still to be found, as the request says.
    offset: int | None = None
    # Bytes that were passed over, and that nobody has been told of yet.
    missing: int = 0


class Look(NamedTuple):
    """What was found from a place on, and where to go on."""

    pieces: tuple[Output, ...]
    place: Place
    job: Job | None
    # The attempt that may write more.
    token: int | None = None
    # Nothing more is there now; nothing more will ever be.
    idle: bool = False
    over: bool = False


def places(reader: Reader, request: Logs, sight: Sight) -> list[Place]:
    """Return where to begin with each job.

    Raises `NoSuchJobError`, `AmbiguousIdError`, `ForbiddenError`, `NoSuchAttemptError`, `BadRequestError`.
    """
    found: dict[int, Place] = {}
    known = {place.job: place for place in request.places}
    for position, text in enumerate(request.jobs):
        job = job_named(reader, text, f"$.jobs[{position}]", sight)
        before = known.pop(job.id, None)
        if before is not None:
            found[job.seq] = Place(job.seq, job.id, before.attempt, before.offset)
        elif job.seq not in found:
            found[job.seq] = Place(job.seq, job.id, _first_number(job, request))
    if known:
        raise BadRequestError(
            f"there is a place for job '{next(iter(known))}', which is not in `jobs`", path="$.places"
        )
    return list(found.values())


def _first_number(job: Job, request: Logs) -> int:
    if request.attempt is None:
        return job.attempts
    if request.attempt == "all":
        return min(job.attempts, 1)
    if request.attempt > job.attempts:
        raise NoSuchAttemptError(f"job '{job.id}' has {job.attempts} attempts, not {request.attempt}", path="$.attempt")
    return request.attempt


def look(reader: Reader, request: Logs, place: Place, output_dir: Path, limit: int) -> Look:
    """Read on from a place. `limit` is how much output of an attempt is kept unless its job says otherwise."""
    try:
        job = reader.by_seq(place.seq)
    except NoSuchJobError:
        return Look((), place, None, idle=True, over=True)
    attempts = {attempt.number: attempt for attempt in reader.attempts_of(place.seq)}
    if place.number == 0 and 1 in attempts:
        # All of it was written since somebody reads.
        place = place._replace(number=1, offset=request.offset)
    attempt = attempts.get(place.number)
    final = job.state in FINAL or job.state is State.DELETED
    if attempt is None:
        return Look((), place, job, idle=True, over=final or not request.follow)
    found = _read_on(job, attempt, request, place, output_dir, limit)
    token = attempt.token if attempt.live else None
    if found.pieces or not found.exhausted:
        return Look(tuple(found.pieces), found.place, job, token=token)
    later = (request.follow or request.attempt == "all") and place.number + 1 in attempts
    if not attempt.live and later:
        following = Place(place.seq, place.job, place.number + 1, offset=None if request.attempt == "all" else 0)
        return look(reader, request, following, output_dir, limit)
    over = not request.follow or (final and not attempt.live)
    return Look((), found.place, job, token=token, idle=True, over=over)


class _Found(NamedTuple):
    pieces: list[Output]
    place: Place
    # Whether everything was read that is there.
    exhausted: bool


def _read_on(job: Job, attempt: Attempt, request: Logs, place: Place, output_dir: Path, limit: int) -> _Found:
    with _output_of(job, attempt, output_dir, limit) as files:
        if place.offset is None:
            place = place._replace(offset=_beginning(files, request))
        found = _pieces(files, attempt, request, place)
        return _told_of_missing(files, attempt, request, found) if found.exhausted and not attempt.live else found


def _output_of(job: Job, attempt: Attempt, output_dir: Path, limit: int) -> OutputFiles:
    kept = limit if job.spec.limits.output is None else job.spec.limits.output
    missing = 0 if attempt.outcome is None else attempt.outcome.output_missing
    return OutputFiles(output_base(output_dir, job.seq, attempt.number), live=attempt.live, limit=kept, missing=missing)


def _beginning(files: OutputFiles, request: Logs) -> int:
    starts = [request.offset]
    if request.lines is not None:
        starts.append(last_lines(files, request.lines, request.stream))
    if request.since is not None:
        starts.append(files.since(request.since - _TIME_STEP))
    return max(starts)


def last_lines(files: OutputFiles, lines: int, stream: str | None) -> int:
    """Return the offset at which the last so many lines begin, of one stream or of both."""
    if lines == 0:
        return files.end
    # The line break at the very end begins no line.
    wanted, newest = lines, True
    for stretch in files.backwards():
        if stretch.stream == GAP or not _wanted(stretch, stream):
            continue
        end = stretch.end
        while end > stretch.start:
            start = max(stretch.start, end - PIECE)
            data = files.read(start, end - start)
            place = len(data) - 1 if newest and data.endswith(b"\n") else len(data)
            newest = False
            while (place := data.rfind(b"\n", 0, place)) >= 0:
                wanted -= 1
                if wanted == 0:
                    return start + place + 1
            end = start
    return 0


def _wanted(stretch: Stretch, stream: str | None) -> bool:
    return stream is None or STREAM_NAMES.get(stretch.stream) == stream


def _pieces(files: OutputFiles, attempt: Attempt, request: Logs, place: Place) -> _Found:
    pieces: list[Output] = []
    offset, missing, room = place.offset or 0, place.missing, PIECE
    exhausted = False
    for _ in range(_STRETCHES):
        stretch = files.stretch(offset)
        if stretch is None:
            exhausted = True
            break
        if stretch.stream == GAP or not _wanted(stretch, request.stream):
            missing += stretch.end - offset if stretch.stream == GAP else 0
            offset = stretch.end
            continue
        data = _characters(files, stretch, room, growing=attempt.live)
        if not data:
            exhausted = True
            break
        pieces.extend(_outputs(place, stretch, data, missing))
        offset, missing, room = offset + len(data), 0, room - len(data)
        if room < _SMALL:
            break
    return _Found(pieces, place._replace(offset=offset, missing=missing), exhausted)


def _characters(files: OutputFiles, stretch: Stretch, room: int, *, growing: bool) -> bytes:
    """Return what a stretch has, at most `room`, but no piece of a character whose rest is there or may come."""
    length = stretch.end - stretch.start
    data = files.read(stretch.start, min(room, length))
    tail = incomplete_tail(data)
    if not tail:
        return data
    if len(data) < length:
        return data[:-tail]
    following = files.stretch(stretch.end)
    if following is None:
        return data[:-tail] if growing else data
    if following.stream != stretch.stream:
        return data
    # The same stream goes on: its index only noted the time here.
    joined = data + files.read(stretch.end, min(missing_bytes(data), following.end - following.start))
    return data if incomplete_tail(joined) else joined


def _outputs(place: Place, stretch: Stretch, data: bytes, missing: int) -> list[Output]:
    piece = Output(
        job=place.job,
        attempt=place.number,
        stream=STREAM_NAMES[stretch.stream],
        offset=stretch.start,
        at=iso(stretch.at),
        missing=missing,
    )
    try:
        return [replace(piece, data=data.decode())]
    except UnicodeDecodeError as error:
        good = error.start
    if good > 0 and len(data) - good == incomplete_tail(data):
        rest = replace(piece, offset=stretch.start + good, b64=_b64(data[good:]), missing=0)
        return [replace(piece, data=data[:good].decode()), rest]
    return [replace(piece, b64=_b64(data))]


def _b64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


def _told_of_missing(files: OutputFiles, attempt: Attempt, request: Logs, found: _Found) -> _Found:
    """Say behind the last piece what was never kept, or was removed since; nothing is missing silently."""
    written = 0 if attempt.outcome is None else attempt.outcome.output_bytes
    offset = found.place.offset or 0
    missing = found.place.missing + max(0, written - max(offset, files.end))
    if not missing:
        return found
    place = found.place._replace(offset=max(offset, written), missing=0)
    at = iso(attempt.claimed_at if attempt.outcome is None else attempt.outcome.ended_at)
    mark = Output(
        job=place.job,
        attempt=place.number,
        stream=request.stream or "stdout",
        offset=max(offset, written),
        at=at,
        data="",
        missing=missing,
        removed=attempt.output_removed,
    )
    return _Found([*found.pieces, mark], place, exhausted=True)


def place_mark(place: Place, request: Logs, now: float) -> Output:
    """Return what tells a place where there is nothing to show yet."""
    return Output(
        job=place.job,
        attempt=place.number,
        stream=request.stream or "stdout",
        offset=place.offset or 0,
        at=iso(now),
    )


def tail(reader: Reader, job: Job, lines: int, output_dir: Path, limit: int) -> str:
    """Return the last lines that the newest attempt of a job wrote, for people; at most 64 KiB."""
    attempts = reader.attempts_of(job.seq)
    if not attempts or not lines:
        return ""
    attempt = attempts[-1]
    with _output_of(job, attempt, output_dir, limit) as files:
        offset = max(last_lines(files, lines, None), files.end - PIECE)
        text = bytearray()
        while (stretch := files.stretch(offset)) is not None:
            text += b"" if stretch.stream == GAP else files.read(offset, stretch.end - offset)
            offset = stretch.end
    return text.decode(errors="replace")
