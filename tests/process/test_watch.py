"""What happens to a file is noticed, however it is done, and also where the host watches nothing."""

# ruff: noqa: ASYNC110, ASYNC240  (tests wait for conditions, and their files are on no slow disk)

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c

from queuectld.config import Holder, Loaded, load
from queuectld.errors import BadConfigError
from queuectld.host import watch
from queuectld.host.reload import ConfigWatch, Reloader, Stages
from queuectld.host.watch import CHANGES, Eye, Observers, Visibility

PATIENCE = 20.0


class Rig:
    """A file with a configuration, and what watches it."""

    def __init__(self, file: Path, environ: dict[str, str] | None = None) -> None:
        self.file = file
        self.reads = 0
        self.stages: list[str] = []
        self._read = partial(load, file, file.parent / "overrides.json", environ or {})
        self.holder = Holder(self._read())
        stages = Stages(lambda: self.stages.append("begun"), lambda problem: self.stages.append(problem or "taken up"))
        self.reloader = Reloader(self.read, self.holder, file=file, stages=stages, reconfigure=lambda: None)
        self._changed = asyncio.Event()
        self.holder.listen(lambda _: self._changed.set())
        self.config_watch = ConfigWatch(self.reloader, self.holder, Observers())

    def read(self) -> Loaded:
        self.reads += 1
        return self._read()

    @property
    def retries(self) -> int:
        return self.holder.config.max_retries

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.01)

    async def watched(self) -> None:
        """Wait until changes are noticed at once."""
        await self.until(lambda: self.config_watch._eye.visibility is Visibility.WATCHED and self.reads > 0)


