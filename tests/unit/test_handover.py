from __future__ import annotations

import os

import pytest

from queuectld.errors import BadConfigError
from queuectld.host.handover import VARIABLE, Handover, Listener, passed_descriptors, take


@pytest.fixture
def descriptor(tmp_path):
    """An open file, as a program leaves it to the next one."""
    opened = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(opened, True)
    yield opened
    os.close(opened)


def test_what_is_handed_over_arrives_and_is_inherited_by_nobody_else(descriptor):
    handover = Handover(lock=descriptor, unix=Listener(descriptor=descriptor, where="/s", inode=7), family=((1, 2),))
    environ = {VARIABLE: handover.encode(), "HOME": "/root"}

    assert take(environ) == handover
    assert environ == {"HOME": "/root"}
    assert not os.get_inheritable(descriptor)


def test_any_number_of_workers_fits(descriptor):
    handover = Handover(lock=descriptor, family=tuple((4_000_000 + number, 10**12) for number in range(10_000)))
    told = handover.encode()

    assert len(told) < 100
    assert take({VARIABLE: told}) == handover


def test_a_newer_program_may_be_given_less_than_it_knows_and_an_older_one_more(descriptor):
    assert take({VARIABLE: f'{{"lock": {descriptor}, "invented_later": 1}}'}) == Handover(lock=descriptor)


def test_who_was_no_other_program_before_gets_nothing():
    assert take({"HOME": "/root"}) is None


@pytest.mark.parametrize(
    "text", ["", "nonsense", "file x", "file -1", "file 999999", '{"lock": 999999}', '{"lock": 1e9}']
)
def test_nonsense_is_refused_with_advice(text):
    with pytest.raises(BadConfigError, match="unset it and start again"):
        take({VARIABLE: text})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, []),
        ({"LISTEN_FDS": "2"}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "1"}, []),
        ({"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}, []),
        ({"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}, [3, 4]),
    ],
)
def test_descriptors_of_a_service_manager_are_for_the_process_that_it_names(environ, expected):
    assert list(passed_descriptors(environ)) == expected
