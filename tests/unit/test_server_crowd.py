"""Who may come when many are connected."""

from __future__ import annotations

import itertools

from queuectld.server.crowd import Crowd

ANN, BOB, ROOT = 1000, 1001, 0
numbers = itertools.count()


def come(crowd: Crowd[int], user: int | None, times: int) -> int:
    """Return how many were let in."""
    return sum(crowd.enter(next(numbers), user, admin=user == ROOT) for _ in range(times))


def test_one_user_has_half_of_the_connections_and_others_still_come():
    crowd: Crowd[int] = Crowd(32)

    assert come(crowd, ANN, 100) == 16
    assert come(crowd, BOB, 1) == 1


def test_what_all_users_leave_over_is_for_administrators():
    crowd: Crowd[int] = Crowd(32)

    assert come(crowd, ANN, 100) + come(crowd, BOB, 100) + come(crowd, None, 100) == 30
    assert come(crowd, ROOT, 100) == 2


def test_an_administrator_may_have_all():
    assert come(Crowd(32), ROOT, 100) == 32


def test_who_has_gone_makes_room():
    crowd: Crowd[int] = Crowd(4)
    assert crowd.enter(-1, ANN, admin=False)
    assert come(crowd, ANN, 3) == 1

    crowd.leave(-1)
    crowd.leave(-1)

    assert come(crowd, ANN, 3) == 1
    assert len(crowd) == 2


def test_who_says_later_who_he_is_counts_from_then_on_and_once():
    crowd: Crowd[int] = Crowd(4)
    for guest in (-1, -2, -3):
        assert crowd.enter(guest, None, admin=False)

    assert crowd.name(-1, ANN, admin=False)
    assert crowd.name(-1, ANN, admin=False)
    assert crowd.name(-2, ANN, admin=False)
    assert not crowd.name(-3, ANN, admin=False)
    assert crowd.name(-3, BOB, admin=False)

    assert list(crowd) == [-1, -2, -3]


def test_however_many_there_may_be_one_user_has_eight_thousand():
    assert come(Crowd(100_000), ANN, 10_000) == 8192
