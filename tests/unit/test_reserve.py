from __future__ import annotations

import pytest

from queuectld.errors import DiskFullError
from queuectld.host import reserve
from queuectld.host.reserve import Reserve

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path, mount_small):
    """A file system of 4 MiB."""
    return mount_small(tmp_path / "disk", "4m")


def fill(path, size):
    path.write_bytes(b"x" * size)


def test_space_is_really_put_by(tmp_path):
    assert Reserve(tmp_path / "reserve").make()

    found = (tmp_path / "reserve").stat()
    assert found.st_size == 8 * MIB
    assert found.st_blocks * 512 >= found.st_size
    assert found.st_mode & 0o777 == 0o600


def test_a_file_that_only_looks_long_is_filled(tmp_path):
    with (tmp_path / "reserve").open("wb") as file:
        file.truncate(8 * MIB)

    assert Reserve(tmp_path / "reserve").make()

    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 8 * MIB


def test_a_small_disk_gives_an_eighth(disk):
    assert Reserve(disk / "reserve").make()

    assert (disk / "reserve").stat().st_size == MIB // 2


def test_it_is_given_up_in_slices(tmp_path):
    file = tmp_path / "reserve"
    kept = Reserve(file)
    kept.make()

    sizes = []
    while kept.release():
        sizes.append(file.stat().st_size)

    assert sizes == [size * MIB for size in range(7, -1, -1)]


def test_nothing_is_given_up_where_nothing_is(tmp_path):
    assert not Reserve(tmp_path / "reserve").release()


def test_it_is_not_put_by_again_before_there_is_room_for_more(disk):
    kept = Reserve(disk / "reserve")
    kept.make()
    kept.release()
    fill(disk / "ballast", 4 * MIB - MIB // 2)

    again = kept.make()
    left = (disk / "reserve").stat().st_size
    (disk / "ballast").unlink()

    assert not again
    assert left == MIB // 2 - MIB // 16
    assert kept.make()
    assert (disk / "reserve").stat().st_size == MIB // 2


def test_where_files_cannot_be_made_the_disk_does_not_count_as_full(tmp_path):
    (tmp_path / "reserve").mkdir()

    assert Reserve(tmp_path / "reserve").make()


def test_work_gets_as_much_as_it_needs(tmp_path):
    kept = Reserve(tmp_path / "reserve")
    kept.make()
    outcomes = iter([DiskFullError(), DiskFullError(), "done"])

    def work():
        if isinstance(outcome := next(outcomes), DiskFullError):
            raise outcome
        return outcome

    assert kept.lend_to(work) == "done"
    assert (tmp_path / "reserve").stat().st_size == 6 * MIB


def test_work_that_never_fits_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(reserve, "_SIZE", 8)
    kept = Reserve(tmp_path / "reserve")
    kept.make()

    def work():
        raise DiskFullError

    with pytest.raises(DiskFullError):
        kept.lend_to(work)
