from __future__ import annotations

import stat
import time

import pytest

from queuectld.config import Config, policy
from queuectld.domain.job import State
from queuectld.errors import BadRequestError, DiskFullError
from queuectld.service.owner import Submitter
from queuectld.service.spool import (
    LARGEST,
    MOST_JOBS,
    Arrival,
    Found,
    RefusedFileError,
    Rules,
    complaint,
    in_turn,
    jobs_in,
    order_of,
    store_file,
)
from queuectld.service.submit import Ahead, Terms
from queuectld.store.base import Query
from queuectld.store.memory import MemoryStore

ME, OTHER, ROOT = 1000, 1001, 0
GROUP, ELSEWHERE = 50, 100


def found(mode: int = 0o644, **fields: int) -> Found:
    kind = fields.pop("kind", stat.S_IFREG)
    return Found(**{"mode": kind | mode, "uid": ME, "gid": GROUP, "links": 1, "size": 10, **fields})


PRIVATE = Rules(ME)
OF_ROOT = Rules(ROOT)
SHARED = Rules(ROOT, shared=True, group=GROUP)


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        pytest.param(found(), PRIVATE, id="one's own"),
        pytest.param(found(0o600), SHARED, id="nobody else reads"),
        pytest.param(found(uid=ROOT), PRIVATE, id="root's"),
        pytest.param(found(uid=OTHER), OF_ROOT, id="anybody's, where only root could put it"),
        pytest.param(found(uid=OTHER), SHARED, id="a member's"),
        pytest.param(found(0o664, gid=ELSEWHERE), PRIVATE, id="the group's, where nobody else puts anything"),
        pytest.param(found(gid=ELSEWHERE), Rules(ROOT, shared=True), id="moved in, where nothing tells"),
        pytest.param(found(size=LARGEST), SHARED, id="as large as may be"),
    ],
)
def test_a_file_is_taken_whose_author_is_sure(file: Found, rules: Rules) -> None:
    assert complaint(file, rules) is None


@pytest.mark.parametrize(
    ("file", "rules", "said"),
    [
        (found(kind=stat.S_IFLNK), SHARED, "a symbolic link"),
        (found(kind=stat.S_IFDIR), SHARED, "a directory"),
        (found(kind=stat.S_IFIFO), SHARED, "a pipe"),
        (found(kind=stat.S_IFSOCK), SHARED, "a socket"),
        (found(kind=stat.S_IFCHR), SHARED, "a device"),
        (found(uid=OTHER), PRIVATE, "belongs to another user (uid 1001)"),
        (found(0o666), PRIVATE, "others may write to it (mode 0666)"),
        (found(0o664), SHARED, "others may write to it (mode 0664)"),
        (found(gid=ELSEWHERE), SHARED, "made elsewhere"),
        (found(links=2), SHARED, "a hard link"),
        (found(size=LARGEST + 1), SHARED, "1,048,577 bytes"),
    ],
)
def test_a_file_is_not_taken_and_it_is_said_why(file: Found, rules: Rules, said: str) -> None:
    reason = complaint(file, rules)

    assert reason is not None
    assert said in reason


ONE, TWO = b'{"command": "a"}', b'{"command": "b"}'


@pytest.mark.parametrize(
    ("data", "jobs"),
    [
        (ONE, [ONE]),
        (b"\n " + ONE + b"\n\n", [ONE]),
        (b'{\n"command": "a"\n}', [b'{\n"command": "a"\n}']),
        (b"[" + ONE + b"," + TWO + b"]", [ONE, TWO]),
        (ONE + b"\n" + TWO, [ONE, TWO]),
        (ONE + b"\r\n\n" + TWO + b"\n", [ONE, TWO]),
        (b"17", [b"17"]),
    ],
)
def test_a_file_has_an_object_an_array_or_one_object_a_line(data: bytes, jobs: list[bytes]) -> None:
    assert [bytes(job).strip() for job in jobs_in(data)] == jobs


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[]", "no jobs"),
        (b"{", "not JSON"),
        (b'{"command": "a"', "not JSON"),
        (b'{"command":\n"a"', "not JSON"),
        (ONE + b"\n{", "not JSON"),
        (ONE + b" " + TWO, "not JSON"),
        (b"echo hello", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" + b",".join([ONE] * (MOST_JOBS + 1)) + b"]", "1,001 jobs"),
    ],
)
def test_what_is_no_job_is_said(data: bytes, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        jobs_in(data)


def test_owners_take_turns_and_each_is_served_in_the_order_of_writing() -> None:
    many = [Arrival(f"a{number}", ME, 10 - number) for number in range(4)]
    few = [Arrival("z", OTHER, 99), Arrival("b", OTHER, 99)]

    assert [one.name for one in in_turn([*many, *few])] == ["a3", "b", "a2", "z", "a1", "a0"]


# Storing.


def terms() -> Terms:
    return Terms(Submitter("ann"), Config(), policy(Config()), 1, Ahead(), time.time())


def store_jobs(store: MemoryStore, mark: str, data: bytes) -> int:
    with store.transaction():
        reply = store_file(store, mark, order_of(jobs_in(data), terms()))
    return -1 if reply is None else len(reply.jobs)


def stored(store: MemoryStore) -> list[str | None]:
    return [job.spec.command for job in store.find(Query()).jobs]


def test_the_jobs_of_a_file_are_their_owners_and_begin_with_nothing_of_anybodys() -> None:
    store = MemoryStore()

    assert store_jobs(store, "mark", ONE + b"\n" + TWO) == 2

    jobs = store.find(Query()).jobs
    assert [(job.owner, job.state, job.environment, job.spec.cwd) for job in jobs] == [
        ("ann", State.PENDING, None, None)
    ] * 2


def test_a_file_that_is_on_record_is_not_stored_again() -> None:
    store = MemoryStore()

    assert [store_jobs(store, mark, ONE) for mark in ("one", "one", "two")] == [1, -1, 1]
    assert stored(store) == ["a", "a"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"comand": "a"}', r"did you mean `command`"),
        (ONE + b'\n{"command": "b", "priority": "high"}', r"^job 2: .*priority"),
        (b'[{"id": "x", "command": "a"}, {"id": "x", "command": "b"}]', r"^job 2: .*'x' exists already"),
        (b'{"command": "a", "queue": "none"}', r"queue"),
        (b'{"script": {"staged": "input"}}', r"staged"),
        (b"17", "object"),
    ],
)
def test_all_jobs_of_a_file_are_stored_or_none_and_the_file_may_come_again(data: bytes, said: str) -> None:
    store = MemoryStore()

    with pytest.raises(RefusedFileError, match=said):
        store_jobs(store, "mark", data)

    assert stored(store) == []
    assert store.taken_files() == []


def test_a_full_disk_is_not_the_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    def full(*_: object, **__: object) -> None:
        raise DiskFullError

    monkeypatch.setattr(store, "add", full)
    with pytest.raises(DiskFullError):
        store_jobs(store, "mark", ONE)