def descriptors() -> dict[int, str]:
    """Return what this process has open."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        # The one by which this is read is gone.
        with suppress(FileNotFoundError):
            found[int(link.name)] = str(link.readlink())
    return found


def run(file: Path, test: Callable[[Rig], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        rig = Rig(file, **options)
        watching = asyncio.create_task(rig.config_watch.run())
        try:
            await test(rig)
        finally:
            watching.cancel()

    asyncio.run(main())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "etc"
    place.mkdir()
    (place / "queuectld.toml").write_text("max_retries = 1\n")
    return place / "queuectld.toml"


@pytest.fixture
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks because it is time to."""
    monkeypatch.setattr(watch, "_SLOW", 3600.0)
    monkeypatch.setattr(watch, "_BLIND", 3600.0)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look comes soon where no event does."""
    monkeypatch.setattr(watch, "_SLOW", 0.1)
    monkeypatch.setattr(watch, "_BLIND", 0.1)


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def replaced(file: Path, text: str) -> None:
    draft = file.with_name(".draft")
    draft.write_text(text)
    draft.replace(file)


def moved_in(file: Path, text: str) -> None:
    draft = file.parent.with_name("elsewhere")
    draft.write_text(text)
    draft.replace(file)


def linked(file: Path, text: str) -> None:
    draft = file.parent.with_name("elsewhere")
    draft.write_text(text)
    file.unlink()
    file.hardlink_to(draft)


def with_a_backup(file: Path, text: str) -> None:
    """As vim does."""
    file.rename(f"{file}~")
    file.write_text(text)
    Path(f"{file}~").unlink()


WAYS = [in_place, replaced, moved_in, linked, with_a_backup]


@pytest.mark.parametrize("change", WAYS, ids=lambda way: way.__name__)
@pytest.mark.usefixtures("only_events")
def test_a_file_that_changes_is_read_once_however_it_is_done(file: Path, change: Callable[[Path, str], None]) -> None:
    async def test(rig: Rig) -> None:
        await rig.watched()
        for number in (2, 3):
            change(file, f"max_retries = {number}\n")
            await rig.until(lambda number=number: rig.retries == number)  # type: ignore[misc]

        # One more at the beginning; a read that woke itself would have made it more.
        assert rig.reads == 3
        assert rig.stages == ["begun", "taken up"] * 2

    run(file, test)


@pytest.mark.usefixtures("only_events")
def test_a_link_is_followed_when_the_directory_behind_it_is_swapped(tmp_path: Path) -> None:
    """As Kubernetes updates what is mounted: the file itself never changes."""
    place = tmp_path / "etc"
    for number in (1, 2):
        (place / f"v{number}").mkdir(parents=True)
        (place / f"v{number}" / "queuectld.toml").write_text(f"max_retries = {number}\n")
    (place / "..data").symlink_to("v1")
    (place / "queuectld.toml").symlink_to("..data/queuectld.toml")

    async def test(rig: Rig) -> None:
        await rig.watched()
        (place / "..data_tmp").symlink_to("v2")
        (place / "..data_tmp").rename(place / "..data")

        await rig.until(lambda: rig.retries == 2)

    run(place / "queuectld.toml", test)


@pytest.mark.usefixtures("only_events")
def test_a_bad_file_changes_nothing_and_is_a_problem_until_a_good_one_comes(file: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.watched()
        file.write_text("max_retries = many\n")
        await rig.until(lambda: bool(rig.reloader.problems()))

        assert rig.retries == 1
        assert "queuectld.toml: not TOML" in rig.reloader.problems()[0]
        assert "not TOML" in rig.stages[-1]
        file.write_text("max_retries = 2\n")
        await rig.until(lambda: rig.retries == 2)
        assert rig.reloader.problems() == ()

    run(file, test)


@pytest.mark.usefixtures("only_events")
def test_what_changed_before_anybody_watched_is_seen_at_the_beginning(file: Path) -> None:
    async def main() -> None:
        rig = Rig(file)
        file.write_text("max_retries = 2\n")
        watching = asyncio.create_task(rig.config_watch.run())
        await rig.until(lambda: rig.retries == 2)
        watching.cancel()

    asyncio.run(main())


@pytest.mark.usefixtures("often")
def test_a_file_that_did_not_change_is_not_read_again_however_often_it_is_looked_at(file: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.watched()
        looks = 0
        seen = rig.config_watch._eye.open

        async def counted() -> None:
            nonlocal looks
            looks += 1
            await seen()

        rig.config_watch._eye.open = counted  # type: ignore[method-assign]
        await rig.until(lambda: looks > 5)

        assert rig.reads == 1

    run(file, test)


@pytest.mark.usefixtures("only_events")
def test_it_is_watched_as_long_as_the_configuration_says_so(file: Path) -> None:
    async def test(rig: Rig) -> None:
        await rig.watched()
        file.write_text("watch_config = false\n")
        await rig.until(lambda: rig.config_watch._eye._watch is None)

        file.write_text("max_retries = 2\n")
        # Which also has it watched again.
        await rig.reloader.reload()

        assert rig.retries == 2
        await rig.watched()
        file.write_text("max_retries = 3\n")
        await rig.until(lambda: rig.retries == 3)

    run(file, test)


@pytest.mark.usefixtures("often")
def test_a_directory_that_comes_later_is_watched_then(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "queuectld.toml"

    async def test(rig: Rig) -> None:
        await rig.until(lambda: rig.reads > 0)
        assert rig.config_watch._eye.visibility is Visibility.ABSENT
        file.parent.mkdir()
        file.write_text("max_retries = 2\n")

        await rig.until(lambda: rig.retries == 2)
        await rig.watched()

    run(file, test)


@pytest.mark.parametrize("how", ["removed", "moved"])
@pytest.mark.usefixtures("often")
def test_another_directory_in_the_place_of_the_first_is_watched_instead(file: Path, how: str) -> None:
    async def test(rig: Rig) -> None:
        await rig.watched()
        first = rig.config_watch._eye._watched
        if how == "moved":
            file.parent.rename(file.parent.with_name("old"))
        else:
            file.unlink()
            file.parent.rmdir()
        file.parent.mkdir()
        file.write_text("max_retries = 2\n")
        await rig.until(lambda: rig.retries == 2)
        await rig.until(lambda: rig.config_watch._eye._watched != first or how == "removed")
        await rig.watched()

        file.write_text("max_retries = 3\n")
        await rig.until(lambda: rig.retries == 3)

    run(file, test)


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        pytest.param("inotify_init", lambda: -1, id="as many instances as the user may have"),
        pytest.param("inotify_add_watch", lambda *_: -1, id="as many watches as the user may have"),
    ],
)
@pytest.mark.usefixtures("often")
def test_where_the_host_watches_nothing_the_file_is_looked_at_until_it_does(
    file: Path, what: str, fault: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def test(rig: Rig) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(inotify_c.ctypes, "get_errno", lambda: errno.ENOSPC)
            broken.setattr(inotify_c, what, fault)
            await rig.until(lambda: rig.config_watch._eye.visibility is Visibility.BLIND)
            file.write_text("max_retries = 2\n")
            await rig.until(lambda: rig.retries == 2)
        await rig.watched()
        monkeypatch.setattr(watch, "_SLOW", 3600.0)
        file.write_text("max_retries = 3\n")
        await rig.until(lambda: rig.retries == 3)

    run(file, test)
    told = capfd.readouterr().out
    assert told.count("watch.failed") == told.count("watch.works") == 1


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.usefixtures("often")
def test_where_no_thread_is_left_the_file_is_looked_at(file: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if "watchdog" in type(thread).__module__:
            if len(started) == count:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    async def test(rig: Rig) -> None:
        await rig.until(lambda: rig.config_watch._eye.visibility is Visibility.BLIND)
        before = descriptors()
        for number in (2, 3):
            file.write_text(f"max_retries = {number}\n")
            await rig.until(lambda number=number: rig.retries == number)  # type: ignore[misc]
        assert len(descriptors()) == len(before)

    monkeypatch.setattr(threading.Thread, "start", limited)
    run(file, test)


def test_a_program_that_is_started_inherits_nothing_of_what_watches(tmp_path: Path) -> None:
    async def main() -> None:
        eye = Eye(Observers(), tmp_path, CHANGES)
        await eye.open()

        watching = [number for number, target in descriptors().items() if "inotify" in target]
        assert eye.visibility is Visibility.WATCHED
        assert watching
        assert not any(os.get_inheritable(descriptor) for descriptor in watching)

    asyncio.run(main())


def test_nothing_is_taken_up_that_a_part_of_the_daemon_refuses(file: Path) -> None:
    async def test(rig: Rig) -> None:
        taken: list[str] = []
        refuses = True

        def part(_: Any) -> Callable[[], None]:
            if refuses:
                raise BadConfigError("the certificate has expired")
            return lambda: taken.append("the certificate")

        rig.reloader.ask(part)
        file.write_text("max_retries = 2\n")
        with pytest.raises(BadConfigError):
            await rig.reloader.reload()
        assert (rig.retries, taken) == (1, [])
        refuses = False
        told = await rig.reloader.reload()

        assert [row.key for row in told.changed] == ["max_retries"]
        assert (rig.retries, taken) == (2, ["the certificate"])

    run(file, test, environ={"QUEUECTLD_WATCH_CONFIG": "false"})


def test_keys_wait_for_the_next_start_until_they_have_their_old_value_again(file: Path) -> None:
    async def test(rig: Rig) -> None:
        file.write_text("socket_mode = '0660'\n")
        assert (await rig.reloader.reload()).needs_restart == ("socket_mode",)
        assert (await rig.reloader.reload()).needs_restart == ("socket_mode",)
        file.write_text("max_retries = 1\n")
        assert (await rig.reloader.reload()).needs_restart == ()

    run(file, test, environ={"QUEUECTLD_WATCH_CONFIG": "false"})
